"""What `sampeft params` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sampeft.options import MAX_SIDE, check_ranges, number


@dataclass(frozen=True)
class Config:
    """What to count.

    Args:
        backbone: promptable model; `sampeft info` lists them.
        method: one method, several joined by commas, or 'all'; `sampeft info` lists them.
        options: options of the method, such as --options.rank 8; of several methods, each takes those that it has.
        classes: number of foreground classes; the background is added.
        side: side of the square network input in pixels, on which the size of SAM's position table depends.
            Default: that of the weights.
        head: decoder head: pixel, mask or probe.
        head_options: options of the head, such as --head_options.presence false.
        json: print one JSON object instead of a table.
    """

    backbone: str = "lite-medsam"
    method: str = "lora"
    options: dict[str, Any] = field(default_factory=dict)
    classes: int = number(13, 1, 65_534)
    side: int | None = number(None, 1, MAX_SIDE)
    head: str = "pixel"
    head_options: dict[str, Any] = field(default_factory=dict)
    json: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "--")
