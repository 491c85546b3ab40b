"""The dataclass of what a command is asked for -> its parser: values read, help in plain words, mistakes told in one line."""

from __future__ import annotations

import re
from argparse import Action, HelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter

from sampeft.errors import UsageError
from sampeft.options import Range, range_of, short
from sampeft.strict_yaml import refuse_ambiguous_yaml, refuse_nothing, refuse_unreadable

OTHERS = {
    "amp": "training.precision",
    "alpha": "options.alpha",
    "arch": "backbone",
    "b": "training.batch",
    "batch": "training.batch",
    "batch_size": "training.batch",
    "bs": "training.batch",
    "checkpoint": "weights",
    "ckpt": "weights",
    "dataset": "data",
    "dataset_dir": "data",
    "data_dir": "data",
    "dropout": "options.dropout",
    "epochs": "training.steps",
    "fold": "split",
    "fp16": "training.precision",
    "image_size": "side",
    "img_size": "side",
    "imgsz": "side",
    "input_size": "side",
    "iterations": "training.steps",
    "iters": "training.steps",
    "learning_rate": "training.lr",
    "lora_rank": "options.rank",
    "max_epochs": "training.steps",
    "max_steps": "training.steps",
    "model": "backbone",
    "name": "out",
    "num_classes": "classes",
    "o": "out",
    "output": "out",
    "output_dir": "out",
    "overwrite": "force",
    "pretrained": "weights",
    "project": "out",
    "r": "options.rank",
    "rank": "options.rank",
    "save_dir": "out",
    "size": "side",
    "spacing": "side",
    "test": "split",
    "tta": "views",
    "val": "held_out",
    "val_split": "held_out",
    "validation": "held_out",
    "wd": "training.weight_decay",
}
"""What other programs call an option -> what it is called here, or what stands in its place."""

_INSTEAD = {
    "cpu": "processors are chosen with the environment: CUDA_VISIBLE_DEVICES= (empty) is the CPU alone",
    "device": "devices are chosen with the environment, such as CUDA_VISIBLE_DEVICES=0",
    "devices": "devices are chosen with the environment, such as CUDA_VISIBLE_DEVICES=0,1",
    "gpu": "a graphics card is used where there is one; CUDA_VISIBLE_DEVICES=0 chooses among several",
    "gpus": "graphics cards are chosen with CUDA_VISIBLE_DEVICES=0,1; several train by torchrun or accelerate launch",
    "num_workers": "data are read by the program itself; there is nothing to set",
    "workers": "data are read by the program itself; there is nothing to set",
}

_OWN = {"help": "show this help and exit", "print_config": "print the options as YAML, for --config, and exit"}
_NUMBERS = {int: "N", float: "X"}
_WIDTH = 112  # columns of a help page at most; longer lines are hard to read


