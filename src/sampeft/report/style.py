"""What all figures share: colours and markers of methods and classes, bare axes, and pictures in files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sampeft.io import write_atomically
from sampeft.labels import LabelSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 130
METHODS = ("#0b4f8a", "#c2410c", "#047857", "#7c3aed", "#525252")  # dark enough for white paper
MARKERS = "osD^v"


def rgb(labels: LabelSet, k: int) -> tuple[float, float, float]:
    """Colour (0..1 each) of a channel."""
    red, green, blue = labels.colors[k]
    return red / 255, green / 255, blue / 255


def encode(figure: Figure, kind: Literal["png", "jpeg"] = "png", dpi: int = DPI) -> bytes:
    """The figure as a picture file, on white."""
    _replace_no_text(figure)
    content = io.BytesIO()
    options: dict[str, Any] = {"pil_kwargs": {"quality": 88, "optimize": True}} if kind == "jpeg" else {}
    figure.savefig(content, format=kind, dpi=dpi, facecolor="white", **options)
    return content.getvalue()


def _replace_no_text(figure: Figure) -> None:
    """Show what of a file's name is no text as a replaced character: fonts have no glyphs for it."""
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter

    def shown(text: str) -> str:
        return text.encode("utf-8", "replace").decode()

    for axes in figure.axes:
        for formatter in (axes.xaxis.get_major_formatter(), axes.yaxis.get_major_formatter()):
            if isinstance(formatter, FixedFormatter):
                formatter.seq = [shown(text) for text in formatter.seq]
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(shown(text.get_text()))


def saved(figure: Figure, path: Path | None) -> Figure:
    """The figure, also written as PNG where a path is given; the folder is made."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encode(figure))
    return figure


def plain(axes: Axes) -> None:
    """Grid below the data, no frame at the top and the right."""
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)


def shown_name(name: str) -> str:
    """A class name as a reader writes it: `inferior vena cava` for `inferior_vena_cava`."""
    return name.replace("_", " ")
