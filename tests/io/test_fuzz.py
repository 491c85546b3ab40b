"""Any grid, type and label set survives read -> write -> read; any damaged file is one sentence or a right answer."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import struct
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from queue import Empty
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fabricate import CT_AFFINE, write_nifti, write_png
from sampeft.errors import SampeftError
from sampeft.io import label_suffix, read_label_ids, read_volume, write_labels
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE

hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis, of the extra dev")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

CORRUPTED = 500
SECONDS, MIB = 10.0, 1024  # the most for one file, the most for the whole process
quiet = pytest.mark.filterwarnings("ignore::UserWarning")


@st.composite
def label_sets(draw: st.DrawFn) -> LabelSet:
    ids = sorted(draw(st.sets(st.integers(0, 65535), min_size=3, max_size=9)))
    ignore = draw(st.sampled_from([None, ids[-1]]))
    ids = ids[:-1]
    return LabelSet(("background", *(f"c{i}" for i in range(1, len(ids)))), tuple(ids), ignore=ignore)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Any rotation and mirroring, voxels of 0.2 to 8 mm, anywhere within 3 m, perhaps sheared as by a gantry."""
    turn = nib.eulerangles.euler2mat(*(draw(st.floats(-3.1, 3.1)) for _ in range(3)))
    sizes = [draw(st.floats(0.2, 8.0)) * draw(st.sampled_from((1, -1))) for _ in range(3)]
    shear = np.eye(3)
    shear[1, 2] = draw(st.sampled_from((0.0, 0.0, 0.0, 0.2679)))
    return nib.affines.from_matvec(turn @ shear @ np.diag(sizes), [draw(st.floats(-3000, 3000)) for _ in range(3)])


