"""The label map: ids and channels, mirror partners, palette, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sampeft.data.layouts.flare22 import FLARE22_LABELS
from sampeft.errors import DataError, FormError
from sampeft.labels import LabelSet, default_color, pairs_by_name

KIDNEYS = LabelSet(
    ("background", "right kidney", "left kidney", "liver"), (0, 2, 13, 300), 65535, (("right kidney", "left kidney"),)
)


def test_channels_become_ids_and_the_type_holds_the_ignore_id() -> None:
    assert KIDNEYS.to_ids(np.array([[3, 0], [2, 1]])).tolist() == [[300, 0], [13, 2]]
    assert KIDNEYS.dtype == np.uint16
    assert LabelSet(("background", "a"), (0, 255)).dtype == np.uint8
    assert LabelSet(("background", "a"), (0, 1), ignore=256).dtype == np.uint16


@pytest.mark.parametrize("ids", [(0, 1, 2, 3), (0, 2, 13, 300)])
def test_ids_do_not_depend_on_the_order_in_memory(ids: tuple[int, ...]) -> None:
    labels = LabelSet(KIDNEYS.names, ids)
    channels = np.random.default_rng(0).integers(0, 4, (3, 4, 5)).astype(np.int16)
    wanted = np.array(ids)[channels]
    for given in (channels, np.asfortranarray(channels), channels.transpose(1, 0, 2), channels[:, ::2]):
        found = labels.to_ids(given)
        assert found.dtype == labels.dtype
        assert np.array_equal(found, np.array(ids)[given])
    assert labels.to_ids(np.asfortranarray(channels)).flags.f_contiguous
    assert np.array_equal(labels.to_ids(channels[:1, :, 0].T), wanted[:1, :, 0].T)  # contiguous either way


def test_mirroring_swaps_pairs_only_and_twice_is_nothing() -> None:
    """D23: right kidney (1) <-> left kidney (2)."""
    assert KIDNEYS.mirror_channels.tolist() == [0, 2, 1, 3]
    for labels in (KIDNEYS, FLARE22_LABELS):
        assert labels.mirror_channels[labels.mirror_channels].tolist() == list(range(len(labels)))
    # FLARE22: kidneys are 2 and 13, adrenal glands 7 and 8.
    assert FLARE22_LABELS.mirror_channels.tolist() == [0, 1, 13, 3, 4, 5, 6, 8, 7, 9, 10, 11, 12, 2]


def test_pairs_are_known_by_name() -> None:
    """D23: also where a label map does not declare them; `liver` or `bright` hold no word `right`."""
    names = ["background", "right kidney", "left kidney", "lung_L", "lung_R", "bright", "blight", "right eye"]
    assert pairs_by_name(names) == [("lung_R", "lung_L"), ("right kidney", "left kidney")]
    assert set(pairs_by_name(FLARE22_LABELS.names)) == set(FLARE22_LABELS.pairs)


def test_one_class_is_two_channels_and_background_is_no_foreground() -> None:
    """D24: channels follow from the map."""
    one = LabelSet.from_json({"background": 0, "target": 1})
    assert (len(one), one.foreground, one.has_background) == (2, (1,), True)
    land = LabelSet.from_json({"labels": {"water": 4, "forest": 2}, "ignore": 255})
    assert (land.names, land.ids, land.foreground) == (("forest", "water"), (2, 4), (0, 1))


def test_json_round_trip(tmp_path: Path) -> None:
    for labels in (KIDNEYS, FLARE22_LABELS, LabelSet(("a", "b"), (3, 5), colors=((1, 2, 3), (4, 5, 6)))):
        (tmp_path / "labels.json").write_text(json.dumps(labels.to_json()))
        assert LabelSet.read(tmp_path / "labels.json") == labels


def test_colours_are_distinct_and_background_is_black() -> None:
    many = LabelSet(("background", *map(str, range(60))), tuple(range(61)))
    assert many.colors[0] == (0, 0, 0)
    assert many.colors[1] == (0xE6, 0x9F, 0x00)
    assert len(set(many.colors)) == 61
    assert all(0 <= c <= 255 for i in range(300) for c in default_color(i))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": {"background": 0}}, "at least two classes"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "distinct and ascend"),
        ({"labels": {"a": 0, "background": 1}}, "lowest id"),
        ({"labels": {"background": 0, "a": 70000}}, r"0\.\.65535"),
        ({"labels": {"background": 0, "a": 1}, "ignore": 1}, "ignore id 1 is also"),
        ({"labels": {"background": 0, "a": 1}, "pairs": [["a", "b"]]}, r"\['b'\], not in the label map"),
        ({"labels": {"background": 0, "a": "one"}}, "the id of 'a' is 'one'; expected a whole number of 0..65535"),
        ({"labels": ["background", "a"]}, "expected names and ids"),
        ({"labels": {"background": 0, "a": 1}, "pairs": "ab"}, "pairs is 'ab'; expected names of classes"),
        ({"labels": {"background": 0, "a": 1}, "colors": [1]}, "colors is .1.; expected names and colours"),
        ([1, 2], "expected a JSON object"),
    ],
)
def test_wrong_maps_are_refused_with_the_file(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"labels\.json: .*{message}"):
        LabelSet.read(path)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        LabelSet.read(tmp_path / "labels.json")
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        LabelSet.read(tmp_path / "labels.json")


def test_a_byte_order_mark_before_the_file_is_none_of_it(tmp_path: Path) -> None:
    """N07: Windows' editors write one."""
    path = tmp_path / "labels.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"labels": {"background": 0, "liver": 1}}\r\n')
    assert LabelSet.read(path).names == ("background", "liver")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_files_in_utf_16_are_read_where_a_mark_says_so_and_others_told(encoding: str, tmp_path: Path) -> None:
    """N07: PowerShell writes UTF-16 with a mark."""
    path = tmp_path / "labels.json"
    path.write_bytes('{"labels": {"background": 0, "Müller": 1}}'.encode(encoding))
    if encoding == "utf-16":
        assert LabelSet.read(path).names == ("background", "Müller")
    else:
        with pytest.raises(FormError, match=r"labels\.json: not valid JSON"):
            LabelSet.read(path)
