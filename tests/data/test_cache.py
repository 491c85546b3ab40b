"""Prepared slices: made once, found again, made anew when anything that matters changed."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import time
import tracemalloc
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fabricate import flare22_dataset, folder_dataset, looks_like, write_png
from sampeft.data import open_dataset
from sampeft.data import slice_cache as cache_module
from sampeft.data.case import Case, ImageFile
from sampeft.data.intensity import PRESETS
from sampeft.data.slice_cache import Preparation, Slices, digest_of, fingerprint, prepare
from sampeft.errors import DataError, UsageError
from sampeft.store import CONTENT, cache_limit, seal
from sampeft.volume import IGNORE

GREY = Preparation(PRESETS["8bit"], 48)


def test_second_time_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(folder_dataset(tmp_path / "set"))
    digest = fingerprint(dataset.cases)
    first = prepare(dataset, dataset.cases, GREY, digest, folder=tmp_path / "cache")
    monkeypatch.setattr(cache_module, "read_volume", lambda path: pytest.fail("read again"))
    second = prepare(dataset, dataset.cases, GREY, digest, folder=tmp_path / "cache")
    assert len(first) == 8
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.channels, second.channels)
    assert [int(c) for c in first.case] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_another_side_or_recipe_or_pixel_is_another_cache(tmp_path: Path) -> None:
    root = folder_dataset(tmp_path / "set")
    dataset = open_dataset(root)
    before = fingerprint(dataset.cases)
    prepare(dataset, dataset.cases, GREY, before, folder=tmp_path / "cache")
    prepare(dataset, dataset.cases, Preparation(PRESETS["8bit"], 64), before, folder=tmp_path / "cache")
    assert len(list((tmp_path / "cache/slices").iterdir())) == 2
    changed = np.zeros((24, 32), dtype=np.uint8)
    changed[3, 4] = 1
    write_png(root / "labels/P01_1.png", changed)
    assert fingerprint(open_dataset(root).cases) != before


def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path) -> None:
    dataset = open_dataset(folder_dataset(tmp_path / "set"))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, dataset.cases, GREY, "x", interrupt, folder=tmp_path / "cache")
    assert not list((tmp_path / "cache/slices").iterdir())
    assert len(prepare(dataset, dataset.cases, GREY, "x", folder=tmp_path / "cache")) == 8


def test_a_volume_gives_its_slices_upright_and_padded_with_ignore(tmp_path: Path) -> None:
    dataset = open_dataset(flare22_dataset(tmp_path / "set"))
    slices = prepare(dataset, dataset.cases[:1], Preparation(PRESETS["ct-abdomen"], 56), "x", folder=tmp_path / "cache")
    assert slices.images.shape == (4, 1, 56, 56)  # grey is kept as one channel
    images, truth = slices.batch([0, 3])
    assert images.shape == (2, 3, 56, 56)
    assert set(np.unique(truth)) <= {IGNORE, *range(14)}
    assert (truth == IGNORE).any()  # 40 x 28: the square is padded
    assert slices.presence(14)[0].sum() >= 10


def test_nothing_labelled_is_an_error(tmp_path: Path) -> None:
    dataset = open_dataset(folder_dataset(tmp_path / "set", described={"ignore": 255}))
    for file in (tmp_path / "set/labels").iterdir():
        write_png(file, np.full((24, 32), 255, dtype=np.uint8))
    with pytest.raises(DataError, match="none of the 8 training files has a labelled slice"):
        prepare(dataset, dataset.cases, GREY, "x", folder=tmp_path / "cache")


# --- what is stored


def test_equal_files_in_other_cases_are_another_set(tmp_path: Path) -> None:
    dataset = open_dataset(folder_dataset(tmp_path / "set"))
    alone = tuple(Case(file.id, (file,)) for case in dataset.cases for file in case.files)
    grouped = prepare(dataset, dataset.cases, GREY, "x", folder=tmp_path / "cache")
    single = prepare(dataset, alone, GREY, "x", folder=tmp_path / "cache")
    assert grouped.case.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert single.case.tolist() == list(range(8))


@pytest.mark.parametrize("coloured", [["P01_1"], ["P02_2"], ["P04_2"], []])
def test_one_coloured_image_makes_all_rows_three_channels(coloured: list[str], tmp_path: Path) -> None:
    """Whichever comes first, every row holds its own picture; all grey is kept as one channel."""
    root = folder_dataset(tmp_path / "set")
    for name in coloured:
        grey = looks_like(np.zeros((24, 32), np.uint8), 3, 1)
        write_png(root / f"images/{name}.png", np.stack([grey, grey // 2, 255 - grey], axis=2))
    dataset = open_dataset(root)
    slices = prepare(dataset, dataset.cases, GREY, "x", folder=tmp_path / "cache")
    assert slices.images.shape == (8, 3 if coloured else 1, 48, 48)
    files = [file for case in dataset.cases for file in case.files]
    for row, file in enumerate(files):
        alone = prepare(dataset, [Case("one", (file,))], GREY, file.id, folder=tmp_path / "cache")
        assert np.array_equal(slices.batch([row])[0], alone.batch([0])[0])
        assert np.array_equal(slices.channels[row], alone.channels[0])


def test_neighbours_are_stored_as_three_channels(tmp_path: Path) -> None:
    """Slices of a volume that differ: the middle channel is the slice, the others are those below and above."""
    dataset = open_dataset(flare22_dataset(tmp_path / "set"))
    plain = Preparation(PRESETS["ct-abdomen"], 56)
    repeat, near = (
        prepare(dataset, dataset.cases[:1], p, "x", folder=tmp_path / "cache")
        for p in (plain, replace(plain, context="neighbours"))
    )
    assert near.images.shape == (4, 3, 56, 56)
    middle = repeat.images[:, 0]
    assert np.array_equal(near.images[:, 1], middle)
    assert np.array_equal(near.images[1:, 0], middle[:-1])
    assert np.array_equal(near.images[:-1, 2], middle[1:])
    assert np.array_equal(near.images[[0, -1], [0, 2]], middle[[0, -1]])


def test_memory_does_not_grow_with_the_number_of_slices(tmp_path: Path) -> None:
    """60 volumes of 4 slices of 256 x 256 (31 + 63 MB) take less than 12 MB of memory to prepare."""
    dataset = open_dataset(flare22_dataset(tmp_path / "set", cases=2))
    cases = dataset.cases[:1] * 60
    preparation = Preparation(PRESETS["ct-abdomen"], 256)
    prepare(dataset, dataset.cases, preparation, "warm", folder=tmp_path / "cache")
    tracemalloc.start()
    slices = prepare(dataset, cases, preparation, "x", folder=tmp_path / "cache")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert slices.images.nbytes == 240 * 256 * 256
    assert peak < 12e6


# --- sources that change


def test_a_file_is_hashed_once_while_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_dataset(tmp_path)
    cases = open_dataset(root).cases
    hashed: list[Path] = []
    real = cache_module.sha256
    monkeypatch.setattr(cache_module, "sha256", lambda path: hashed.append(path) or real(path))
    first = fingerprint(cases)
    assert len(hashed) == 16
    assert fingerprint(cases) == first
    fingerprint(cases[:2])
    assert len(hashed) == 16
    path = root / "images/P01_1.png"
    write_png(path, np.zeros((24, 32), np.uint8))
    assert fingerprint(cases) != first
    assert hashed[16:] == [path]


def test_a_changed_file_of_the_same_size_is_seen_by_its_time(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    cases = [Case("a", (ImageFile("a", path),))]
    first = fingerprint(cases)
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 12345))
    assert fingerprint(cases) != first


def test_a_series_is_all_files_of_its_folder_and_a_header_brings_its_pixels(tmp_path: Path) -> None:
    series, header = tmp_path / "series", tmp_path / "scan.mhd"
    series.mkdir()
    for n in range(3):
        (series / f"{n}.dcm").write_bytes(bytes([n]))
    header.write_text("ElementDataFile = scan.raw")
    (tmp_path / "scan.raw").write_bytes(b"123")
    cases = [Case("a", (ImageFile("a", series),)), Case("b", (ImageFile("b", header),))]
    seen = {fingerprint(cases)}
    (series / "1.dcm").write_bytes(b"changed")
    seen.add(fingerprint(cases))
    (series / "3.dcm").write_bytes(b"new")
    seen.add(fingerprint(cases))
    (tmp_path / "scan.raw").write_bytes(b"1234")
    seen.add(fingerprint(cases))
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("header", "content"),
    [
        ("a.mhd", "ObjectType = Image\nNDims = 3\nElementDataFile = pixels/one.bin"),
        ("a.mha", "ObjectType = Image\nElementDataFile = pixels/one.bin\n"),
        ("a.nhdr", "NRRD0004\ntype: uchar\ndata file: pixels/one.bin\n\n"),
        ("A.NRRD", "NRRD0004\r\ntype: uchar\r\ndatafile: pixels/one.bin\r\n\r\n"),
    ],
)
def test_a_header_brings_the_pixels_that_it_names_whatever_their_name(
    header: str, content: str, tmp_path: Path
) -> None:
    (tmp_path / header).write_bytes(content.encode())
    (tmp_path / "pixels").mkdir()
    seen = set()
    for pixels in (b"123", b"1234"):
        (tmp_path / "pixels" / "one.bin").write_bytes(pixels)
        seen.add(digest_of(tmp_path / header))
    (tmp_path / "a.txt").write_text("no pixels")
    seen.add(digest_of(tmp_path / header))
    assert len(seen) == 2


def overwritten(file: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / file, change(np.load(folder / file)))


def out_of_range(file: str, value: int) -> Callable[[Path], None]:
    """With a record that fits: by a fault of the writer."""

    def write(folder: Path) -> None:
        numbers = np.load(folder / file)
        numbers.flat[0] = value
        np.save(folder / file, numbers)
        seal(folder, ("images.npy", "channels.npy", "case.npy"))

    return write


def one_bit(folder: Path) -> None:
    content = bytearray((folder / "images.npy").read_bytes())
    content[-1000] ^= 1
    (folder / "images.npy").write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "inverted pixels": (overwritten("images.npy", lambda a: 255 - a), "images.npy is not as it was written"),
    "one bit": (one_bit, "images.npy is not as it was written"),
    "zeroed labels": (overwritten("channels.npy", lambda a: 0 * a), "channels.npy is not as it was written"),
    "reordered labels": (overwritten("channels.npy", lambda a: a[::-1]), "channels.npy is not as it was written"),
    "reordered cases": (overwritten("case.npy", lambda a: a[::-1].copy()), "case.npy is not as it was written"),
    "missing slices": (overwritten("images.npy", lambda a: a[:-1]), "images.npy is not as it was written"),
    "another type": (
        overwritten("channels.npy", lambda a: a.astype(np.int32)),
        "channels.npy is not as it was written",
    ),
    "truncated": (lambda f: os.truncate(f / "channels.npy", 1000), "channels.npy is not as it was written"),
    "gone": (lambda f: (f / "case.npy").unlink(), "case.npy is missing"),
    "no record": (lambda f: (f / CONTENT).write_text("{"), "content.json cannot be read"),
    "class 3 of 3": (out_of_range("channels.npy", 3), "channels.npy holds -100 to 3, not -100 to 2"),
    "case 4 of 4": (out_of_range("case.npy", 4), "case.npy holds 0 to 4, not 0 to 3"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_set_is_made_anew_and_told_in_a_line(tmp_path: Path, damage: str) -> None:
    dataset = open_dataset(folder_dataset(tmp_path / "set"))
    whole = prepare(dataset, dataset.cases, GREY, "x", folder=tmp_path / "cache")
    parts = [np.array(part) for part in (whole.images, whole.channels, whole.case)]
    assert whole.folder is not None
    folder = whole.folder
    del whole
    change, reason = DAMAGES[damage]
    change(folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        again = prepare(dataset, dataset.cases, GREY, "x", folder=tmp_path / "cache")
    assert [str(w.message) for w in told if w.category is UserWarning] == [
        f"{folder}: is damaged ({reason}) and is made anew"
    ]
    assert all(np.array_equal(a, b) for a, b in zip((again.images, again.channels, again.case), parts, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        prepare(dataset, dataset.cases, GREY, "x", folder=tmp_path / "cache")
    assert kept(tmp_path) == {folder.name}


# --- room


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Slices]:
    """Makes a set of 8 slices: 18 kB of images, 36 kB of channels."""
    dataset = open_dataset(folder_dataset(tmp_path / "set"))
    return lambda digest: prepare(dataset, dataset.cases, GREY, digest, folder=tmp_path / "cache")


def kept(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache/slices").iterdir()}


def limit(monkeypatch: pytest.MonkeyPatch, kilobytes: float) -> None:
    monkeypatch.setenv("SAMPEFT_CACHE_GIB", str(kilobytes * 1000 / 2**30))


def name_of(slices: Slices) -> str:
    assert slices.folder is not None
    return slices.folder.name


def test_the_set_that_was_not_used_for_longest_goes_first(
    made: Callable[[str], Slices], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for two sets of 56 kB: with a, b, then a again, making c removes b."""
    limit(monkeypatch, 130)
    names = {}
    for age, digest in ((300, "a"), (200, "b"), (100, "a")):
        names[digest] = name_of(made(digest))
        gc.collect()
        os.utime(tmp_path / "cache/slices" / names[digest], (time.time() - age,) * 2)
    names["c"] = name_of(made("c"))
    assert kept(tmp_path) == {names["a"], names["c"]}


