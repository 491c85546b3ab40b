"""What the network says of each slice in, how confident it is of it out; a reviewer looks at the least confident ones first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sampeft.prediction.reading import Reader, Sureness
from sampeft.prediction.slice_maps import Channels, Said


@dataclass
class SliceReader(Reader):
    """by_slice: mean probability of the class shown, over the pixels of a slice that are shown as foreground, as
    `Reader.confidence` is of the whole case; None for a slice without any."""

    by_slice: dict[int, float | None] = field(default_factory=dict, init=False)

    def __call__(self, said: Said) -> Channels:
        before = replace(self.sureness)
        channels = super().__call__(said)
        own = Sureness(self.sureness.total - before.total, self.sureness.pixels - before.pixels)
        self.by_slice[said.slice] = own.mean
        return channels

    def worst_first(self) -> list[tuple[int, float]]:
        """(slice, confidence) of the slices with foreground, the least confident one first."""
        return sorted(
            ((s, c) for s, c in self.by_slice.items() if c is not None), key=lambda found: (found[1], found[0])
        )
