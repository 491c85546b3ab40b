"""YAML text of a recipe or an option in, its values out; what could grow without end or means two things is refused."""

from __future__ import annotations

from functools import cache
from typing import Any

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
    texts that are too long or too deep; yaml's own errors for what is no YAML."""
    import yaml

    if len(text) > _MOST_BYTES:
        raise UsageError(f"a recipe of {len(text) >> 20} MiB is too long; is it the right file?")
    anchors: set[str] = set()
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
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
