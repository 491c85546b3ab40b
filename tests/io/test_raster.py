"""Raster files: indices and values are never confused with colours; what comes in has the same size going out."""

from __future__ import annotations

import io as bytes_io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabricate import write_png
from sampeft.errors import DataError
from sampeft.io import label_suffix, raster, read_label_ids, read_volume, write_labels
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE

INDICES = np.array([[0, 1], [2, 3]], dtype=np.uint8)
ROAD = LabelSet(("background", "road"), (0, 1))
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def grey_png(path: Path, values: np.ndarray, bits: int) -> Path:
    """A grey PNG of 1, 2, 4 or 8 bits, packed by hand."""
    rows = b""
    for row in values:
        text = "".join(f"{v:0{bits}b}" for v in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def test_palette_index_is_the_id(tmp_path: Path) -> None:
    """D06: convert('L') would give 0, 38, 75, 113."""
    path = write_png(tmp_path / "voc.png", INDICES, "P", VOC)
    assert np.asarray(Image.open(path).convert("L")).ravel().tolist() == [0, 38, 75, 113]
    ids = read_label_ids(path)
    assert ids.array.shape == (2, 2, 1)
    assert ids.array.ravel().tolist() == [0, 1, 2, 3]


def test_palette_image_is_its_colours(tmp_path: Path) -> None:
    image = read_volume(write_png(tmp_path / "voc.png", INDICES, "P", VOC))
    assert image.array.shape == (2, 2, 1, 3)
    assert image.array.reshape(4, 3).ravel().tolist() == VOC


def test_written_map_keeps_palette_indices_and_ignore(tmp_path: Path) -> None:
    """D06: colours by id; id 5 is channel 1. Pillow as an independent reader."""
    labels = LabelSet(("background", "road"), (0, 5), ignore=255, colors=((0, 0, 0), (200, 30, 9)))
    image = read_volume(write_png(tmp_path / "tile.png", np.zeros((2, 3, 3), np.uint8)))
    channels = np.array([[[0], [1], [IGNORE]], [[1], [1], [0]]])
    path = write_labels(tmp_path / f"map{label_suffix(image)}", channels, labels, image)
    assert path.suffix == ".png"
    picture = Image.open(path)
    assert (picture.mode, picture.size) == ("P", (3, 2))
    assert np.asarray(picture).tolist() == [[0, 5, 255], [5, 5, 0]]
    assert np.asarray(picture.convert("RGB"))[0].tolist() == [[0, 0, 0], [200, 30, 9], [255, 255, 255]]
    assert read_label_ids(path).array[..., 0].tolist() == [[0, 5, 255], [5, 5, 0]]


def test_ids_above_255_are_written_with_16_bits(tmp_path: Path) -> None:
    labels = LabelSet(("background", "road"), (0, 1000))
    image = read_volume(write_png(tmp_path / "a.png", np.zeros((2, 2), np.uint8)))
    path = write_labels(tmp_path / "b.png", np.array([[[0], [1]], [[1], [0]]]), labels, image)
    assert read_label_ids(path).array.ravel().tolist() == [0, 1000, 1000, 0]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_ids_of_few_bits_are_not_stretched(bits: int, tmp_path: Path) -> None:
    """A 4-bit grey PNG with ids 0..15 is opened by Pillow as 0, 17, 34, ...; the id is what the file stores."""
    values = np.arange(2**bits).reshape(2, -1)
    ids = read_label_ids(grey_png(tmp_path / "m.png", values, bits)).array
    np.testing.assert_array_equal(ids[..., 0], values)


def test_equal_colour_channels_are_grey_and_colours_are_refused(tmp_path: Path) -> None:
    """Colours are no ids without a table: refused with their number."""
    grey = np.stack([INDICES] * 3, axis=-1)
    assert read_label_ids(write_png(tmp_path / "g.png", grey)).array.ravel().tolist() == [0, 1, 2, 3]
    rgba = np.concatenate([grey, np.full((2, 2, 1), 9, np.uint8)], axis=-1)
    assert read_label_ids(write_png(tmp_path / "a.png", rgba)).array.ravel().tolist() == [0, 1, 2, 3]
    grey[0, 0] = (255, 0, 0)
    with pytest.raises(DataError, match=r"c\.png: holds 4 colours instead of ids; save it as grey"):
        read_label_ids(write_png(tmp_path / "c.png", grey))


@pytest.mark.filterwarnings("ignore:transparency")
def test_modes_of_images(tmp_path: Path) -> None:
    """Grey stays one channel, alpha goes, 16 bits stay; a 1-bit image is 0 and 255, its label 0 and 1."""
    deep = np.array([[0, 256], [40000, 65535]], dtype=np.uint16)
    for name in ("deep.png", "deep.tif"):
        volume = read_volume(write_png(tmp_path / name, deep))
        np.testing.assert_array_equal(volume.array[..., 0], deep)
        np.testing.assert_array_equal(read_label_ids(tmp_path / name).array[..., 0], deep)
    rgba = np.dstack([INDICES * 50, INDICES, INDICES + 1, INDICES])
    np.testing.assert_array_equal(read_volume(write_png(tmp_path / "rgba.png", rgba)).array[:, :, 0], rgba[..., :3])
    la = np.dstack([INDICES * 50, INDICES])
    np.testing.assert_array_equal(read_volume(write_png(tmp_path / "la.png", la)).array[..., 0], INDICES * 50)
    one = write_png(tmp_path / "one.png", INDICES.astype(np.uint8) * 85 > 100, "1")
    assert read_volume(one).array.ravel().tolist() == [0, 0, 255, 255]
    assert read_label_ids(one).array.ravel().tolist() == [0, 0, 1, 1]
    flat = read_volume(write_png(tmp_path / "flat.jpg", np.full((7, 5), 90, np.uint8)))
    assert (flat.grid, flat.spacing_mm, np.unique(flat.array).tolist()) == ((7, 5, 1), (1, 1, 1), [90])


def test_what_would_lose_something_is_refused(tmp_path: Path) -> None:
    """16-bit colour (Pillow would keep 8 bits) and several frames."""
    rows = b"".join(b"\0" + struct.pack(">6H", *range(6)) for _ in range(2))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    (tmp_path / "deep.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match=r"deep\.png: 16-bit RGB would lose its lower 8 bits"):
        read_volume(tmp_path / "deep.png")
    frames = [Image.fromarray(INDICES + i) for i in range(3)]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"stack\.tif: holds 3 frames; save each"):
        read_volume(tmp_path / "stack.tif")


def test_one_grey_picture_in_four_modes_is_one_picture(tmp_path: Path) -> None:
    """D44: L, LA, RGB and RGBA; dropped alpha is said, and only where there is some."""
    grey = np.arange(0, 240, 20, dtype=np.uint8).reshape(3, 4)
    seen = []
    for mode in ("L", "LA", "RGB", "RGBA"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            array = read_volume(write_png(tmp_path / f"{mode}.png", grey, mode)).array
        assert ["transparency" in str(w.message) for w in caught] == [True] * mode.endswith("A")
        seen.append(np.broadcast_to(array.reshape(3, 4, 1, -1), (3, 4, 1, 3)))
    for other in seen:
        np.testing.assert_array_equal(other[..., 0, 0], grey)
        np.testing.assert_array_equal(other, seen[0])


def test_sixteen_bits_are_not_clipped_to_eight(tmp_path: Path) -> None:
    """D16: convert('L') would give 0, 255, 255, 255."""
    values = np.array([[0, 256, 32896, 65535]], dtype=np.uint16)
    array = read_volume(write_png(tmp_path / "ir.png", values)).array
    assert array.dtype == np.uint16
    assert array.ravel().tolist() == [0, 256, 32896, 65535]


def test_print_colours_and_films_are_refused(tmp_path: Path) -> None:
    """D44."""
    Image.new("CMYK", (3, 2)).save(tmp_path / "print.jpg")
    with pytest.raises(DataError, match=r"print\.jpg: holds CMYK colours, as for print; convert it to RGB"):
        read_volume(tmp_path / "print.jpg")
    frames = [Image.fromarray(INDICES + i) for i in range(4)]
    frames[0].save(tmp_path / "film.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"film\.png: holds 4 frames"):
        read_volume(tmp_path / "film.png")


def test_smaller_copies_in_a_tiff_are_no_frames(tmp_path: Path) -> None:
    """A pyramid: the second page says that it is a reduced copy (tag 254, bit 0)."""
    pages = [Image.fromarray(INDICES), Image.fromarray(INDICES[:1, :1])]
    pages[1].encoderinfo = {"tiffinfo": {254: 1}}
    pages[0].save(tmp_path / "pyramid.tif", save_all=True, append_images=pages[1:])
    assert Image.open(tmp_path / "pyramid.tif").n_frames == 2
    np.testing.assert_array_equal(read_volume(tmp_path / "pyramid.tif").array[..., 0], INDICES)


def test_exif_orientation_turns_nothing_and_is_said(tmp_path: Path) -> None:
    """Labels are stored on the pixels as they are stored; a viewer turns this photograph by 90 degrees."""
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "photo.jpg", exif=exif)
    with pytest.warns(UserWarning, match=r"photo\.jpg: its EXIF orientation .* pixels are used as stored"):
        image = read_volume(tmp_path / "photo.jpg")
    assert image.grid == (20, 30, 1)
    assert read_label_ids(write_labels(tmp_path / "o.png", np.zeros((20, 30, 1), int), ROAD, image)).grid == image.grid


def colour_mask() -> np.ndarray:
    """D05: 50 px red, 30 green, 20 black and 4 px of a fringe colour."""
    colours = [(255, 0, 0)] * 50 + [(0, 255, 0)] * 30 + [(0, 0, 0)] * 20 + [(250, 3, 1)] * 4
    return np.array(colours, dtype=np.uint8).reshape(8, 13, 3)


TABLE = {(255, 0, 0): 1, (0, 255, 0): 2, (0, 0, 0): 255}


def test_colours_become_ids_and_unknown_ones_are_reported(tmp_path: Path) -> None:
    """D05: counts 50, 30, ignored 20; the 4 px with colour and file, or ignored when told so."""
    path = write_png(tmp_path / "mask.png", colour_mask())
    array = read_volume(path).array
    with pytest.raises(
        DataError, match=r"mask\.png: colour \(250, 3, 1\) \(4 pixels\) is not in the colour table of 3"
    ):
        raster.colors_to_ids(array, TABLE, path)
    ids = raster.colors_to_ids(array, TABLE, path, unknown=255)
    assert ids.shape == (8, 13, 1)
    assert {id: int((ids == id).sum()) for id in (1, 2, 255)} == {1: 50, 2: 30, 255: 24}
    array[ids == 255] = 0
    known = raster.colors_to_ids(array, TABLE, path)
    assert [int((known == id).sum()) for id in (1, 2, 255)] == [50, 30, 24]
    grey = raster.colors_to_ids(np.array([[[0], [7]]], np.uint8), {(0, 0, 0): 0, (7, 7, 7): 3}, path)
    assert grey.ravel().tolist() == [0, 3]
    with pytest.raises(DataError, match="8-bit"):
        raster.colors_to_ids(array.astype(np.uint16), TABLE, path)


def test_jpeg_masks_are_warned_of_by_format_alone(tmp_path: Path) -> None:
    """D05."""
    path = write_png(tmp_path / "flat.jpg", np.zeros((8, 8), np.uint8))
    with pytest.warns(UserWarning, match=r"flat\.jpg: labels in a JPEG are not exact"):
        assert read_label_ids(path).array.max() == 0
    with pytest.warns(UserWarning, match=r"flat\.jpg: labels in a JPEG are not exact"):
        raster.colors_to_ids(np.zeros((2, 2, 1), np.uint8), TABLE, path)


def test_jpeg_content_is_warned_of_whatever_the_name(tmp_path: Path) -> None:
    """D05: a JPEG called .png, and a TIFF with JPEG inside, of grey values and of colours."""
    flat = Image.fromarray(np.zeros((16, 16), np.uint8))
    flat.save(tmp_path / "named.png", format="JPEG")
    flat.save(tmp_path / "inside.tif", compression="jpeg")
    for name in ("named.png", "inside.tif"):
        with pytest.warns(UserWarning, match=rf"{name}: labels in a JPEG are not exact"):
            read_label_ids(tmp_path / name)
        with pytest.warns(UserWarning, match=rf"{name}: labels in a JPEG are not exact"):
            raster.colors_to_ids(np.zeros((16, 16, 1), np.uint8), {(0, 0, 0): 0}, tmp_path / name)
    flat.save(tmp_path / "sound.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_label_ids(tmp_path / "sound.png")
        raster.colors_to_ids(np.zeros((16, 16, 1), np.uint8), {(0, 0, 0): 0}, tmp_path / "sound.png")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    """Cut anywhere, a byte flipped, text renamed: DataError with the file, never another exception."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)
    path = tmp_path / "broken.png"
    for suffix in ("png", "jpg", "tif"):
        whole = write_png(tmp_path / f"a.{suffix}", noise).read_bytes()
        for n in sorted({*range(1, 60, 7), len(whole) // 2, len(whole) - 30}):
            path.write_bytes(whole[:n])
            with pytest.raises(DataError, match=r"broken\.png: .*; "):
                read_volume(path)
    path.write_text("hello, I am no image\n")
    with pytest.raises(
        DataError, match=r"broken\.png: neither NIfTI nor PNG, JPEG, TIFF, .* \(it begins with b'hello, I'\)"
    ):
        read_label_ids(path)
    buffer = bytes_io.BytesIO()
    Image.fromarray(noise).save(buffer, format="GIF")
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="neither NIfTI nor PNG"):
        read_volume(path)
