"""Truth on the image's grid: ids, colours and geometry, each fault with file, values and what to do (cases D03-D07)."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from fabricate import CT_AFFINE, write_nifti, write_png
from fabricate.maps import place, write_tiff
from sampeft.cli import main
from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.check import check_dataset
from sampeft.data.ground_truth import on_image_grid, read_labels, read_truth
from sampeft.errors import DataError
from sampeft.io import read_volume, write_labels
from sampeft.labels import LabelSet
from sampeft.volume import IGNORE, Volume

FOUR = LabelSet(("background", "a", "b", "c"), (0, 1, 2, 3))
ONE = LabelSet(("background", "target"), (0, 1))


def one_file(
    root: Path, label: np.ndarray, labels: LabelSet, values: dict[int, int] | None = None, **png: object
) -> tuple[ImageFile, Dataset]:
    """A data set of one grey PNG and its mask."""
    image = write_png(root / "images" / "a.png", np.zeros(label.shape[:2], np.uint8))
    file = ImageFile("a", image, write_png(root / "labels" / "a.png", label, **png))  # type: ignore[arg-type]
    return file, Dataset("one", root, labels, (Case("a", (file,)),), label_values=values or {})


def truth(file: ImageFile, dataset: Dataset) -> np.ndarray:
    return read_labels(file, dataset, read_volume(file.image)).array[..., 0]


# --- ids and classes


def test_255_is_the_only_class(tmp_path: Path) -> None:
    """D03: {0, 255} with one foreground class; the caller is told."""
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:6] = 1
    file, dataset = one_file(tmp_path, mask * 255, ONE)
    assert truth(file, dataset).sum() == mask.sum() == 6
    assert read_truth(file, dataset, read_volume(file.image))[1]


@pytest.mark.parametrize("values", [(0, 128, 255), (0, 254), (1, 255)])
def test_other_grey_values_are_no_class(values: tuple[int, ...], tmp_path: Path) -> None:
    """D03: a mask with any other grey value is refused with file and values."""
    mask = np.resize(np.array(values, np.uint8), (4, 6))
    with pytest.raises(DataError, match=rf"labels.a\.png: label ids? .*{max(values)} \(\d+ pixels\)"):
        truth(*one_file(tmp_path, mask, ONE))


def test_255_is_never_the_class_when_it_is_declared_otherwise_or_classes_are_many(tmp_path: Path) -> None:
    """D03."""
    mask = np.array([[0, 255, 255, 0]], np.uint8)
    ignoring = LabelSet(("background", "target"), (0, 1), ignore=255)
    assert truth(*one_file(tmp_path, mask, ignoring)).tolist() == [[0, IGNORE, IGNORE, 0]]
    with pytest.raises(DataError, match=r"255 \(2 pixels\) is not in the label map \{0\.\.3\}"):
        truth(*one_file(tmp_path, mask, FOUR))
    assert truth(*one_file(tmp_path, mask, FOUR, {255: 2})).tolist() == [[0, 2, 2, 0]]


def test_id_outside_the_map_and_the_suggested_mapping(tmp_path: Path) -> None:
    """D04: ids {0, 1, 2, 4} with a map of 0..3; 4:3 suggested; with it count(3) = former count(4)."""
    ids = np.repeat(np.array([0, 1, 2, 4], np.uint8), [50, 20, 18, 112]).reshape(10, 20)
    file, dataset = one_file(tmp_path, ids, FOUR)
    wanted = (
        r"a\.png: label id 4 \(112 pixels\) is not in the label map \{0\.\.3\}; add to it .* with --map=4:3, or put"
    )
    with pytest.raises(DataError, match=wanted):
        truth(file, dataset)
    channels = truth(*one_file(tmp_path, ids, FOUR, {4: 3}))
    assert np.bincount(channels.ravel()).tolist() == [50, 20, 18, 112]


@pytest.mark.parametrize("value", [255, 200])
def test_what_an_odd_value_means_is_not_guessed(value: int, tmp_path: Path) -> None:
    ids = np.resize(np.array([0, 1, 2, value], np.uint8), (4, 8))
    with pytest.raises(
        DataError, match=rf'class it is with --map={value}:ID, or put "ignore": {value} into dataset.json'
    ):
        truth(*one_file(tmp_path, ids, FOUR))


def test_a_negative_value_is_not_to_be_ignored_by_itself(tmp_path: Path) -> None:
    """Ids are 0..65535, so that "ignore": -1 would be refused."""
    values = np.array([[-1, 0, 1]], np.int16)
    label = write_nifti(tmp_path / "l.nii.gz", values[..., None], np.eye(4))
    file = ImageFile("a", write_nifti(tmp_path / "i.nii.gz", values[..., None], np.eye(4)), label)
    for mapped, found in ({}, None), ({-1: 255}, [-100, 0, 1]):
        labels = LabelSet(("background", "lesion"), (0, 1), ignore=255)
        dataset = Dataset("d", tmp_path, labels, (Case("a", (file,)),), label_values=mapped)
        if found is None:
            with pytest.raises(DataError, match=r"--map=-1:255 and put .ignore.: 255 into dataset\.json") as told:
                read_labels(file, dataset, read_volume(file.image))
            assert '"ignore": -1' not in str(told.value)
        else:
            assert read_labels(file, dataset, read_volume(file.image)).array.ravel().tolist() == found


def test_ids_are_channels_in_the_order_of_the_map_and_mappings_apply_once(tmp_path: Path) -> None:
    """Ids 0, 7, 300 are channels 0, 1, 2; a mapping that swaps 7 and 300 swaps, it does not chain."""
    labels = LabelSet(("background", "x", "y"), (0, 7, 300))
    ids = np.array([[0, 7], [300, 7]], np.uint16)
    assert truth(*one_file(tmp_path, ids, labels)).tolist() == [[0, 1], [2, 1]]
    assert truth(*one_file(tmp_path, ids, labels, {7: 300, 300: 7})).tolist() == [[0, 2], [1, 2]]


def test_palette_masks_go_by_index(tmp_path: Path) -> None:
    """D06."""
    indices = np.array([[0, 1, 2, 3]], np.uint8)
    assert truth(*one_file(tmp_path, indices, FOUR, mode="P")).tolist() == [[0, 1, 2, 3]]


def test_negative_ids_can_be_mapped(tmp_path: Path) -> None:
    image = write_nifti(tmp_path / "i.nii.gz", np.zeros((2, 2, 1), np.int16))
    label = write_nifti(tmp_path / "l.nii.gz", np.array([[[-1], [0]], [[1], [3]]], np.int16))
    file = ImageFile("i", image, label)
    with pytest.raises(DataError, match=r"label id -1 \(1 voxels\)"):
        read_labels(file, Dataset("d", tmp_path, FOUR, ()), read_volume(image))
    mapped = read_labels(file, Dataset("d", tmp_path, FOUR, (), label_values={-1: 2}), read_volume(image))
    assert mapped.array.ravel().tolist() == [2, 0, 1, 3]


COLORS = {(255, 0, 0): 1, (0, 0, 255): 2, (0, 0, 0): 0}


def test_colours_of_a_declared_table_are_ids(tmp_path: Path) -> None:
    """D05: red 1, blue 2, black 0; any other colour is refused with its pixels."""
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0, 0], picture[1] = (255, 0, 0), (0, 0, 255)
    file, dataset = one_file(tmp_path, picture, FOUR)
    with pytest.raises(DataError, match="3 colours instead of ids"):
        truth(file, dataset)
    coloured = replace(dataset, label_colors=COLORS)
    assert truth(file, coloured).tolist() == [[1, 0, 0], [2, 2, 2]]
    assert truth(file, replace(coloured, label_values={2: 3})).tolist() == [[1, 0, 0], [3, 3, 3]]
    picture[0, 2] = (250, 3, 1)
    write_png(file.label, picture)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"a\.png: colour .*250.* \(1 pixels\)"):
        truth(file, coloured)


@pytest.mark.parametrize("png", [{}, {"mode": "P"}])
def test_grey_and_palette_masks_hold_ids_beside_a_colour_table(png: dict[str, str], tmp_path: Path) -> None:
    file, dataset = one_file(tmp_path, np.array([[0, 1, 2, 3]], np.uint8), FOUR, **png)
    assert truth(file, replace(dataset, label_colors=COLORS)).tolist() == [[0, 1, 2, 3]]


def test_a_black_coloured_mask_is_read_by_its_colour(tmp_path: Path) -> None:
    """Black may mean no truth while id 0 is a class: a tile that is all black holds no class 0."""
    ignoring = LabelSet(("builtup", "water"), (0, 1), ignore=255)
    file, dataset = one_file(tmp_path, np.zeros((2, 3, 3), np.uint8), ignoring)
    black = replace(dataset, label_colors={(0, 0, 0): 255, (255, 0, 0): 0, (0, 0, 255): 1})
    assert (truth(file, black) == IGNORE).all()


def test_where_no_band_was_measured_there_is_no_truth(tmp_path: Path) -> None:
    """D17: such pixels are ignored in loss and metrics; a pixel that only one band lacks keeps its truth."""
    file, dataset = one_file(tmp_path, np.array([[0, 1, 2, 3]], np.uint8), FOUR)
    bands = np.full((1, 4, 1, 2), 7.0, np.float32)
    bands[0, 1] = -9999
    bands[0, 2, 0, 0] = -9999
    missing = (bands == -9999).all(axis=3)
    image = Volume(bands, None, file.image, SimpleNamespace(nodata=-9999.0, missing=missing))
    assert read_labels(file, dataset, image).array.ravel().tolist() == [0, IGNORE, 2, 3]


# --- geometry


def volume_pair(root: Path, label: np.ndarray, affine: np.ndarray) -> tuple[ImageFile, Dataset]:
    image = write_nifti(root / "images" / "a.nii.gz", np.zeros((6, 8, 4), np.int16), CT_AFFINE)
    file = ImageFile("a", image, write_nifti(root / "labels" / "a.nii.gz", label, affine))
    return file, Dataset("pair", root, FOUR, (Case("a", (file,)),))


@pytest.fixture
def blobs() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 4, (6, 8, 4)).astype(np.uint8)


def test_every_axis_order_of_the_label_is_aligned_exactly(blobs: np.ndarray, tmp_path: Path) -> None:
    """D07: a label that is stored flipped or with swapped axes, its affine saying so, is the same label."""
    for axes, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        turn = np.array(list(zip(axes, signs, strict=True)), dtype=float)
        stored = apply_orientation(blobs, turn)
        file, dataset = volume_pair(tmp_path, stored, CT_AFFINE @ inv_ornt_aff(turn, blobs.shape))
        image = read_volume(file.image)
        aligned = read_labels(file, dataset, image)
        np.testing.assert_array_equal(aligned.array, blobs)
        np.testing.assert_array_equal(aligned.affine, image.affine)


def test_rounding_of_the_header_is_accepted_quietly(blobs: np.ndarray, tmp_path: Path) -> None:
    """D07: A + 2e-8; and corners off by less than 0.1 voxel (0.15 mm of 2 mm)."""
    near = CT_AFFINE.copy()
    near[0, 3] += 0.15
    for affine in (CT_AFFINE + 2e-8, near):
        file, dataset = volume_pair(tmp_path, blobs, affine)
        np.testing.assert_array_equal(read_labels(file, dataset, read_volume(file.image)).array, blobs)


def test_a_shifted_or_turned_label_is_refused_with_the_distance(blobs: np.ndarray, tmp_path: Path) -> None:
    """D07: origin + 5 mm is refused and the 5 mm are printed; a flip without the origin moving along is no flip."""
    shifted = CT_AFFINE.copy()
    shifted[1, 3] += 5
    file, dataset = volume_pair(tmp_path, blobs, shifted)
    with pytest.raises(DataError, match=r"labels.a\.nii\.gz: its grid is up to 5\.00 mm away from that of a\.nii\.gz"):
        read_labels(file, dataset, read_volume(file.image))
    wrong_flip = CT_AFFINE @ np.diag([1, -1, 1, 1])  # index 0 stays at y = -40, index 7 lands at -54 instead of -26
    file, dataset = volume_pair(tmp_path, blobs, wrong_flip)
    with pytest.raises(DataError, match=r"up to 14\.00 mm away"):
        read_labels(file, dataset, read_volume(file.image))
    oblique = CT_AFFINE @ nib.affines.from_matvec(nib.eulerangles.euler2mat(0.3))
    file, dataset = volume_pair(tmp_path, blobs, oblique)
    with pytest.raises(DataError, match="mm away"):
        read_labels(file, dataset, read_volume(file.image))


def test_sizes_that_differ_are_refused(blobs: np.ndarray, tmp_path: Path) -> None:
    file, dataset = volume_pair(tmp_path, blobs[:5], CT_AFFINE)
    with pytest.raises(DataError, match=r"size 5 x 8 x 4 voxels, its image a\.nii\.gz a volume of 6 x 8 x 4 voxels"):
        read_labels(file, dataset, read_volume(file.image))
    tile = write_png(tmp_path / "tile.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(DataError, match=r"is a volume .*tile\.png a raster image of 6 x 8 \(rows x columns\)"):
        read_labels(ImageFile("t", tile, file.label), dataset, read_volume(tile))


@pytest.mark.real_data
def test_real_ct_label_of_another_grid_is_refused(real_data: Path) -> None:
    """The 30-slice crop's label against the whole CT; the whole label fits."""
    case = real_data / "totalsegmentator_ct" / "case_a"
    labels = LabelSet(("background", *map(str, range(1, 14))), tuple(range(14)))
    dataset = Dataset("ct", case, labels, ())
    image = read_volume(case / "ct.nii.gz")
    whole = read_labels(ImageFile("a", image.path, case / "labels_flare22.nii.gz"), dataset, image)
    assert int((whole.array == 1).sum()) == 41602
    with pytest.raises(DataError, match="122 x 101 x 30"):
        read_labels(ImageFile("a", image.path, case / "labels_totalseg_v2_117_sm.nii.gz"), dataset, image)


