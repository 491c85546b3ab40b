"""Read YAML strictly: what could grow without end or means two things is refused."""

from __future__ import annotations

from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, cast, get_args, get_type_hints

from sampeft.errors import UsageError

_MOST_BYTES, _DEEPEST = 1 << 20, 20


@cache
def refuse_ambiguous_yaml() -> None:
    """Let jsonargparse read recipes and values through `check`."""
    from jsonargparse import get_loader, set_loader
    from yaml import YAMLError

    load = get_loader("yaml")

    def checked(text: str) -> Any:
        check(text)
        return load(text)

    set_loader("yaml", checked, (YAMLError,))


def check(text: str) -> None:
    """Raises UsageError for aliases, by which a few lines stand for gigabytes, names that are there twice in one place, and
    texts that are too long or too deep or hold a NUL; yaml's own errors for what is no YAML."""
    import yaml

    if len(text) > _MOST_BYTES:
        raise UsageError(f"a recipe of {len(text) >> 20} MiB is too long; is it the right file?")
    anchors: set[str] = set()
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if "\0" in getattr(event, "value", ""):
            raise UsageError(f"line {event.start_mark.line + 1} holds a NUL character; no option does")
        if isinstance(event, yaml.AliasEvent) and event.anchor in anchors:
            raise UsageError(
                f"line {event.start_mark.line + 1} repeats '&{event.anchor}' by an alias, which recipes have not; write it out"
            )
        if anchor := getattr(event, "anchor", None):
            anchors.add(anchor)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise UsageError(f"line {event.start_mark.line + 1} is more than {_DEEPEST} levels deep; no option is")
    if (root := yaml.compose(text, Loader=yaml.SafeLoader)) is not None:
        _refuse_doubles(root)


def refuse_unreadable(path: Path) -> None:
    """Raises UsageError where the file of a recipe is a folder or no YAML, with the line."""
    import yaml

    try:
        yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (UnicodeDecodeError, IsADirectoryError):
        raise UsageError(f"{path}: is not a YAML file with options; give one such as `--print_config` writes") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UsageError(f"{path}: {line}{error.problem or 'not YAML'}; correct the YAML") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: is not YAML ({' '.join(str(error).split())}); correct the file") from None


def refuse_nothing(values: Any, kind: type[Any], within: str = "") -> None:
    """Raises UsageError where an option has no value, or a group of options one, which jsonargparse lets pass.

    values: as parsed, with the fields of the dataclass `kind` as attributes. within: before their names.
    """
    for name, type_ in get_type_hints(kind).items():
        value = getattr(values, name, None)
        if is_dataclass(type_):
            if value is None or not hasattr(value, "__dict__"):
                raise UsageError(f"{within}{name} is {value!r:.60}; give names and values")
            refuse_nothing(value, cast(type[Any], type_), f"{within}{name}.")
        elif value is None and NoneType not in get_args(type_):
            raise UsageError(f"{within}{name} has no value; give one or leave it out")


def _refuse_doubles(node: Any) -> None:
    import yaml

    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(f"'{doubled}' is there twice (line {node.start_mark.line + 1} on); remove one of the two")
        for pair in node.value:
            for inner in pair:
                _refuse_doubles(inner)
    elif isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            _refuse_doubles(inner)
