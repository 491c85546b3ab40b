"""Paths of files whose content was not fetched: links to nothing and pointers of Git LFS, with what to do about them."""

from __future__ import annotations

import os
from pathlib import Path

from sampeft.errors import DataError

_LFS = b"version https://git-lfs.github.com/spec/"


def is_dangling(path: Path) -> bool:
    """Whether it is a link to what is not there, as git-annex, DataLad and DVC leave for files that were not fetched."""
    return path.is_symlink() and not path.exists()


def check_fetched(path: Path, content: bytes | None = None) -> None:
    """Raises DataError for a link to nothing, or content that only says where the content is."""
    if is_dangling(path):
        raise DataError(
            f"{path}: is a link to {os.readlink(path)}, which is not there; fetch the content (git annex get, datalad get, "
            "dvc pull), or mount the disk that it lies on"
        )
    if content is not None and content.startswith(_LFS):
        raise DataError(f"{path}: is a Git LFS pointer whose content was not fetched; run git lfs pull")
