"""Where the cache is when its folder cannot be written (N08)."""

from __future__ import annotations

import errno
import tempfile
import warnings
from pathlib import Path

import pytest

from sampeft import store
from sampeft.cli import main
from sampeft.errors import UsageError
from sampeft.store import writable_cache


@pytest.fixture
def unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache below a file, where no folder can be made, and temporary folders of this test's own."""
    (tmp_path / "file").touch()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("SAMPEFT_CACHE", str(tmp_path / "file/cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    store._temporary.cache_clear()
    return tmp_path / "file/cache"


def test_a_temporary_folder_takes_its_place_and_is_told_once(unwritable: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        folders = {writable_cache("slices") for _ in range(3)}
    (folder,) = folders
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path / "tmp")
    assert folder.parent.stat().st_mode & 0o077 == 0  # others cannot put anything there
    (said,) = [str(w.message) for w in told if w.category is UserWarning]
    assert said.startswith(f"{unwritable}: the cache cannot be written (Not a directory)")
    assert "set SAMPEFT_CACHE to a folder" in said


def test_without_a_temporary_folder_it_is_a_mistake_that_names_the_variable(
    unwritable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_temporary", lambda: unwritable.parent / "other")
    with pytest.raises(UsageError, match=r"cannot be written .*; set SAMPEFT_CACHE to a folder that can"):
        writable_cache("engines")


def test_a_user_without_a_home_has_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("SAMPEFT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", home)
    monkeypatch.setattr(store, "_temporary", lambda: tmp_path)
    assert writable_cache("slices") == tmp_path / "slices"


def test_a_full_disk_names_the_folder_and_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAMPEFT_CACHE", str(tmp_path / "cache"))

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def run(*_: object) -> int:
        store.make_entry(tmp_path / "cache/slices/entry", full, lambda folder: None)
        return 0

    monkeypatch.setattr("sampeft.cli.run", run)
    assert main(["check", "data"]) == 1
    assert capsys.readouterr().err.strip() == (
        f"sampeft check: error: {tmp_path / 'cache/slices'}: No space left on device; free some space or set SAMPEFT_CACHE to "
        "another folder"
    )
    assert not list((tmp_path / "cache/slices").iterdir())


def test_fetch_names_the_variable(
    unwritable: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SAMPEFT_WEIGHTS", raising=False)
    assert main(["fetch", "lite-medsam"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("set SAMPEFT_CACHE to a folder that can be written")