class Parser(ArgumentParser):  # type: ignore[misc]  # untyped, as below
    """The options of one command. `read` gives its Config; a mistake is a UsageError of one line."""

    def __init__(
        self, command: str, about: str, config: type[Any], positional: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(prog=f"sampeft {command}", description=about, formatter_class=_Help, allow_abbrev=False)
        self.command, self.config = command, config
        self.add_argument(
            "--config", action=ActionConfigFile, help="YAML file with any of these options", metavar="FILE"
        )
        for field, settings in (positional or {}).items():
            self.add_argument(field, **settings)
        self.add_class_arguments(config, skip=set(positional or ()))
        known = {name: (kind, allowed) for name, kind, allowed in described(config)}
        for action in self._actions:
            _in_plain_words(action, *known.get(action.dest, (None, None)))
        own = vars(config)["__annotations__"]
        for group in self._action_groups:
            if any(action.option_strings for action in group._group_actions):  # arguments stay in their order
                group._group_actions.sort(key=lambda action: (not action.required, action.dest not in own))
            group.title = group.title and group.title[:1].upper() + group.title[1:]

    def read(self, argv: Sequence[str]) -> Any:
        refuse_ambiguous_yaml()
        self._refuse_unreadable_files(argv)
        words = _with_plain_flags(self._with_negative_values(argv), self.config)
        values = self.parse_args(_with_lists_gathered(words, self.config))
        values.pop("config", None)
        refuse_nothing(values, self.config)
        instantiate = getattr(self, "instantiate", None) or self.instantiate_classes  # as it was called before 4.49
        return self.config(**vars(instantiate(values)))

    def _refuse_unreadable_files(self, argv: Sequence[str]) -> None:
        """Raises UsageError for a YAML file with options that is none; a missing one is told of by `error`."""
        takes_file = {name for a in self._actions if a.metavar == "FILE" for name in a.option_strings}
        for word, following in zip(argv, [*argv, ""][1:], strict=True):
            name, equals, value = word.partition("=")
            if name in takes_file and (path := Path(value if equals else following)).exists():
                refuse_unreadable(path)

    def _with_negative_values(self, argv: Sequence[str]) -> list[str]:
        """`--map -1:0` means `--map=-1:0`; argparse alone takes what begins with - for an option."""
        known = {name for action in self._actions for name in action.option_strings}
        joined: list[str] = []
        for word in argv:
            if joined and joined[-1] in known and re.match(r"-\d", word):
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return joined

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """What argparse and jsonargparse say, in one line and in the user's terms."""
        text = " ".join(message.split())
        for pattern, told in (
            (r"unrecognized arguments: (.*)", lambda words: self._unknown(words.split())),
            (r".*Option '(.*?)' is not accepted", lambda name: self._unknown([f"--{name}"])),
            (r"the following arguments are required: (.*)", self._missing),
            (r"argument (\S+): expected ", self._without_value),
            (r".*File does not exist: '(.*)'", lambda path: f"{path}: no such file; --config reads a YAML file"),
            (r".*Unable to load config ['\"](.*?)['\"]", lambda path: f"{path}: is not a YAML file with options"),
        ):
            if found := re.match(pattern, text):
                raise UsageError(told(found[1]))
        if found := re.match(r'Parser key "(.*?)": .*?(?:Got value|Given value): (.*)$', text):
            raise UsageError(f"--{found[1]} is '{found[2]}'; give {self._wanted(found[1]) or 'another value'}")
        raise UsageError(text)

    def _wanted(self, name: str) -> str:
        """What values an option takes, in words."""
        return next((in_words(kind, allowed) for known, kind, allowed in described(self.config) if known == name), "")

    def _missing(self, names: str) -> str:
        """Required options that are not given, with what they are."""
        actions = {action.dest: action for action in self._actions}
        told = []
        for name in names.split(", "):
            about = re.split(r"[;:(.,]", actions[name].help or "")[0].strip()
            told.append(f"--{name}, the {about}" if actions[name].option_strings else f"the {about}")
        return f"give {'; and '.join(told)}"

    def _without_value(self, option: str) -> str:
        wanted = self._wanted(option.lstrip("-"))
        return (
            f"{option} wants a value{f' ({wanted})' * bool(wanted)}; one that begins with - is given as {option}=VALUE"
        )

    def _unknown(self, words: Sequence[str]) -> str:
        """An argument that is no option of this command, and the one that is meant, as far as can be guessed."""
        said = next((word for word in words if word.startswith("-")), words[0])
        given = said.partition("=")[0]
        lists = f"`{self.prog} --help` lists the options"
        if not given.startswith("-"):
            data = f"did you mean --data {given}? " * any(a.dest == "data" and a.option_strings for a in self._actions)
            return f"'{given}' is one argument too many; {data}{lists}"
        if re.match(r"-\d", said):
            return f"'{said}' begins with -, which reads as an option; give it with an equals sign, as in --map={said}"
        name = given.lstrip("-").replace("-", "_")
        if name in _INSTEAD:
            return f"unknown option {given}; {_INSTEAD[name]}"
        options = [action.dest for action in self._actions if action.option_strings]
        meant = meant_by(name, options)
        if meant is None and name in OTHERS:
            return f"unknown option {given}; what `sampeft train` calls --{OTHERS[name]} is not asked for here; {lists}"
        if meant is None:
            return f"unknown option {given}; {lists}"
        wanted = self._wanted(meant)
        return f"unknown option {given}; did you mean --{meant}{f' ({wanted})' * bool(wanted)}? {lists}"


def meant_by(name: str, options: Sequence[str]) -> str | None:
    """The option that someone means who calls it `name`: by another program's word, by its last part, or by likeness."""
    last = {option.rpartition(".")[2]: option for option in reversed(options)}
    for likely in filter(None, (OTHERS.get(name), name.rpartition(".")[2])):
        if likely in options or (likely.startswith("options.") and "options" in options):
            return likely
        if likely.rpartition(".")[2] in last:
            ends = [option for option in options if option.rpartition(".")[2] == likely.rpartition(".")[2]]
            return next((option for option in ends if option.startswith("training.")), ends[0])
    close = get_close_matches(name, options, n=1, cutoff=0.7) or get_close_matches(name, last, n=1, cutoff=0.7)
    return last.get(close[0], close[0]) if close else None


def described(config: type[Any], within: str = "") -> Iterator[tuple[str, Any, Range | None]]:
    """(name, type, range) of every option, those of nested dataclasses as `training.lr`."""
    types = get_type_hints(config)
    for option in fields(config):
        kind = types[option.name]
        if is_dataclass(kind):
            yield from described(kind, f"{within}{option.name}.")  # type: ignore[arg-type]
        else:
            yield f"{within}{option.name}", kind, range_of(option)


def alternatives(kind: Any) -> list[Any]:
    """The types that a type is a union of, without None."""
    union = get_origin(kind) in (Union, type(int | str))
    return (
        [one for part in get_args(kind) for one in alternatives(part)] if union else [kind] * (kind is not type(None))
    )


def numeric(kind: Any) -> list[type]:
    """`int` and `float` as far as a type holds numbers, in tuples and lists too."""
    found = []
    for one in alternatives(kind):
        inside = get_args(one) if get_origin(one) in (tuple, list) else (one,)
        found += [part for part in inside if part in _NUMBERS]
    return found


def in_words(kind: Any, allowed: Range | None) -> str:
    """What values an option takes: `a whole number, 1 or more`; empty for text."""
    words = [word for one in alternatives(kind) if get_origin(one) is Literal for word in get_args(one)]
    numbers = numeric(kind)
    parts = []
    if numbers:
        several = any(get_origin(one) in (tuple, list) for one in alternatives(kind))
        what = "a whole number" if numbers[0] is int else "a number"
        parts.append(f"{'a list such as [1,2], each ' * several}{what}{f', {allowed.usual}' if allowed else ''}")
    if bool in alternatives(kind):
        parts.append("true or false")
    if words:
        parts.append(", ".join(words[:-1]) + f" or {words[-1]}" if len(words) > 1 else str(words[0]))
    return ", or ".join(parts)


def _in_plain_words(action: Action, kind: Any, allowed: Range | None) -> None:
    """Help and metavar of an option: text, then its range and default in brackets. What stands for a value that is not given
    is the end of its description: ` Default: the backbone's own.`"""
    if action.dest in _OWN:
        action.help, action.metavar = _OWN[action.dest], ""
        return
    if kind is None:
        if action.option_strings and action.dest != "config":  # a whole group, such as --training
            action.help, action.metavar = "YAML file with the options of this group", "FILE"
        return
    text, _, unset = " ".join((action.help or "").split()).removesuffix(".").partition(" Default: ")
    notes = ["required"] if action.required and action.option_strings else []
    notes += [str(allowed.usual)] if allowed and numeric(kind) else []
    if action.option_strings and (default := unset or _as_typed(action.default)):
        notes.append(f"default: {default}")
    if action.option_strings and any(get_origin(one) is list for one in alternatives(kind)) and not numeric(kind):
        notes.append("may be given several times")
    text = text.removesuffix(".")
    action.help = (text + (f" ({'; '.join(notes)})" if notes and text else "")).replace("%", "%%")
    if action.option_strings:
        action.metavar = "" if action.default is False else _metavar(kind)


def _as_typed(default: Any) -> str:
    """A default as the command line takes it; empty where there is none to tell."""
    if default is None or default is False or default == "" or default == {} or default in ([], ()):
        return ""
    if isinstance(default, bool):
        return "true"
    if isinstance(default, list | tuple):
        return f"[{','.join(map(_as_typed, default))}]"
    return short(default) if isinstance(default, int | float) else str(default)


def _metavar(kind: Any) -> str:
    kinds = alternatives(kind)
    words = [str(word) for one in kinds if get_origin(one) is Literal for word in get_args(one)]
    if numbers := numeric(kind):
        letter = _NUMBERS[numbers[0]]
        several = any(get_origin(one) in (tuple, list) for one in kinds)
        return "|".join([f"[{letter},...]" if several else letter, *words])
    if words:
        return "|".join(words)
    if bool in kinds:
        return "true|false"
    if get_origin(kinds[0]) is dict:
        return "{NAME:VALUE,...}"
    if get_origin(kinds[0]) is tuple:
        return "[TEXT,...]"
    inner = get_args(kinds[0]) if get_origin(kinds[0]) is list else (kinds[0],)
    return "PATH" if inner[0] is Path else "TEXT"


class _Help(DefaultHelpFormatter):  # type: ignore[misc]
    """A short usage line, and help texts that already say all there is to say."""

    def __init__(self, prog: str, **settings: Any) -> None:
        width = min(get_terminal_size((_WIDTH, 24)).columns, _WIDTH) - 2
        super().__init__(prog, **{"max_help_position": 34 if width > 90 else 26, "width": width, **settings})

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Names such as lite-medsam stay whole."""
        return wrap(text, width, break_on_hyphens=False)

    def _get_help_string(self, action: Action) -> str:
        return action.help or ""

    def _format_action_invocation(self, action: Action) -> str:
        if not action.option_strings:
            return action.dest
        names = [name for name in action.option_strings if not name.endswith("+")]  # lists are gathered anyway
        return " ".join([", ".join(names), *([str(action.metavar)] if action.metavar else [])])

    def _format_usage(self, usage: str | None, actions: Any, *rest: Any) -> str:
        needed = [a for a in actions if not a.option_strings or a.required]
        words = [
            f"{a.option_strings[0]} {a.metavar}"
            if a.option_strings
            else HelpFormatter._format_args(self, a, a.dest.upper())
            for a in needed
        ]
        return f"usage: {' '.join([self._prog, *words])} [options]\n\n"


def _with_plain_flags(argv: Sequence[str], config: type[Any]) -> list[str]:
    """`--json` alone means `--json=true`, for every yes-or-no option of a command."""
    flags = {f"--{name}" for name, kind, _ in described(config) if kind is bool}
    following = [*argv, ""][1:]
    return [
        f"{a}=true" if a in flags and b not in ("true", "false") else a for a, b in zip(argv, following, strict=True)
    ]


def _with_lists_gathered(argv: Sequence[str], config: type[Any]) -> list[str]:
    """`--set a --set b` means `--set='["a", "b"]'`, for every option of a command that takes a list, and `--cases a` a list of
    one."""
    import json

    lists = {f"--{field.name}": str(field.type) for field in fields(config) if "list[" in str(field.type)}

    def joined(name: str, values: list[str]) -> str:
        if len(values) == 1 and (values[0].startswith("[") or "str" in lists[name].split(" | ")):
            return values[0]
        return f"[{', '.join(values)}]" if "list[float]" in lists[name] else json.dumps(values)

    rest: list[str] = []
    given: dict[str, list[str]] = {}
    left = iter(argv)
    for argument in left:
        name, equals, value = argument.partition("=")
        if name not in lists or not (equals or (value := next(left, ""))):
            rest.append(argument)
        else:
            given.setdefault(name, []).append(value)
    return rest + [f"{name}={joined(name, values)}" for name, values in given.items()]
