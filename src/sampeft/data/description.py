"""The file dataset.json of a data set in, its values out, each checked for its form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampeft.data.pairing import inside
from sampeft.errors import FormError
from sampeft.labels import LabelSet, whole_number
from sampeft.strict_json import read_object


@dataclass(frozen=True)
class Description:
    """The JSON object of a file; `path` is for messages. Every method raises FormError that names file and key."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Description:
        """Raises FormError unless the file holds one JSON object."""
        return cls(path, read_object(path))

    def text(self, key: str, default: str = "") -> str:
        value = self.content.get(key)
        if value is not None and not isinstance(value, str):
            raise FormError(f"{self.path}: {key} is {value!r}; expected a text")
        return value if value is not None else default

    def names(self, key: str, value: Any) -> tuple[str, ...]:
        """A list of texts; `key` tells where it stands."""
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
            raise FormError(f"{self.path}: {key} is {value!r}; expected a list of names")
        return tuple(value)

    def values(self, key: str) -> dict[int, int]:
        """A map of values to ids; empty where there is none."""
        content = self.content.get(key) or {}
        try:
            return {int(value): whole_number(id) for value, id in content.items()}
        except (AttributeError, TypeError, ValueError):
            raise FormError(
                f'{self.path}: {key} is {content!r}; expected a map of values to ids, {{"255": 1}}'
            ) from None

    def splits(self, root: Path) -> dict[str, Path | tuple[str, ...]]:
        """Split name -> its list file below the root, or its names; empty where none is described."""
        given = self.content.get("splits") or {}
        if not isinstance(given, dict):
            raise FormError(f'{self.path}: splits is {given!r}; expected {{"train": "train.txt", "test": "test.txt"}}')
        return {
            split: inside(root, value, f"{self.path}: split '{split}'")
            if isinstance(value, str)
            else self.names(f"split '{split}'", value)
            for split, value in given.items()
        }

    def colors(self, labels: LabelSet) -> dict[tuple[int, int, int], int] | None:
        """Colour -> id of `colors`, {"forest": [0, 255, 255], "ignore": [0, 0, 0]}; None where there are none."""
        given = self.content.get("colors")
        if not given:
            return None
        if not isinstance(given, dict):
            raise FormError(f'{self.path}: colors is {given!r}; expected {{"forest": [0, 255, 255]}}')
        ids: dict[str, int | None] = {"ignore": labels.ignore, **dict(zip(labels.names, labels.ids, strict=True))}
        table: dict[tuple[int, int, int], int] = {}
        for name, color in given.items():
            id = ids.get(name)
            if id is None:
                why = "there is no id for it under the key 'ignore'" if name == "ignore" else "no class has this name"
                raise FormError(f"{self.path}: colors has '{name}', but {why}; add it or remove the colour")
            if not _is_color(color) or (red_green_blue := (color[0], color[1], color[2])) in table:
                raise FormError(
                    f"{self.path}: colors has {color!r} for '{name}'; expected three numbers of 0..255 that no other "
                    "class has"
                )
            table[red_green_blue] = id
        return table


def _is_color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)
