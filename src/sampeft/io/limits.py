"""Refuse a header that promises more than the file can hold."""

from __future__ import annotations

from pathlib import Path

from sampeft.errors import DataError

LARGE = 1 << 29
"""Below this many bytes (512 MiB) nothing is refused for being well compressed."""
_MOST_FOLD = 200  # real images, and all but empty label maps, compress less


def check_promise(path: Path, promised: int, stored: int, large: int = LARGE) -> None:
    """Before memory is asked for: refuse more than `large` bytes of pixels out of a file 200 times smaller.

    promised: bytes of the pixels by the header. stored: bytes of the file.
    Raises DataError: the header is damaged, or the file is a trap that fills the memory.
    """
    if promised > large and promised > _MOST_FOLD * stored:
        raise DataError(
            f"{path}: its header promises {promised / 2**20:.0f} MiB of pixels, the file has {stored / 2**20:.2g} MiB: "
            "damaged, or made to fill the memory; copy it again, or save it with a smaller type"
        )
