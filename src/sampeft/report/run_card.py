"""What a run was trained on, in words, from its config.json."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sampeft.report.style import shown_name

_DIGEST = re.compile(r"[0-9a-f]{32,}")
_DIGEST_SHOWN = 12
_MANY = 8  # names in a sentence


@dataclass(frozen=True)
class Fact:
    """whole: what `value` shortens, or nothing."""

    name: str
    value: str
    whole: str = ""


def facts(config: dict[str, Any]) -> list[Fact]:
    """What a reader of a report asks first; what the config does not say is left out."""
    run = config.get("description", config)
    training = config.get("training", {})
    found = [
        _fact("backbone", run.get("backbone")),
        _fact("pretrained weights, SHA-256", run.get("weights_sha256")),
        _fact("method", _method(run)),
        _fact("options of the method", run.get("options")),
        _fact("trained parameters", _trained(run)),
        _fact("classes", [shown_name(name) for name in run.get("label_map", {}).get("labels", {})]),
        _fact("training data", _data(run.get("data"))),
        _fact("fingerprint of the data", run["data"].get("fingerprint") if isinstance(run.get("data"), dict) else None),
        _fact("cases held out to choose the model", _cases(config.get("held_out_cases", []))),
        _fact("preparation", _preparation(run.get("preparation"))),
        _fact("training", _training(training) if isinstance(training, dict) else None),
        _fact("seed", run.get("seed")),
        _fact("versions", run.get("versions")),
        _fact("source commit", _commit(run.get("git_commit"))),
        _fact("state", run.get("trained")),
    ]
    return [fact for fact in found if fact is not None]


def origin(config: dict[str, Any]) -> str:
    """The same in a line: `LoRA on lite-medsam, 351,232 of 9,791,300 parameters trained, on 18 cases of btcv`."""
    run = config.get("description", config)
    if not run.get("backbone"):
        return ""
    method = _method(run)
    parts = [f"{method} on {run['backbone']}" if method else str(run["backbone"])]
    if trained := _trained(run):
        parts.append(f"{trained} parameters trained")
    data = run.get("data")
    if isinstance(data, dict) and "cases" in data:
        parts.append(f"on {data['cases']} cases of {data.get('name', 'the data')}")
    return ", ".join(parts)


def listed(content: dict[str, Any]) -> list[Fact]:
    """Every value of a nested mapping under its names in words, such as `training: lr`."""
    return [Fact(": ".join(shown_name(part) for part in key), *_short(value)) for key, value in _flat(content)]


def shown(value: Any) -> str:
    """A value as a reader writes it: 12,345; 0.0012; yes; none; a, b."""
    if isinstance(value, dict):
        return ", ".join(f"{' '.join(map(shown_name, key))} {shown(item)}" for key, item in _flat(value))
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    return (f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}") if isinstance(value, float) else str(value)


def _fact(name: str, value: Any) -> Fact | None:
    return None if value in (None, {}, "", []) else Fact(name, *_short(value))


def _short(value: Any) -> tuple[str, str]:
    """(as shown, the whole where digests were shortened)."""
    whole = shown(value)
    short = _DIGEST.sub(lambda found: found[0][:_DIGEST_SHOWN] + "…", whole)
    return short, whole if short != whole else ""


def _flat(content: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value of a nested config under the names that lead to it."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, (*above, str(key)))
        else:
            yield (*above, str(key)), value


def _method(run: dict[str, Any]) -> Any:
    """As its authors write it; one that is not known here as the run calls it."""
    if not isinstance(name := run.get("method"), str):
        return name
    from sampeft.peft import METHODS  # loads PyTorch, which a report without a run does not need

    return METHODS[name].title if name in METHODS else name


def _trained(run: dict[str, Any]) -> str | None:
    trainable, total = run.get("trainable"), run.get("total")
    if not isinstance(trainable, int):
        return None
    return (
        f"{trainable:,} of {total:,} ({100 * trainable / total:.1f} %)"
        if isinstance(total, int) and total
        else f"{trainable:,}"
    )


def _data(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    counts = [f"{shown(data[unit])} {unit}" for unit in ("cases", "slices") if unit in data]
    return ", ".join([str(data.get("name", "not named")), *counts])


def _cases(names: Any) -> str:
    if not isinstance(names, list) or not names:
        return ""
    more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
    return f"{len(names)}: {', '.join(map(str, names[:_MANY]))}{more}"


def _preparation(preparation: Any) -> Any:
    """`sagittal slices of 256 x 256 pixels; window -160..240, crop body`."""
    if not isinstance(preparation, dict):
        return preparation
    side, levels = preparation.get("side"), preparation.get("intensity")
    plane = preparation.get("plane", "auto")
    parts = [("" if plane == "auto" else f"{plane} ") + "slices" + (f" of {side} x {side} pixels" if side else "")]
    if isinstance(levels, dict) and {"kind", "low", "high"} <= levels.keys():
        percent = " %" if levels["kind"] == "percentile" else ""
        parts.append(f"{levels['kind']} {levels['low']:g} to {levels['high']:g}{percent}")
        if levels.get("crop", "none") != "none":
            parts.append(f"cropped to the {levels['crop']}")
        if levels.get("bands"):
            parts.append(f"bands {shown(levels['bands'])}")
    known = {"side", "plane", "intensity"}
    others = {key: value for key, value in preparation.items() if key not in known and value is not None}
    return "; ".join([*parts, *(f"{shown_name(key)} {shown(value)}" for key, value in others.items())])


def _training(training: dict[str, Any]) -> str:
    named = (("steps", "steps"), ("minutes", "minutes"), ("batch", "slices a step"), ("lr", "peak learning rate"),
             ("weight_decay", "weight decay"), ("precision", "precision"))  # fmt: skip
    return ", ".join(f"{name} {shown(training[key])}" for key, name in named if training.get(key) is not None)


def _commit(commit: Any) -> str | None:
    if not commit:
        return None
    text = str(commit)
    return f"{text.removesuffix('-dirty')} with changes that are not committed" if text.endswith("-dirty") else text
