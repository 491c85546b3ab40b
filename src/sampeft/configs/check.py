"""What `sampeft check` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.options import MAX_SIDE, READ, RESULTS, check_ranges, number

POSITIONAL = {"data": {"type": Path, "help": "folder of the data set"}}


@dataclass(frozen=True)
class Config:
    """What to check.

    Args:
        out: folder for check.json, and for contact.png with up to 24 cases and their labels. Default: neither is
            written.
        side: side of the square network input in pixels, to find structures that vanish at that size. Default: not
            looked for.
        layout: layout of the data set; `sampeft info` lists layouts. Default: recognised by its files.
        map: label ids to change on reading, as OLD:NEW, such as --map=4:3,255:1.
        intensity: how pixel values are normalised to 0..1; `sampeft info` lists recipes; auto: chosen by the first
            image.
        bands: bands of a multi-band image to use, counted from 1, such as 4,3,2. Default: the first three, or the
            first of two.
        series: which of several DICOM series, echoes or stacks to read: the series number, or DICOM attributes and their
            values, such as SeriesDescription=T2*,EchoTime=30. Default: there may be only one.
        json: print the findings as one JSON object on stdout.
    """

    data: Path = field(metadata=READ)
    out: Path | None = field(default=None, metadata=RESULTS)
    side: int | None = number(None, 1, MAX_SIDE)
    layout: str | None = None
    map: str | None = None
    intensity: str = "auto"
    bands: str | None = None
    series: str | None = None
    json: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "--")
