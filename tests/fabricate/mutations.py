"""Content of a JSON or YAML file in, the same with one fault of its structure out; the same for the same seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

WRONG: tuple[Any, ...] = (
    None, True, "", "x", "-1", -1, 0, 0.5, -0.5, 10**12, 10**30, 1e308, float("nan"), float("inf"), float("-inf"),
    [], [[]], ["x", 1], {}, {"x": {"x": 1}}, [1, 2, 3, 4, 5, 6, 7], "\u0000", "é" * 300,
)  # fmt: skip


def places(content: Any, within: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values below the root."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*within, key)
        yield from places(value, (*within, key))


def mutated(content: dict[str, Any], rng: random.Random) -> tuple[str, bool, dict[str, Any]]:
    """(what was done, whether someone may have meant it, the content with it): one value is another, is missing, or has
    another name. Meant may be what is left out or empty, other names inside of groups, and other values of the same type."""
    changed = copy.deepcopy(content)
    path = rng.choice(list(places(changed)))
    holder: Any = changed
    for key in path[:-1]:
        holder = holder[key]
    key, name = path[-1], ".".join(map(str, path))
    kind = rng.choice(("value", "value", "value", "gone", "name", "number"))
    value = holder[key]
    if kind == "gone":
        del holder[key]
        return f"{name} gone", True, changed
    if kind == "name" and isinstance(holder, dict):
        at = rng.randrange(len(key)) if key else 0
        holder[key[:at] + key[at + 1 :] + rng.choice(("", "x"))] = holder.pop(key)
        return f"{name} renamed", len(path) > 1, changed
    if kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = rng.choice((value + 1, -value, value * 1000, value + 0.25, str(value)))
    else:
        holder[key] = rng.choice(WRONG)
    meant = type(holder[key]) is type(value) or value is None or holder[key] in (None, "", [], {})
    return f"{name} is {holder[key]!r:.40}", meant, changed


def mutated_text(content: dict[str, Any], rng: random.Random) -> tuple[str, bool, str]:
    """(what was done, whether it may be meant, JSON text): as `mutated`, or a fault of the text itself."""
    text = json.dumps(content, indent=1)
    kind = rng.randrange(8)
    if kind == 0:
        at = rng.randrange(len(text))
        return f"cut at {at}", False, text[:at]
    if kind == 1:
        at = rng.randrange(len(text))
        return f"byte {at} changed", True, text[:at] + chr(rng.randrange(32, 127)) + text[at + 1 :]
    if kind == 2:
        key = rng.choice(list(content))
        return f"{key} twice", False, "{" + f"{json.dumps(key)}: 1, " + text[1:]
    what, meant, changed = mutated(content, rng)
    return what, meant, json.dumps(changed, indent=1)
