"""Costs of a slice, a step and a phase of a training, in bytes and seconds, now and after a change of settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise


@dataclass(frozen=True)
class Line:
    """A cost that is the same for every step and one that comes with each slice."""

    fixed: float
    slope: float

    @classmethod
    def through(cls, costs: Mapping[int, float]) -> Line:
        """By what one slice costs, and perhaps so many: number -> cost; none: nothing. Noise neither makes a slice cost less
        than nothing nor a later one more than the first."""
        if not costs:
            return cls(0.0, 0.0)
        count, many = max(costs.items())
        if count == 1:
            return cls(0.0, many)
        slope = min(max((many - costs[1]) / (count - 1), 0.0), many / count)
        return cls(many - count * slope, slope)

    def at(self, slices: float) -> float:
        return self.fixed + self.slope * slices

    def scaled(self, factor: float) -> Line:
        return Line(self.fixed, self.slope * factor)


@dataclass(frozen=True)
class Costs:
    """Bytes and seconds of single things on one device.

    saved: bytes that the backward pass needs of a step; head_saved: of a step on encoded slices. resident_growth: bytes by
    which a step lets the process (or the GPU's use) grow, in which saved tensors, gradients and what the allocator keeps
    beside them are. inference_bytes: the same of one slice without a backward pass. saved_before_block: of one slice, for
    every block of the encoder, and at its end; block_input_bytes: what enters it; block_view_bytes: that as a cached view.
    recomputes: whether blocks are computed again for the backward pass. saved_in_bf16: of one slice; None where it was not
    tried. banked_bytes, view_bytes: of an encoded slice, of a view's frozen start; banked_already, viewed_already: how many
    of them earlier trainings left on disk. resident, peak_before: bytes of the
    process before anything ran, now and at the most. room, gpu_room: bytes that it may fill. is_timed: whether real steps
    were run; else one slice alone needs more than there is, and the bytes are those that it needs at least.
    """

    total: int
    trained: int
    weights_bytes: int
    trained_bytes: int
    trains_head: bool
    saved: Line
    head_saved: Line
    saved_before_block: tuple[int, ...]
    block_input_bytes: tuple[int, ...]
    block_view_bytes: tuple[int, ...]
    recomputes: bool
    saved_in_bf16: int | None
    resident_growth: Line
    inference_bytes: int
    banked_bytes: int
    view_bytes: int
    banked_already: int
    viewed_already: int
    encoding_seconds: float
    head_seconds: Line
    step_seconds: Line
    view_seconds: float
    update_seconds: float
    inference_seconds: float
    resident: int
    peak_before: int
    room: int
    gpu_room: int
    device: str
    is_timed: bool

    def changed(
        self, last: int | None = None, area: float | None = None, bf16: bool = False, recompute: bool = False
    ) -> Costs:
        """With only the last blocks trained, a square of that share of the area, half the precision, or blocks that are
        computed again. Of what a step lets the process grow only the tensors go that are saved no longer: no promise about
        the rest."""
        found = self
        if last is not None:
            before = self.saved_before_block[-1 - last]
            later = tuple(max(0, saved - before) for saved in self.saved_before_block)
            found = replace(
                found._less(before), saved_before_block=later, view_bytes=self.block_view_bytes[-last], viewed_already=0
            )
        if recompute:
            blocks = [after - before for before, after in pairwise(found.saved_before_block)]
            kept = sum(size for size, saved in zip(found.block_input_bytes, blocks, strict=True) if saved)
            found = replace(found._less(max(0, sum(blocks) - max(blocks) - kept)), recomputes=True)
        if bf16 and self.saved_in_bf16 is not None:
            found = found._less(found.saved.at(1) * (1 - self.saved_in_bf16 / max(1.0, self.saved.at(1))))
        if area is not None:
            found = replace(
                found,
                saved=found.saved.scaled(area),
                head_saved=found.head_saved.scaled(area),
                resident_growth=found.resident_growth.scaled(area),
                inference_bytes=round(found.inference_bytes * area),
                banked_bytes=round(found.banked_bytes * area),
                view_bytes=round(found.view_bytes * area),
                banked_already=0,
                viewed_already=0,
            )
        return found

    def _less(self, bytes_of_a_slice: float) -> Costs:
        def lower(line: Line) -> Line:
            return Line(line.fixed, max(0.0, line.slope - bytes_of_a_slice))

        return replace(self, saved=lower(self.saved), resident_growth=lower(self.resident_growth))
