"""The program in, the pages and tables of the site that are made from it out: commands, options, Python, measures."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from argparse import Action
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parents[1] / "tests/golden/params.json"
"""Counts for SAM ViT-B with 13 classes and a background at side 1024; a test holds the program to them."""

_KNOWN = re.compile(r"^([a-z_]+(?:, [a-z_]+)*): ", re.MULTILINE)


MORE_NOTES = {
    "noise_probability": "share of the slices that get one of `noises`.",
    "start_rank": "rank of every layer at the start.",
    "sha256": "of the weights, which it fills in itself.",
}
"""Fields that their class mentions beside another and not in a note of their own."""


def notes_of(kind: type[Any]) -> dict[str, str]:
    """Field -> what the class's docstring says of it, in the paragraphs that begin with `name:` or `name, name:`."""
    from griffe_notes import broken

    about, _, arguments = inspect.cleandoc(kind.__doc__ or "").partition("Args:\n")
    text = broken(textwrap.dedent(arguments) or about)
    marks = list(_KNOWN.finditer(text))
    found: dict[str, str] = {}
    for mark, following in zip(marks, [*marks[1:], None], strict=False):
        body = " ".join(text[mark.end() : following.start() if following else len(text)].split())
        body = re.split(r"(?<=[.;]) (?=Raises )", body)[0]
        named = mark[1].split(", ")
        for name in named:
            found[name] = body if len(named) == 1 else f"({mark[1]}) {body}"
    return found