def test_a_set_in_use_is_never_removed(
    made: Callable[[str], Slices], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fcntl")
    limit(monkeypatch, 0)
    held = made("a")
    pixels = np.array(held.images)
    assert kept(tmp_path) == {name_of(held)}
    other = made("b")
    assert kept(tmp_path) == {name_of(held), name_of(other)}
    assert np.array_equal(held.images, pixels)
    gone = name_of(held)
    del held
    gc.collect()
    made("c")
    assert gone not in kept(tmp_path)


def test_what_an_interrupted_process_left_is_removed(
    made: Callable[[str], Slices], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a set whose process is gone, and a set of an older version that knew no locks."""
    folder = tmp_path / "cache/slices"
    (folder / ".making-dead").mkdir(parents=True)
    (folder / ".making-dead/lock").touch()
    (folder / ".making-new").mkdir()
    (folder / "old").mkdir()
    (folder / "old/images.npy").write_bytes(bytes(1000))
    os.utime(folder / "old", (0, 0))
    first = made("a")
    assert kept(tmp_path) == {".making-new", "old", name_of(first)}
    limit(monkeypatch, 1)
    second = made("b")
    assert kept(tmp_path) == {".making-new", name_of(first), name_of(second)}


def test_the_limit_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAMPEFT_CACHE_GIB", raising=False)
    assert cache_limit() == 20 * 2**30
    monkeypatch.setenv("SAMPEFT_CACHE_GIB", "0.5")
    assert cache_limit() == 2**29
    for wrong in ("much", "-1", "nan"):
        monkeypatch.setenv("SAMPEFT_CACHE_GIB", wrong)
        with pytest.raises(UsageError, match=f"SAMPEFT_CACHE_GIB is '{wrong}'"):
            cache_limit()


# --- several processes


def in_another_process(root: Path, cache: Path) -> tuple[str, int, float]:
    dataset = open_dataset(root)
    slices = prepare(dataset, dataset.cases, GREY, "x", folder=cache)
    return name_of(slices), len(slices), float(slices.images.mean())


def total_of(slices: Slices) -> tuple[int, type]:
    return int(slices.images.sum()), type(slices.images)


def test_processes_that_start_at_once_share_one_set(tmp_path: Path) -> None:
    """D42: under spawn; and a set that is handed to a worker is mapped there, not copied."""
    root = folder_dataset(tmp_path / "set")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = [pool.submit(in_another_process, root, tmp_path / "cache") for _ in range(3)]
        assert len({job.result() for job in found}) == 1
        dataset = open_dataset(root)
        slices = prepare(dataset, dataset.cases, GREY, "x", folder=tmp_path / "cache")
        assert len(pickle.dumps(slices)) < 1000
        assert pool.submit(total_of, slices).result() == (int(slices.images.sum()), np.memmap)
    assert kept(tmp_path) == {name_of(slices)}


def test_slices_in_memory_are_carried(tmp_path: Path) -> None:
    slices = Slices(np.ones((2, 1, 4, 4), np.uint8), np.zeros((2, 4, 4), np.int16), np.array([0, 1], np.int32))
    assert np.array_equal(pickle.loads(pickle.dumps(slices)).images, slices.images)


def test_no_data_is_ignored_in_the_truth_of_a_set(tmp_path: Path) -> None:
    """D17: a GeoTIFF tile whose left half was not measured."""
    rasterio = pytest.importorskip("rasterio")
    root = folder_dataset(tmp_path / "set", cases=1, files_per_case=1, test_cases=0)
    dataset = open_dataset(root)
    bands = np.random.default_rng(0).uniform(1, 9, (5, 48, 48)).astype(np.float32)
    bands[:, :, :24] = -9999
    tile = root / "images/P01_1.tif"
    described = {"driver": "GTiff", "width": 48, "height": 48, "count": 5, "dtype": "float32", "nodata": -9999}
    with rasterio.open(tile, "w", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4e6), **described) as file:
        file.write(bands)
    label = write_png(root / "labels/P01_1.png", np.ones((48, 48), np.uint8))
    dataset = replace(dataset, cases=(Case("P01", (ImageFile("P01_1", tile, label),)),))
    recipe = replace(PRESETS["minmax"], bands=(5, 3, 1))
    slices = prepare(dataset, dataset.cases, Preparation(recipe, 48), "x", folder=tmp_path / "cache")
    assert (slices.channels[0][:, :24] == IGNORE).all()
    assert (slices.channels[0][:, 24:] == 1).all()
    assert not slices.images[0][:, :, :24].any()
    for stored, band in zip(slices.images[0], bands[[4, 2, 0], :, 24:], strict=True):
        wanted = 255 * (band - band.min()) / (band.max() - band.min())
        assert np.abs(stored[:, 24:] - wanted).max() <= 0.51