# --- places on the map (N01)

NORTH_UP = (2.0, 0.0, 500_000.0, 0.0, -2.0, 4_000_000.0)
UTM33, UTM34, DEGREES = "EPSG:32633", "EPSG:32634", "EPSG:4326"


def placed(
    path: Path, array: np.ndarray, transform: tuple[float, ...] | None = NORTH_UP, crs: str | None = UTM33, **other: Any
) -> Path:
    rasterio = pytest.importorskip("rasterio")
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = array if array.ndim == 3 else array[None]
    place = {"transform": rasterio.Affine(*transform)} if transform else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2], dtype=bands.dtype,
            crs=crs, **place, **other,
        ) as raster:  # fmt: skip
            raster.write(bands)
    return path


def on_map(
    tmp_path: Path, label: np.ndarray, transform: tuple[float, ...] | None, crs: str | None, **other: Any
) -> np.ndarray:
    """The truth of a colour image at `NORTH_UP` in UTM 33."""
    image = placed(tmp_path / "images" / "a.tif", np.full((3, 60, 64), 9, np.uint8))
    file = ImageFile("a", image, placed(tmp_path / "labels" / "a.tif", label, transform, crs, **other))
    dataset = Dataset("map", tmp_path, ONE, (Case("a", (file,)),))
    read = read_truth(file, dataset, read_volume(image))
    assert read.placed_by.split(" ")[0] == ("size" if transform is None else "transform" if crs is None else "")
    return read.label.array[..., 0]