def all_notes(kind: type[Any]) -> dict[str, str]:
    """The same, with what its base classes say of inherited fields."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if is_dataclass(base):
            found |= notes_of(base)
    return found


def cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def table(head: list[str], rows: list[list[object]], right: int = 0) -> str:
    """right: so many of the last columns are numbers."""
    rule = ["---"] * (len(head) - right) + ["---:"] * right
    lines: list[list[object]] = [[*head], [*rule], *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines) + "\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


_ALL = ("help", "config", "print_config")
"""Options of every command."""


def _called(action: Action) -> str:
    return (
        f"{action.option_strings[-1]} {action.metavar or ''}".strip() if action.option_strings else action.dest.upper()
    )


def _told(action: Action) -> str:
    return (action.help or "").replace("%%", "%")


def commands_page() -> str:
    from sampeft.cli import COMMANDS, parser_of

    page = [
        "# Commands\n\nMade from each command's own `--help`. Every command takes `--config FILE.yaml` with any of its "
        "options, and `--json` where it is listed. A yes-or-no option may be given without a value.\n"
    ]
    page.append(table(["command", "what it does"], [[f"[`{c}`](#{c})", what] for c, what in COMMANDS.items()]))
    for command, about in COMMANDS.items():
        parser = parser_of(command)
        positional = [action for action in parser._actions if not action.option_strings]
        usage = " ".join(action.dest.upper() for action in positional)
        page.append(f"\n## {command}\n\n{about}\n")
        page.append(f"```text\nsampeft {command} {usage}{' ' * bool(usage)}[options]\n```\n")
        for group in parser._action_groups:
            rows = [
                [_code(_called(action)), _told(action)] for action in group._group_actions if action.dest not in _ALL
            ]
            if rows:
                page.append(f"{group.title}\n\n{table(['option', ''], rows)}")
    return "\n".join(page)


def _fields_table(kind: type[Any], prefix: str) -> str:
    notes = all_notes(kind)
    rows: list[list[object]] = []
    for field in fields(kind):
        factory: Any = field.default_factory
        default: Any = factory() if field.default is MISSING and factory is not MISSING else field.default
        if not is_dataclass(default):
            about = notes.get(field.name) or MORE_NOTES.get(field.name, "")
            rows.append([f"`{prefix}{field.name}`", about, f"`{default}`"])
    return table(["option", "", "default"], rows)


def options_page() -> str:
    from sampeft.data.augment import Augmentation
    from sampeft.denoise import DENOISERS
    from sampeft.peft import METHODS
    from sampeft.refine import REFINERS
    from sampeft.training.settings import Training

    page = [
        "# Options of training and methods\n\nMade from the program's own descriptions. A list is given as "
        "`--options.targets '[q,k,v]'`.\n",
        f"## Training\n\n{_fields_table(Training, '--training.')}",
        f"## Augmentation\n\n{_fields_table(Augmentation, '--training.augmentation.')}",
        "## Methods\n",
    ]
    for name, method in METHODS.items():
        about = inspect.cleandoc(method.attach.__doc__ or "").split("\n\n")[0]
        page.append(f"### {name}\n\n{about}\n\n{_fields_table(method.options, '--options.')}")
    for title, known, prefix in (
        ("Denoisers", DENOISERS, "--denoise_options."),
        ("Refiners", REFINERS, "--refine_options."),
    ):
        page.append(f"## {title}\n")
        for name, entry in known.items():
            kind = entry if isinstance(entry, type) else entry.options
            about = inspect.cleandoc(entry.__doc__ or "").split("\n\n")[0] if isinstance(entry, type) else entry.about
            page.append(f"### {name}\n\n{about}\n\n{_fields_table(kind, prefix)}")
    return "\n".join(page)


PYTHON = {
    "sampeft.prediction.loading": ["load"],
    "sampeft.prediction.segmenter": ["Segmenter"],
    "sampeft.workflows.train": ["train"],
    "sampeft.configs.train": ["Config"],
    "sampeft.training.settings": ["Training"],
    "sampeft.prediction.tiling": ["RasterOptions"],
    "sampeft.data": ["open_dataset"],
    "sampeft.data.case": ["Dataset", "Case", "ImageFile"],
    "sampeft.io": ["read_volume", "write_labels"],
    "sampeft.volume": ["Volume", "LabelVolume"],
    "sampeft.labels": ["LabelSet"],
    "sampeft.metrics.scores": ["Evaluation", "ClassScore"],
    "sampeft.metrics.statistics": ["Interval", "bootstrap_interval"],
    "sampeft.metrics.protocols": ["Protocol", "protocol_of"],
    "sampeft.metrics.surface": ["surfaces", "nsd", "hausdorff", "assd"],
    "sampeft.metrics.targets": ["count_targets", "TargetCounts"],
    "sampeft.metrics.paired": ["paired_tests", "PairedTest"],
    "sampeft.losses": ["segmentation_loss"],
    "sampeft.errors": ["SampeftError", "UsageError", "DataError"],
}
"""Module -> what of it is shown. `tests/docs` looks whether each is there."""


def python_page() -> str:
    page = [
        "# Python\n\n`sampeft.load`, `sampeft.Segmenter`, `sampeft.train` and `sampeft.TrainConfig` (the `Config` of "
        "`sampeft.configs.train`) are the public names; the rest is for those who build on it and may change. "
        "Letters at the end of a name are the axes of an array: `logits_BKHW` has batch, class, row and column.\n"
    ]
    for module, names in PYTHON.items():
        page.append(f"## {module}\n")
        page += [f"::: {module}.{name}\n" for name in names]
    return "\n".join(page)


def measures_table() -> str:
    from sampeft.metrics import METRICS

    better = {"higher": "higher", "lower": "lower", "zero": "nearer to 0"}
    rows: list[list[object]] = [
        [f"`{name}`", m.title, m.unit or "share", better[m.better]] for name, m in METRICS.items()
    ]
    return table(["name in scores.csv", "measure", "unit", "better"], rows)


def protocols_table() -> str:
    from sampeft.metrics.protocols import PROTOCOLS

    return table(["`--protocol`", "rules"], [[f"`{name}`", p.about] for name, p in PROTOCOLS.items()])


def tolerances_table() -> str:
    from sampeft.metrics.protocols import FLARE22_TOLERANCE_MM, TOLERANCE_MM

    rows: list[list[object]] = [[name, f"{mm:g}"] for name, mm in FLARE22_TOLERANCE_MM.items()]
    return table(["class", "mm"], [*rows, ["any other", f"{TOLERANCE_MM:g}"]], right=1)


def intensity_table() -> str:
    from sampeft.data.intensity import PRESETS

    rows: list[list[object]] = [
        [f"`{name}`", p.kind, f"{p.low:g} to {p.high:g}", p.crop] for name, p in PRESETS.items()
    ]
    return table(["`--intensity`", "kind", "low to high", "crop"], rows)


def methods_table() -> str:
    from sampeft.peft import METHODS

    golden: dict[str, dict[str, int]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    rows: list[list[object]] = []
    for name in METHODS:
        counts = golden[name]
        rows.append(
            [
                f"`{name}`",
                f"{counts['total_without_prompts']:,}",
                f"{counts['trainable']:,}",
                f"{counts['saved_bytes'] / 2**20:.1f}",
            ]
        )
    return table(["method", "parameters that run", "trained", "MiB a run saves"], rows, right=3)


TABLES: dict[str, Callable[[], str]] = {
    "measures": measures_table,
    "protocols": protocols_table,
    "tolerances": tolerances_table,
    "intensity": intensity_table,
    "methods": methods_table,
}
PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "reference/options.md": options_page,
    "reference/python.md": python_page,
}
