"""What `sampeft check` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.options import MAX_SIDE, READ, check_ranges, number

POSITIONAL = {"data": {"type": Path, "help": "folder of the data set"}}


@dataclass(frozen=True)
class Config:
    """What to check.

    Args:
        out: folder for check.json and contact.png, labels over a picture of up to 24 cases; nothing: neither is made.
        side: pixels of the side of the network's input, to find structures that are lost at that size; nothing: not looked
            for.
        layout: layout of the data set; nothing: recognised by its files.
        map: label ids to change on reading, such as --map=4:3,255:1.
        intensity: recipe that brings pixel values to 0..1; auto: by the first image.
        bands: bands of a multi-band image to look at, counted from 1, such as 3,2,1; nothing: grey or colour as it is.
        series: which of several series, echoes or stacks of DICOM images to read: the number, or attributes and their values,
            such as SeriesDescription=T2*,EchoTime=30; nothing: there may be one only.
        json: print the findings as one JSON object on stdout.
    """

    data: Path = field(metadata=READ)
    out: Path | None = None
    side: int | None = number(None, 1, MAX_SIDE)
    layout: str | None = None
    map: str | None = None
    intensity: str = "auto"
    bands: str | None = None
    series: str | None = None
    json: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "--")