def house() -> np.ndarray:
    mask = np.zeros((60, 64), np.uint8)
    mask[10:30, 12:28] = 1
    return mask


def moved(columns: float = 0.0, rows: float = 0.0) -> tuple[float, ...]:
    a, b, c, d, e, f = NORTH_UP
    return a, b, c + columns * a, d, e, f + rows * e


def test_a_raster_label_that_lies_elsewhere_is_refused_with_both_files_and_the_distance(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels.a\.tif: its grid is up to 10\.00 m away from that of a\.tif"):
        on_map(tmp_path, house(), moved(columns=5), UTM33)
    with pytest.raises(DataError, match=r"up to 0\.20 m away"):
        on_map(tmp_path, house(), moved(rows=0.1), UTM33)
    assert np.array_equal(on_map(tmp_path, house(), moved(columns=0.09), UTM33), house())


def test_one_of_another_pixel_size_is_refused(tmp_path: Path) -> None:
    """Of 2.02 instead of 2 m the last of 64 columns is 0.64 pixels off."""
    with pytest.raises(DataError, match=r"m away from that of a\.tif"):
        on_map(tmp_path, house(), (2.02, 0.0, 500_000.0, 0.0, -2.0, 4_000_000.0), UTM33)


def test_places_by_ground_control_points_are_compared_too(tmp_path: Path) -> None:
    """Of both, or of one of the two; 500 m are 250 pixels."""
    control = pytest.importorskip("rasterio.control")

    def points(east: float) -> list[Any]:
        corners = [(row, column) for row in (0, 60) for column in (0, 64)]
        return [control.GroundControlPoint(r, c, east + 2 * c, 4_000_000 - 2 * r) for r, c in corners]

    def read(image: float | None, label: float | None) -> np.ndarray:
        arrays = {"images": np.full((3, 60, 64), 9, np.uint8), "labels": house()}
        paths = []
        for (folder, array), east in zip(arrays.items(), (image, label), strict=True):
            by = {"transform": NORTH_UP} if east is None else {"transform": None, "gcps": points(east)}
            paths.append(placed(tmp_path / folder / "a.tif", array, **by))  # type: ignore[arg-type]
        file = ImageFile("a", *paths)
        return truth(file, Dataset("map", tmp_path, ONE, (Case("a", (file,)),)))

    for image, label in ((500_000, 500_500), (None, 500_500), (500_500, None)):
        with pytest.raises(DataError, match=r"up to 500\.00 m away from that of a\.tif"):
            read(image, label)
    for image, label in ((500_500, 500_500), (500_000, None)):
        assert np.array_equal(read(image, label), house())


def test_a_label_whose_rows_are_columns_on_the_map_is_refused_with_its_size_there(tmp_path: Path) -> None:
    said = r"of size 60 x 64 \(rows x columns\), 64 x 60 along the axes of its image, its image"
    with pytest.raises(DataError, match=said):
        on_map(tmp_path, house(), (0.0, 2.0, 500_000.0, -2.0, 0.0, 4_000_000.0), UTM33)


def test_other_coordinate_systems_are_refused_with_both(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is in the coordinate system EPSG:32634, its image a\.tif in EPSG:32633"):
        on_map(tmp_path, house(), NORTH_UP, UTM34)
    with pytest.raises(DataError, match=r"EPSG:4326, its image a\.tif in EPSG:32633"):
        on_map(tmp_path, house(), NORTH_UP, DEGREES)
    with pytest.raises(
        DataError, match=r"up to 10\.00 m away from that of a\.tif \(the label states no coordinate system\)"
    ):
        on_map(tmp_path, house(), moved(columns=5), None)


@pytest.mark.parametrize("lacking", ["images", "labels"])
def test_a_coordinate_system_that_only_one_states_is_told_once(
    lacking: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """By check, and by an evaluation of maps."""
    systems = {"images": UTM33, "labels": UTM33, lacking: None}
    for name in "abc":
        for folder, crs in systems.items():
            array = house() if folder == "labels" else np.stack([house() * 9] * 3)
            placed(tmp_path / folder / f"{name}.tif", array, crs=crs)
        placed(tmp_path / "pred" / f"{name}.tif", house(), crs=systems["images"])
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "house": 1}}')
    told = "placed by their transform alone, since image or label states no coordinate system"
    assert main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(f"{told}: 3 labels, the first is a.tif") == 1
    described = str(tmp_path / "dataset.json")
    words = ["--truth", str(tmp_path / "labels"), "--labels", described, "--out", str(tmp_path / "e")]
    assert main(["evaluate", "--pred", str(tmp_path / "pred"), *words]) == 0
    assert (caplog.text.count(told), "| house | 1.000" in capsys.readouterr().out) == (1, True)


@pytest.mark.parametrize("flips", [(0,), (1,), (0, 1)], ids=["south up", "east first", "both"])
def test_rows_and_columns_stored_the_other_way_round_are_turned(flips: tuple[int, ...], tmp_path: Path) -> None:
    """Class 1 stays the 20 x 16 pixels of rows 10 to 29."""
    a, b, c, d, e, f = NORTH_UP
    if 1 in flips:
        a, c = -a, c + 64 * a
    if 0 in flips:
        e, f = -e, f + 60 * e
    found = on_map(tmp_path, np.flip(house(), flips).copy(), (a, b, c, d, e, f), UTM33)
    assert np.array_equal(found, house())


def test_a_label_without_a_place_is_taken_as_drawn_on_its_image(tmp_path: Path) -> None:
    assert np.array_equal(on_map(tmp_path, house(), None, None), house())


def test_a_place_that_is_none_is_told(tmp_path: Path) -> None:
    label = Volume(
        house()[:, :, None], None, tmp_path / "l.tif", SimpleNamespace(transform=(2, 0, 5, 0, 0, 5), crs=None)
    )
    image = replace(label, header=SimpleNamespace(transform=NORTH_UP, crs=None))
    with pytest.raises(DataError, match=r"l\.tif: its transform to the map is none \(2, 0, 5, 0, 0, 5\)"):
        on_image_grid(label, image)


@pytest.mark.parametrize(("nodata", "kind"), [(255, np.uint8), (-1, np.int8)])
def test_what_a_label_file_calls_nodata_is_no_truth(nodata: int, kind: type, tmp_path: Path) -> None:
    """N15: five rows of 64 pixels."""
    hole = house().astype(kind)
    hole[:5] = nodata
    found = on_map(tmp_path, hole, NORTH_UP, UTM33, nodata=nodata)
    assert (found == IGNORE).sum() == 320
    assert (found == 1).sum() == 320
    with pytest.raises(DataError, match=rf"label id {nodata} \(320 pixels\)"):
        on_map(tmp_path / "undeclared", hole, NORTH_UP, UTM33)


def test_nodata_that_is_the_id_of_a_class_is_that_class(tmp_path: Path) -> None:
    assert np.array_equal(on_map(tmp_path, house(), NORTH_UP, UTM33, nodata=0), house())


ORGANS = LabelSet(("background", "liver", "spleen"), (0, 1, 2))


def segments(path: Path, array: np.ndarray, names: dict[int, str]) -> Path:
    """A .seg.nrrd as 3D Slicer writes it, with a name for each value."""
    said = "".join(
        f"Segment{n}_LabelValue:={v}\nSegment{n}_Name:={name}\n" for n, (v, name) in enumerate(names.items())
    )
    sizes = " ".join(map(str, array.shape))
    header = (
        f"NRRD0004\ntype: unsigned char\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\n"
        "space directions: (1,0,0) (0,1,0) (0,0,2)\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
        f"space origin: (0,0,0)\n{said}\n"
    )
    path.write_bytes(header.encode() + array.astype(np.uint8).tobytes(order="F"))
    return path


def named_pair(root: Path, names: dict[int, str], values: tuple[int, int], **more: Any) -> tuple[ImageFile, Dataset]:
    """Liver in 12 voxels and spleen in 4, stored as these values."""
    pytest.importorskip("SimpleITK")
    array = np.zeros((6, 5, 4), np.uint8)
    array[:3, :2, :2], array[4:, :2, 3] = values
    image = segments(root / "a.nrrd", np.arange(120).reshape(6, 5, 4), {})
    file = ImageFile("a", image, segments(root / "a.seg.nrrd", array, names))
    return file, Dataset("d", root, ORGANS, (Case("a", (file,)),), **more)


@pytest.mark.parametrize(
    ("names", "values", "by_name"),
    [
        ({1: "liver", 2: "spleen"}, (1, 2), False),
        ({2: "Liver", 1: "SPLEEN"}, (2, 1), True),  # N04: swapped in this case alone
        ({7: "liver", 3: "spleen"}, (7, 3), True),
        ({1: "Segment_1", 2: "Segment_2"}, (1, 2), False),
    ],
)
def test_ids_go_by_the_names_in_the_files_own_header(
    names: dict[int, str], values: tuple[int, int], by_name: bool, tmp_path: Path
) -> None:
    file, dataset = named_pair(tmp_path, names, values)
    found = read_truth(file, dataset, read_volume(file.image))
    assert np.bincount(found.label.array.ravel()).tolist() == [104, 12, 4]
    assert (found.by_name, found.foreign) == (by_name, "")
    if by_name:
        (fault,) = check_dataset(dataset).faults
        assert fault.problem == "other ids for the classes in 1 label, the first is a.seg.nrrd"


def test_names_that_fit_no_order_are_refused_and_foreign_ones_told(tmp_path: Path) -> None:
    """N04: value 1 is the spleen, which is 2 of the label map; what value 2 is nobody knows."""
    file, dataset = named_pair(tmp_path, {2: "kidney", 1: "spleen"}, (2, 1))
    with pytest.raises(DataError, match=r"ids \{1: spleen, 2: kidney\}, the label map \{1: liver, 2: spleen\}; rename"):
        read_labels(file, dataset, read_volume(file.image))
    file, dataset = named_pair(tmp_path, {1: "spleen"}, (2, 1))
    with pytest.raises(DataError, match="or tell which is which with --map"):
        read_labels(file, dataset, read_volume(file.image))
    file, dataset = named_pair(tmp_path, {2: "kidney", 1: "spleen"}, (2, 1), label_values={1: 1, 2: 2})
    said_so = read_labels(file, dataset, read_volume(file.image)).array
    assert np.bincount(said_so.ravel()).tolist() == [104, 4, 12]
    file, dataset = named_pair(tmp_path, {1: "Leber", 2: "spleen"}, (1, 2))
    (fault,) = check_dataset(dataset).faults
    assert (fault.severity, "1: Leber" in fault.problem, "1: liver" in fault.problem) == ("warning", True, True)


def test_class_tags_of_a_geotiff_are_names(tmp_path: Path) -> None:
    """N04: the map was written by a run whose road is 1, the data set's is 2."""
    pytest.importorskip("rasterio")
    ours, theirs = (
        LabelSet(names, (0, 1, 2)) for names in (("background", "house", "road"), ("background", "road", "house"))
    )
    image = read_volume(write_tiff(tmp_path / "image.tif", np.ones((1, 4, 5), np.uint8), **place()))
    channels = np.zeros((4, 5, 1), np.int16)
    channels[0], channels[1:3] = 1, 2
    label = write_labels(tmp_path / "label.tif", channels, theirs, image)
    file = ImageFile("a", image.path, label)
    assert np.bincount(truth(file, Dataset("d", tmp_path, ours, (Case("a", (file,)),))).ravel()).tolist() == [5, 10, 5]


CATEGORIES = "<CategoryNames><Category>background</Category><Category>a road</Category><Category>house</Category></CategoryNames>"
TABLE = (
    "<GDALRasterAttributeTable>"
    "<FieldDefn index='0'><Name>Kind</Name><Type>2</Type><Usage>2</Usage></FieldDefn>"
    "<FieldDefn index='1'><Name>Count</Name><Type>0</Type><Usage>1</Usage></FieldDefn>"
    "<FieldDefn index='2'><Name>Value</Name><Type>0</Type><Usage>5</Usage></FieldDefn>"
    "<Row index='0'><F>house</F><F>10</F><F>2</F></Row><Row index='1'><F>A_Road</F><F>5</F><F>1.0</F></Row>"
    "<Row index='2'><F>other</F><F>0</F><F>?</F></Row></GDALRasterAttributeTable>"
)


@pytest.mark.parametrize("names", [CATEGORIES, TABLE], ids=["list", "table"])
def test_names_that_gis_programs_keep_beside_a_raster_are_names(names: str, tmp_path: Path) -> None:
    """N04: of 5 pixels of 1, which is the road there, and 10 of 2."""
    ids = np.repeat(np.array([1, 2, 2, 0], np.uint8), 5).reshape(4, 5)
    image = write_tiff(tmp_path / "image.tif", np.ones((1, 4, 5), np.uint8), **place())
    label = write_tiff(tmp_path / "label.tif", ids[None], **place())
    beside = tmp_path / "label.tif.aux.xml"
    file = ImageFile("a", image, label)
    dataset = Dataset("d", tmp_path, LabelSet(("background", "house", "a road"), (0, 1, 2)), (Case("a", (file,)),))
    for content, counts in (
        (f'<PAMDataset><PAMRasterBand band="1">{names}</PAMRasterBand></PAMDataset>', [5, 10, 5]),
        ('<PAMDataset><PAMRasterBand band="1"/></PAMDataset>', [5, 5, 10]),
        ("<PAMDataset/>", [5, 5, 10]),
    ):
        beside.write_text(content)
        assert np.bincount(truth(file, dataset).ravel()).tolist() == counts


def test_a_colour_mask_saved_as_a_palette_goes_by_its_colours(tmp_path: Path) -> None:
    """N04: indices 0, 1, 2 stand for red, black, green; the data set's colours are black, red and green."""
    colors = {(0, 0, 0): 0, (255, 0, 0): 1, (0, 255, 0): 2}
    indices = np.array([[0, 1, 1, 2], [1, 1, 0, 2]], np.uint8)

    def pair(palette: list[int], **more: Any) -> tuple[ImageFile, Dataset]:
        label = write_png(tmp_path / "label.png", indices, "P", palette)
        file = ImageFile("a", write_png(tmp_path / "image.png", indices * 9), label)
        return file, Dataset("d", tmp_path, ORGANS, (Case("a", (file,)),), label_colors=colors, **more)

    quantised = [255, 0, 0, 0, 0, 0, 0, 255, 0]
    assert truth(*pair(quantised)).tolist() == [[1, 0, 0, 2], [0, 0, 1, 2]]
    assert read_truth(*pair(quantised), read_volume(tmp_path / "image.png")).by_name
    as_declared = [0, 0, 0, 255, 0, 0, 0, 255, 0]
    for palette in (as_declared, [9, 9, 9, 8, 8, 8, 7, 7, 7]):  # the colours say the same, or nothing
        assert truth(*pair(palette)).tolist() == indices.tolist()
    for palette in ([255, 0, 0, 0, 0, 0, 9, 9, 9], [0, 0, 0] * 3):
        with pytest.raises(DataError, match=r"label\.png: its palette has the colours .* of the data set are"):
            truth(*pair(palette))
