"""What the network says of each slice in, how sure it is of it out; a reviewer looks at the least sure ones first."""

from __future__ import annotations

from dataclasses import dataclass, field

from sampeft.prediction.reading import Reader
from sampeft.prediction.slice_maps import Channels, Said


@dataclass
class SliceReader(Reader):
    """by_slice: mean probability of the class shown, over the pixels of a slice that are shown as foreground, as
    `Reader.confidence` is of the whole case; None for a slice without any."""

    by_slice: dict[int, float | None] = field(default_factory=dict, init=False)

    def __call__(self, said: Said) -> Channels:
        sure, pixels = self._sure, self._pixels
        channels = super().__call__(said)
        shown = self._pixels - pixels
        self.by_slice[said.slice] = (self._sure - sure) / shown if shown else None
        return channels

    def worst_first(self) -> list[tuple[int, float]]:
        """(slice, confidence) of the slices with foreground, the least sure one first."""
        return sorted(
            ((s, c) for s, c in self.by_slice.items() if c is not None), key=lambda found: (found[1], found[0])
        )
