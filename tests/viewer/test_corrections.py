"""Prompts, corrections and saving: the masks of `Segmenter.segment`, undone exactly, saved as a data set that passes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fabricate import write_nifti, write_png
from sampeft.data import open_dataset
from sampeft.data.check import check_dataset
from sampeft.data.ground_truth import read_labels
from sampeft.errors import UsageError
from sampeft.io import read_volume
from sampeft.labels import LabelSet
from sampeft.prediction.segmenter import Segmenter
from sampeft.viewer.corrected_cases import CorrectedCases
from sampeft.viewer.corrections import mask_of, run_lengths
from sampeft.viewer.errors import RequestError
from viewer.clients import Serve, predicted
from viewer.test_predictions import AFFINE, opened

rng = np.random.default_rng(1)


@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_bring_every_mask_back(mask: np.ndarray) -> None:
    counts = run_lengths(mask)
    assert sum(counts) == mask.size
    assert all(n > 0 for n in counts[1:])
    assert np.array_equal(mask_of(mask.shape, counts, mask.shape), mask)


def test_run_lengths_by_hand() -> None:
    assert run_lengths(np.array([[0, 0, 1], [1, 0, 0]], dtype=bool)) == [2, 2, 2]
    assert run_lengths(np.array([[1, 1]], dtype=bool)) == [0, 2]
    for size, counts in (((1, 2), [3]), ((2, 1), [2]), ((1, 2), [3, -1]), ((1, 2), [])):
        with pytest.raises(RequestError, match="slices here are 1 x 2"):
            mask_of(size, counts, (1, 2))


def test_a_prompt_is_that_of_the_segmenter_and_the_next_one_is_fast(
    serve: Serve, sam: Segmenter, tmp_path: Path
) -> None:
    scan = write_nifti(tmp_path / "scan.nii.gz", rng.integers(0, 255, (30, 24, 3)).astype(np.int16), AFFINE)
    boxes, points = [[4, 4, 20, 15]], [[[10, 9, 1], [2, 2, 0]]]
    wanted = sam.segment(scan, boxes=boxes, points=points, slice=1)[0]
    several = sam.segment(scan, boxes=[[4, 4, 20, 15], [0, 0, 6, 6]], slice=1)
    with serve() as client:
        client.service.runs._loaded["run"] = sam
        body = predicted(client, scan)
        url = f"/api/predictions/{body['id']}/prompt"
        encoded = []
        encode = sam.model.encode
        sam.model.encode = lambda images: (encoded.append(1), encode(images))[1]  # type: ignore[method-assign]
        try:
            first = client.post(url, json={"slice": 1, "label": "c1", "boxes": boxes, "points": points}).json()
            union = client.post(url, json={"slice": 1, "label": "c1", "boxes": [*boxes, [0, 0, 6, 6]]}).json()
        finally:
            del sam.model.encode
        assert np.array_equal(mask_of(first["mask"]["size"], first["mask"]["counts"], wanted.shape), wanted)
        assert first["pixels"] == wanted.sum()
        assert np.array_equal(mask_of((24, 30), union["mask"]["counts"], (24, 30)), several.any(axis=0))
        assert encoded == [1]  # two prompts, one encoding
        for wrong, why in (
            ({"slice": 3}, "the image has slices 0..2, not 3"),
            ({"label": "c9"}, "no class 'c9'; the classes are background, c1, c2"),
            ({"plane": "coronal"}, "the model's slices are axial, not coronal"),
            ({"boxes": []}, "give boxes, lists of points or as many of both, got 0 and 0"),
        ):
            answer = client.post(url, json={"slice": 1, "label": "c1", "boxes": boxes, **wrong})
            assert (answer.status_code, answer.json()) == (422, {"error": why})
        assert client.post(url, content=b'{"slice": 1, "label": "c1", "boxes": [[0, 0, NaN, 4]]}').status_code == 422


def test_few_slices_stay_encoded(serve: Serve, segmenter: Segmenter, tmp_path: Path) -> None:
    scans = [
        write_nifti(tmp_path / f"{n}.nii.gz", rng.integers(0, 255, (16, 16, 9)).astype(np.int16), AFFINE) for n in "abc"
    ]
    with serve() as client:
        prompts, made = client.service.prompts, [client.service.prediction(predicted(client, s)["id"]) for s in scans]
        for found, s in itertools.product(made, range(9)):
            prompts._prompter(found, segmenter, s, False)
            assert len(prompts._images) <= 2
            assert len(prompts._slices) <= 16
        assert {key[0] for key in prompts._slices} == set(prompts._images) == {p.id for p in made[1:]}
        client.delete(f"/api/predictions/{made[2].id}")
        assert set(prompts._images) == {made[1].id}


def test_corrections_change_their_slice_alone_and_are_taken_back_exactly(serve: Serve, tmp_path: Path) -> None:
    levels = np.zeros((10, 8, 4), np.int16)
    levels[2:5, 2:5, 1], levels[6:9, 2:5, 1] = 128, 255
    scan = write_nifti(tmp_path / "scan.nii.gz", levels, np.diag([1.0, 1, 4, 1]))
    mask = np.zeros((8, 10), bool)
    mask[:, :5] = True
    with serve() as client:
        url = f"/api/predictions/{predicted(client, scan)['id']}"

        def now() -> np.ndarray:
            return np.asarray(opened(client.get(f"{url}/files/map.nii.gz").content).dataobj)

        before = now()
        start = client.get(url).json()["result"]
        view = client.service.prediction(url.rpartition("/")[2]).map.view
        s = next(s for s, part in enumerate(view.slices(before)) if part.any())
        body = {"slice": s, "label": "c1", "mask": {"size": [8, 10], "counts": run_lengths(mask)}}
        kept = client.post(f"{url}/corrections", json={**body, "over": False}).json()
        first = now()
        client.post(f"{url}/corrections", json=body)
        shown = view.slices(now())
        assert (shown[s][mask] == 1).all()
        assert np.array_equal(shown[s][~mask], view.slices(before)[s][~mask])
        assert all(np.array_equal(shown[o], view.slices(before)[o]) for o in range(4) if o != s)
        spared = view.slices(before)[s] == 2
        assert (view.slices(first)[s][spared] == 2).all()
        assert kept["pixels"]["c1"] == (first == 1).sum()
        assert client.delete(f"{url}/corrections/last").json()["corrections"] == 1
        assert np.array_equal(now(), first)
        client.delete(f"{url}/corrections/last")
        assert np.array_equal(now(), before)
        end = client.get(url).json()["result"]
        assert end["pixels"] == start["pixels"]
        assert end["revision"] == 4
        nothing = client.delete(f"{url}/corrections/last")
        assert (nothing.status_code, nothing.json()) == (409, {"error": "there is no correction to take back"})
        assert client.post(f"{url}/corrections", json={**body, "slice": 4}).status_code == 422


def test_saved_cases_load_as_a_data_set_and_pass_the_check(serve: Serve, tmp_path: Path, classes: LabelSet) -> None:
    out = tmp_path / "corrected"
    scan = write_nifti(tmp_path / "scan_0000.nii.gz", rng.integers(0, 255, (20, 18, 3)).astype(np.int16), AFFINE)
    picture = write_png(tmp_path / "frame.png", rng.integers(0, 255, (20, 34), dtype=np.uint8))
    with serve(corrections=out) as client:
        ids = [predicted(client, scan)["id"], predicted(client, picture)["id"]]
        ids.append(predicted(client, case="P03", image="P03_2")["id"])
        saved = [client.post(f"/api/predictions/{id}/save", json={}) for id in ids]
        assert [s.status_code for s in saved] == [201] * 3
        maps = {id: client.service.prediction(id).map for id in ids}
        mask = np.ones(maps[ids[0]].size(), bool)
        body = {"slice": 2, "label": "c2", "mask": {"size": mask.shape, "counts": run_lengths(mask)}}
        client.post(f"/api/predictions/{ids[0]}/corrections", json=body)
        again = client.post(f"/api/predictions/{ids[0]}/save", json={"name": "scan.nii.gz"})
        assert again.json() == saved[0].json() == {"image": "images/scan.nii.gz", "label": "labels/scan.nii.gz"}
        taken = client.post(f"/api/predictions/{ids[1]}/save", json={"name": "P03_2"})
        assert (taken.status_code, taken.json()["error"]) == (
            409,
            "another image is saved as 'P03_2'; give another name",
        )
        dataset = open_dataset(out)
        found = {case.id: case.files[0] for case in dataset.cases}
        assert {id: file.id for id, file in found.items()} == {"scan": "scan", "frame": "frame", "P03": "P03_2"}
        assert (dataset.labels.names, dataset.labels.ids) == (classes.names, classes.ids)
        check_dataset(dataset).raise_on_errors()
        for case, id in zip(("scan", "frame", "P03"), ids, strict=True):
            file = found[case]
            image = read_volume(file.image)
            assert np.array_equal(read_labels(file, dataset, image).array, maps[id].array())
        assert np.array_equal(read_volume(out / "images" / "scan.nii.gz").array, read_volume(scan).array)
        assert np.allclose(nib.load(out / "labels" / "scan.nii.gz").affine, AFFINE)
        assert not [p for p in out.rglob(".*") if p.suffix == ".tmp"]
    with serve() as client:
        id = predicted(client, picture)["id"]
        assert client.post(f"/api/predictions/{id}/save", json={}).status_code == 409


def test_other_classes_and_other_data_sets_are_not_mixed_in(tmp_path: Path, data: Path, classes: LabelSet) -> None:
    with pytest.raises(UsageError, match=r"holds a data set without pairs\.csv"):
        CorrectedCases(shutil.copytree(data, tmp_path / "theirs"))
    picture = write_png(tmp_path / "a.png", rng.integers(0, 255, (9, 9), dtype=np.uint8))
    volume, channels = read_volume(picture), np.ones((9, 9, 1), np.uint8)
    CorrectedCases(tmp_path / "ours").save("a", "a", picture, volume, channels, classes)
    other = LabelSet(("background", "liver"), (0, 1))
    with pytest.raises(RequestError, match="are of the classes background, c1, c2, this run's are background, liver"):
        CorrectedCases(tmp_path / "ours").save("b", "b", picture, volume, channels, other)


_SAVER = """
import sys
from pathlib import Path
import numpy as np
from sampeft.io import read_volume
from sampeft.labels import LabelSet
from sampeft.viewer.corrected_cases import CorrectedCases
folder, picture = map(Path, sys.argv[1:])
cases, volume = CorrectedCases(folder), read_volume(picture)
labels = LabelSet(("background", "c1", "c2"), (0, 1, 2))
print("go", flush=True)
for n in range(10_000):
    cases.save(f"case{n}", f"case{n}", picture, volume, np.full(volume.grid, n % 3, np.uint8), labels)
