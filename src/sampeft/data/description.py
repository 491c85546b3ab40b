"""Read and validate dataset.json."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sampeft.data.pairing import inside
from sampeft.errors import FormError
from sampeft.labels import LabelSet, whole_number
from sampeft.strict_json import read_object

_EXAMPLES = {
    "mask_values": '{"255": 1}',
    "splits": '{"train": "train.txt", "test": "test.txt"}',
    "colors": '{"forest": [0, 255, 255]}',
}
_USUAL = ("train", "val", "test")


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

    def folder(self, root: Path, key: str, usual: str) -> Path:
        """The folder below the root that is named, which has to be there, or the usual one."""
        path = inside(root, self.text(key, usual), f"{self.path}: {key}")
        if self.content.get(key) is not None and not path.is_dir():
            raise FormError(f"{self.path}: {key} is '{self.content[key]}', and there is no such folder; correct it")
        return path

    def object_of(self, key: str) -> dict[str, Any]:
        """Names and values; empty where there are none."""
        value = self.content.get(key)
        if value is not None and not isinstance(value, dict):
            raise FormError(f"{self.path}: {key} is {value!r}; expected names and values, {_EXAMPLES[key]}")
        return value or {}

    def warn_of_misspelt(self, known: Sequence[str]) -> None:
        """Warn of keys and splits that are not known, and therefore not used, but nearly are."""
        for keys, names, what in ((self.content, known, "key"), (self.object_of("splits"), _USUAL, "split")):
            for key in keys:
                close = get_close_matches(key, names, n=1, cutoff=0.75)
                if close and key not in names:
                    warnings.warn(f"{self.path}: has the {what} '{key}'; did you mean '{close[0]}'?", stacklevel=2)

    def names(self, key: str, value: Any) -> tuple[str, ...]:
        """A list of texts; `key` tells where it stands."""
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
            raise FormError(f"{self.path}: {key} is {value!r}; expected a list of names")
        return tuple(value)

    def values(self, key: str) -> dict[int, int]:
        """A map of values to ids; empty where there is none."""
        content = self.object_of(key)
        try:
            return {int(value): whole_number(id) for value, id in content.items()}
        except (TypeError, ValueError):
            raise FormError(
                f'{self.path}: {key} is {content!r}; expected a map of values to ids, {{"255": 1}}'
            ) from None

    def splits(self, root: Path) -> dict[str, Path | tuple[str, ...]]:
        """Split name -> its list file below the root, or its names; empty where none is described."""
        given = self.object_of("splits")
        return {
            split: inside(root, value, f"{self.path}: split '{split}'")
            if isinstance(value, str)
            else self.names(f"split '{split}'", value)
            for split, value in given.items()
        }

    def colors(self, labels: LabelSet) -> dict[tuple[int, int, int], int] | None:
        """Colour -> id of `colors`, {"forest": [0, 255, 255], "ignore": [0, 0, 0]}; None where there are none."""
        given = self.object_of("colors")
        if not given:
            return None
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