def some_channels(labels: LabelSet, grid: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    channels = rng.integers(0, len(labels), grid).astype(np.int16)
    if labels.ignore is not None:
        channels[rng.random(grid) < 0.2] = IGNORE
    return channels


def ids_of(channels: np.ndarray, labels: LabelSet) -> np.ndarray:
    table = {**dict(enumerate(labels.ids)), IGNORE: labels.ignore}
    return np.array([table[c] for c in channels.ravel().tolist()]).reshape(channels.shape)


@quiet
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    labels=label_sets(),
    affine=affines(),
    grid=st.tuples(*[st.integers(1, 7)] * 3),
    kind=st.sampled_from(["int8", "uint8", "int16", "uint16", "int32", "float32", "float64", ">i2", ">f4"]),
    second=st.booleans(),
    ending=st.sampled_from([".nii", ".nii.gz"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_volumes_keep_values_ids_and_geometry(
    labels: LabelSet,
    affine: np.ndarray,
    grid: tuple[int, int, int],
    kind: str,
    second: bool,
    ending: str,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    values = np.random.default_rng(seed).integers(0 if "u" in kind else -100, 120, grid).astype(kind)
    file = (nib.Nifti2Image if second else nib.Nifti1Image)(values, affine, dtype=values.dtype)
    nib.save(file, folder / f"image{ending}")
    image = read_volume(folder / f"image{ending}")
    np.testing.assert_array_equal(image.array, values)
    np.testing.assert_allclose(image.affine, affine, rtol=1e-6, atol=1e-3)
    channels = some_channels(labels, grid, seed)
    back = read_label_ids(write_labels(folder / f"labels{ending}", channels, labels, image))
    np.testing.assert_array_equal(back.array, ids_of(channels, labels))
    np.testing.assert_array_equal(back.affine, image.affine)
    again = read_label_ids(write_labels(folder / "again.nii.gz", channels, labels, back))
    np.testing.assert_array_equal(again.array, back.array)
    np.testing.assert_array_equal(again.affine, image.affine)


@quiet
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    labels=label_sets(),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    bands=st.sampled_from([0, 1, 2, 3, 4, 5]),
    kind=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    place=st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0.1, 100), st.floats(-3, 3)),
    seed=st.integers(0, 2**32 - 1),
)
def test_rasters_keep_values_ids_and_place(
    labels: LabelSet,
    size: tuple[int, int],
    bands: int,
    kind: str,
    place: tuple[float, float, float, float],
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """bands 0: a grey PNG; otherwise a GeoTIFF with any rotation."""
    folder, rng = tmp_path_factory.mktemp("any"), np.random.default_rng(seed)
    transform: Any = None
    if bands == 0:
        values = rng.integers(0, 256, size).astype(np.uint8 if kind == "uint8" else np.uint16)
        image = read_volume(write_png(folder / "image.png", values))
        np.testing.assert_array_equal(image.array[..., 0], values)
    else:
        rasterio = pytest.importorskip("rasterio")
        x, y, metres, turn = place
        cos, sin = metres * np.cos(turn), metres * np.sin(turn)
        transform = rasterio.Affine(cos, sin, x, sin, -cos, y)
        profile = {"driver": "GTiff", "count": bands, "height": size[0], "width": size[1], "dtype": kind}
        values = rng.integers(0, 120, (bands, *size)).astype(kind)
        with rasterio.open(
            folder / "image.tif", "w", crs="EPSG:3857", transform=transform, alpha="unspecified", **profile
        ) as file:
            file.write(values)
        image = read_volume(folder / "image.tif")
        np.testing.assert_array_equal(np.moveaxis(image.array.reshape(*size, bands), -1, 0), values)
    channels = some_channels(labels, image.grid, seed)
    back = read_label_ids(write_labels(folder / f"labels{label_suffix(image)}", channels, labels, image))
    np.testing.assert_array_equal(back.array, ids_of(channels, labels))
    if transform is not None:
        assert back.header.transform.almost_equals(transform, precision=1e-6)
        assert back.header.crs.to_epsg() == 3857


def sound_files(folder: Path) -> dict[str, bytes]:
    """A small whole file of every format that can be written here."""
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 1000, (6, 7, 5)).astype(np.int16)
    grey = rng.integers(0, 255, (12, 15)).astype(np.uint8)
    colour = rng.integers(0, 255, (12, 15, 3)).astype(np.uint8)
    for name in ("a.nii", "a.nii.gz"):
        write_nifti(folder / name, hu)
    nib.save(nib.Nifti2Image(hu, CT_AFFINE), folder / "two.nii")
    write_png(folder / "grey.png", grey)
    write_png(folder / "palette.png", grey, "P")
    for name in ("colour.png", "colour.jpg", "colour.tif"):
        write_png(folder / name, colour)
    Image.fromarray(grey).save(folder / "packed.tif", compression="tiff_adobe_deflate")
    try:
        import rasterio

        profile = {"driver": "GTiff", "count": 5, "height": 12, "width": 15, "dtype": "float32", "crs": "EPSG:3857"}
        for name, how in (("map.tif", None), ("lzw.tif", "lzw")):
            with rasterio.open(
                folder / name, "w", compress=how, transform=rasterio.Affine(4, 0, 5, 0, -4, 6), **profile
            ) as file:
                file.write(rng.random((5, 12, 15)).astype(np.float32))
    except ImportError:
        pass
    try:
        import SimpleITK as sitk  # noqa: N813

        for name, packed in (("raw.nrrd", False), ("gz.nrrd", True), ("raw.mha", False), ("gz.mha", True)):
            sitk.WriteImage(sitk.GetImageFromArray(hu), str(folder / name), packed)
    except ImportError:
        pass
    with suppress(ImportError):
        (folder / "a.dcm").write_bytes(dicom(hu[:, :, 0]))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def dicom(pixels: np.ndarray, **tags: Any) -> bytes:
    """One CT slice, explicit little endian."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3.4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_ = Dataset()
    content = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3",
        "StudyInstanceUID": "1.2",
        "Modality": "CT",
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "PixelSpacing": [1, 1],
        "SliceThickness": 2,
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "PixelData": pixels.tobytes(),
    }
    for key, value in {**content, **tags}.items():
        setattr(slice_, key, value)
    slice_.file_meta = meta
    buffer = BytesIO()
    slice_.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """The file, cut, with flipped bits, another magic, numbers blown up, a block overwritten or bytes lost."""
    content = bytearray(whole)
    at = int(rng.integers(len(whole)))
    how = int(rng.integers(6))
    if how == 0:
        return bytes(content[: max(at, 1)])
    if how == 1:
        for _ in range(int(rng.integers(1, 17))):
            content[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
    elif how == 2:
        content[: int(rng.integers(1, 9))] = bytes(rng.integers(0, 256, 8).astype(np.uint8))[: int(rng.integers(1, 9))]
    elif how == 3:
        at = int(rng.integers(min(len(whole), 420)))
        content[at : at + int(rng.choice([1, 2, 4, 8]))] = rng.choice(
            [b"\xff" * 4, b"\x7f" * 8, b"\xff\x7f", b"9999999"]
        )
    elif how == 4:
        content[at : at + 32] = bytes(rng.integers(0, 256, 32).astype(np.uint8))
    else:
        del content[at : at + int(rng.integers(1, 64))]
    return bytes(content)


def zeros(mib: int, wbits: int, head: bytes = b"") -> bytes:
    """A deflate stream of some bytes and then zeros, made by repeating one block, so that making it costs nothing."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * mib + packer.flush()


def png(width: int, height: int, data: bytes, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    text = chunk(b"zTXt", b"note\0\0" + extra) if extra else b""
    return b"\x89PNG\r\n\x1a\n" + head + text + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def nifti_header(shape: tuple[int, int, int], offset: float = 352) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_sform(CT_AFFINE, 1)
    content = bytearray(header.binaryblock + bytes(4))
    content[40:48] = struct.pack("<4h", 3, *shape)
    content[108:112] = struct.pack("<f", offset)
    return bytes(content)


def traps(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Files that promise or hold far more than they seem to."""
    small, huge = nifti_header((2, 2, 2)), nifti_header((32000, 32000, 32000))
    yield "huge.nii", huge + bytes(1000)
    yield "huge.nii.gz", gzip.compress(huge + bytes(1000))
    yield "far.nii", nifti_header((2, 2, 2), 3e38) + bytes(1000)
    yield "nan.nii.gz", gzip.compress(nifti_header((2, 2, 2), float("nan")) + bytes(1000))
    yield "negative.nii", nifti_header((-2, -2, 2)) + bytes(1000)
    yield "more_than_it_says.nii.gz", zeros(4096, 31, small)
    yield "as_much_as_it_says.nii.gz", zeros(20000, 31, nifti_header((2700, 2700, 2700)))
    yield "members.nii.gz", gzip.compress(small) + gzip.compress(bytes(1 << 16)) * 20000
    yield "gz_in_gz.nii.gz", gzip.compress(zeros(2048, 31, small))
    yield "wide.png", png(30000, 30000, zeros(900, 15))
    yield "wider.png", png(2**31 - 1, 2**31 - 1, zeros(1, 15))
    yield "text.png", png(4, 4, zlib.compress(bytes(20)), zeros(2000, 15))
    tags = {256: (4, 60000), 257: (4, 60000), 258: (3, 8), 259: (3, 8), 262: (3, 1), 273: (4, 8), 277: (3, 1)}
    for name, more in (("a", {278: (4, 60000), 279: (4, 2**32 - 1)}), ("b", {278: (4, 1), 279: (4, 50)})):
        entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in {**tags, **more}.items())
        yield f"{name}.tif", b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags) + 2) + entries + bytes(4) + zeros(1, 15)
    loop = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 256, 4, 1, 5) + struct.pack("<I", 8)
    yield "loop.tif", loop
    for encoding in ("raw", "gzip"):
        head = (
            f"NRRD0004\ntype: short\ndimension: 3\nsizes: 90000 90000 90000\nencoding: {encoding}\nendian: little\n\n"
        )
        yield f"huge_{encoding}.nrrd", head.encode() + zeros(100, 31)
    head = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 90000 90000 90000\nElementType = MET_SHORT\n"
    for name, how in (
        ("raw", "False"),
        ("packed", "True\nCompressedDataSize = 99999999999999"),
        ("minus", "True\nCompressedDataSize = -5"),
    ):
        yield f"{name}.mha", f"{head}CompressedData = {how}\nElementDataFile = LOCAL\n".encode() + zeros(10, 15)
    try:
        import rasterio

        with rasterio.open(
            folder / "sparse.tif",
            "w",
            driver="GTiff",
            width=60000,
            height=60000,
            count=5,
            dtype="uint8",
            sparse_ok=True,
            tiled=True,
            crs="EPSG:3857",
            compress="deflate",
            blockxsize=4096,
            blockysize=4096,
        ):
            pass
        yield "sparse.tif", (folder / "sparse.tif").read_bytes()
    except ImportError:
        pass
    try:
        yield "huge.dcm", dicom(np.zeros((2, 2), np.int16), Rows=65535, Columns=65535)
        yield "film.dcm", dicom(np.zeros((2, 2), np.int16), Rows=65535, Columns=65535, NumberOfFrames=2000)
        yield "long_film.dcm", dicom(np.zeros((2, 2), np.int16), NumberOfFrames=100_000)
    except ImportError:
        pass


def read_all(folder: Path, names: list[str], results: Any) -> None:
    """In a process of its own: reads every file as an image and as labels; says how long it took and what came."""
    warnings.simplefilter("ignore")
    for name in names:
        path = folder / name
        for read in (read_volume, read_label_ids):
            start, said = time.perf_counter(), ""
            try:
                read(path)
            except SampeftError as error:
                said = str(error)
                if "\n" in said or not said.startswith(str(folder)):
                    said = f"BAD MESSAGE {said!r}"
            except BaseException as error:
                said = f"BAD EXCEPTION {type(error).__name__}: {error}"
            results.put((name, read.__name__, time.perf_counter() - start, said))
    peak = 0
    if os.path.exists("/proc/self/status"):
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)
    results.put(("", "", 0.0, str(peak)))


def outcome(folder: Path, names: list[str]) -> tuple[list[tuple[str, str, float, str]], int]:
    """(file, reader, seconds, message or "") of all reads, and the peak memory in MiB; a crash fails the test."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    child = context.Process(target=read_all, args=(folder, names, results))
    child.start()
    rows = []
    while True:
        try:
            row = results.get(timeout=SECONDS + 50)
        except Empty:
            last = rows[-1][:2] if rows else "the start"
            child.kill()
            pytest.fail(f"the reader crashed (exit code {child.exitcode}) or hung after {last}")
        if not row[0]:
            child.join()
            return rows, int(row[3])
        rows.append(row)


def assert_good(rows: list[tuple[str, str, float, str]], peak_mib: int) -> None:
    assert not [row for row in rows if row[3].startswith("BAD")]
    assert max(row[2] for row in rows) < SECONDS
    assert peak_mib < MIB


def test_damaged_files_of_every_format_are_one_sentence_or_right(tmp_path: Path) -> None:
    """500 of them, always the same; no other exception, no crash, nothing over 10 s or 1 GiB."""
    (tmp_path / "sound").mkdir()
    sound = sound_files(tmp_path / "sound")
    rng = np.random.default_rng(12)
    names = []
    for number in range(CORRUPTED):
        name = list(sound)[number % len(sound)]
        names.append(f"{number:03d}_{name}")
        (tmp_path / names[-1]).write_bytes(damaged(sound[name], rng))
    rows, peak_mib = outcome(tmp_path, names)
    assert len(rows) == 2 * CORRUPTED
    assert_good(rows, peak_mib)
    assert sum(bool(row[3]) for row in rows) > CORRUPTED  # most are refused, not guessed


def test_traps_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    names = []
    for name, content in traps(tmp_path / "made"):
        (tmp_path / name).write_bytes(content)
        names.append(name)
    rows, peak_mib = outcome(tmp_path, names)
    assert_good(rows, peak_mib)
    assert [row[:2] for row in rows if not row[3] and row[0] != "text.png"] == []