"""


def test_a_kill_while_saving_leaves_whole_cases_only(tmp_path: Path) -> None:
    picture = write_png(tmp_path / "a.png", rng.integers(0, 255, (600, 500), dtype=np.uint8))
    out = tmp_path / "out"
    for round_ in range(3):
        saver = subprocess.Popen(
            [sys.executable, "-c", _SAVER, str(out), str(picture)], stdout=subprocess.PIPE, env={**os.environ}
        )
        assert saver.stdout is not None
        saver.stdout.readline()
        listed = 0
        until = time.monotonic() + 60
        while time.monotonic() < until and listed < 3 * (round_ + 1):
            listed = len((out / "pairs.csv").read_text().splitlines()) if (out / "pairs.csv").is_file() else 0
            time.sleep(0.003 * (round_ + 1))
        saver.send_signal(signal.SIGKILL)
        saver.wait()
        saver.stdout.close()
        dataset = open_dataset(out)
        assert len(dataset.cases) >= 2
        for case in dataset.cases:
            volume = read_volume(case.files[0].image)
            assert np.array_equal(volume.array, read_volume(picture).array)
            channels = read_labels(case.files[0], dataset, volume).array
            assert (channels == int(case.id.removeprefix("case")) % 3).all()
    (out / "images" / f".b.png.{'0' * 32}.tmp").write_bytes(b"half")
    CorrectedCases(out)
    assert not list(out.rglob("*.tmp"))
