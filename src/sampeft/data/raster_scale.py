"""At what scale a model saw its training pictures, and the window that shows a picture at the same scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from sampeft.data.preprocessing import Preparation
from sampeft.io.raster_windows import glance, looks_like_picture

ABOUT_WHOLE = 1.25  # times the training pictures: still looked at in one piece
SAME_GROUND = 0.1  # share that pixels may differ and still have one size


@dataclass(frozen=True)
class Scale:
    """At what scale a model sees pictures; None where it is not known.

    pixels: of a picture that filled the network's square in training; most: of the largest one. gsd: metres on the ground
    of a pixel of the square.
    """

    pixels: int | None = None
    gsd: float | None = None
    most: int | None = None

    @classmethod
    def of(cls, images: Sequence[Path], preparation: Preparation) -> Scale:
        """Medians over the larger sides and the ground of training pictures, of which only the headers are read.

        Nothing is known of volumes, or where each picture is cut to the body. Raises DataError for a damaged file.
        """
        pictures = [path for path in images if path.is_file() and looks_like_picture(path)]
        if len(pictures) < len(images) or not pictures or preparation.intensity.crop == "body":
            return cls()
        seen = [glance(path) for path in pictures]
        grounds = [max(size) / preparation.side * float(np.sqrt(np.prod(metres))) for size, metres in seen if metres]
        gsd = median(grounds) if len(grounds) == len(seen) else None
        sides = [max(size) for size, _ in seen]
        return cls(round(median(sides)), gsd, max(sides))

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> Scale:
        """Of the content of an adapter.json; runs of before do not know it."""
        return cls(description.get("pixels"), description.get("gsd"), description.get("most_pixels"))

    def to_json(self) -> dict[str, Any]:
        return {"pixels": self.pixels, "gsd": self.gsd, "most_pixels": self.most}

    @staticmethod
    def is_one(size: tuple[int, int], window: tuple[int, int]) -> bool:
        """Whether a picture (H, W) is one window, to the tenth."""
        return all(abs(pixels / own - 1) <= SAME_GROUND for pixels, own in zip(size, window, strict=True))

    def shows_whole(self, size: tuple[int, int], window: tuple[int, int]) -> bool:
        """Whether a picture (H, W) is about as large as a window, or as what training looked at whole."""
        return max(size) <= max(ABOUT_WHOLE * max(window), self.most or 0)

    def window(self, side: int, metres: tuple[float, float] | None) -> tuple[int, int] | None:
        """(rows, columns) of the window that fills a square of `side` pixels; None when it cannot be known.

        metres: of a pixel of the raster, down and across. By the ground where it is known of both, else by `pixels`.
        Pixels that are longer than wide by over a tenth give a window that is not square, but its ground is.
        """
        if self.gsd is None or metres is None:
            return (self.pixels, self.pixels) if self.pixels else None
        down, across = metres
        if abs(down / across - 1) <= SAME_GROUND:
            down = across = (down * across) ** 0.5
        return max(1, round(side * self.gsd / down)), max(1, round(side * self.gsd / across))
