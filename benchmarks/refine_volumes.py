"""What each refiner changes in DSC, NSD and HD95 in millimetres on two real CT volumes that the run never saw.

    python benchmarks/refine_volumes.py RUN DATA FITTED --out DIR

RUN: trained on `btcv_slices`. DATA: folder `totalsegmentator_ct`. FITTED: refinement.json of `sampeft reproduce refinement`,
whose parameters were fitted on held-out patients of `btcv_slices`; a refiner that was not kept there is used with its defaults.

The 2-D training slices show the spine at the top, so the volumes are given with their y axis turned round. Their labels
are those of a model (silver standard); the duodenum, which the run does not know, counts as background, and the portal vein,
which the labels do not have, is left out of the comparison. Two cases: the intervals are wide, and say so.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from sampeft.data import open_dataset
from sampeft.data.case import Dataset
from sampeft.data.slice_cache import PreparedVolume
from sampeft.evaluation.score import predictor_of, score_cases
from sampeft.experiments.paper_refinement import change, change_text
from sampeft.io import read_volume
from sampeft.metrics import METRICS
from sampeft.metrics.scores import Evaluation
from sampeft.prediction.loading import load
from sampeft.prediction.segmenter import Segmenter
from sampeft.refine import REFINERS
from sampeft.report.tables import interval_text, markdown_table

CASES = {
    "case_a": ("case_a/ct.nii.gz", "case_a/labels_flare22.nii.gz"),
    "case_b": ("case_b_dicom/dicom", "case_b_dicom/labels_flare22.nii.gz"),
}
# FLARE22's ids -> names of btcv_slices.
NAMES = {
    1: "liver", 2: "kidney_right", 3: "spleen", 4: "pancreas", 5: "aorta", 6: "inferior_vena_cava",
    7: "adrenal_gland_right", 8: "adrenal_gland_left", 9: "gallbladder", 10: "esophagus", 11: "stomach", 13: "kidney_left",
}  # fmt: skip
SHOWN = ("dsc", "nsd", "hd95_mm")


def write_dataset(source: Path, labels: dict[str, Any], folder: Path) -> None:
    """The two volumes in the `folder` layout, with the run's ids and y turned round."""
    turned = np.diag([1.0, -1.0, 1.0, 1.0])
    for name, (image_path, label_path) in CASES.items():
        volume = read_volume(source / image_path)
        image = nib.as_closest_canonical(nib.Nifti1Image(volume.array, volume.affine))
        label = nib.as_closest_canonical(nib.load(source / label_path))
        ids = np.asarray(label.dataobj)
        if ids.shape != image.shape or not np.allclose(label.affine, image.affine, atol=1e-3):
            raise SystemExit(f"{name}: image and label are not on one grid")
        table = np.zeros(int(ids.max()) + 1, dtype=np.uint8)
        for id, organ in NAMES.items():
            if id < len(table):
                table[id] = labels["labels"][organ]
        affine = turned @ image.affine
        for part, array in (("images", np.asarray(image.dataobj)), ("labels", table[ids.astype(np.int64)])):
            (folder / part).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, affine), folder / part / f"{name}.nii.gz")
    content = {"labels": labels["labels"], "pairs": labels["pairs"], "modality": "CT"}
    (folder / "dataset.json").write_text(json.dumps(content))
    (folder / "test.txt").write_text("\n".join(CASES) + "\n")


def scored(segmenter: Segmenter, dataset: Dataset, name: str) -> Evaluation:
    portal = segmenter.labels.names.index("portal_vein_and_splenic_vein")

    predict_all = predictor_of(segmenter)

    def predict(prepared: PreparedVolume, truth_SHW: Any) -> Any:
        channels_SHW = predict_all(prepared, truth_SHW)
        return np.where(channels_SHW == portal, 0, channels_SHW).astype(np.uint8)

    meta = {"model": segmenter.name, "data": dataset.name, "split": "test", "oracle": False, "refiner": name}
    return score_cases(predict, dataset, dataset.cases, segmenter.preparation, meta)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("fitted", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    fitted = {name: found["fitted"] for name, found in json.loads(options.fitted.read_text())["refiners"].items()}
    labels = json.loads((options.run / "adapter.json").read_text())["label_map"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "totalsegmentator_ct"
        write_dataset(options.data, labels, folder)
        dataset = open_dataset(folder)
        found: dict[str, Evaluation] = {}
        for name in ("none", *REFINERS):
            given = {key: value for key, value in (fitted.get(name) or {}).items() if key != "name"}
            refiner = None if name == "none" else REFINERS[name](**given)
            segmenter = load(options.run, refiner=refiner)
            evaluation = scored(segmenter, dataset, name)
            evaluation.write(options.out / name)
            found[name] = evaluation
            print(name, asdict(refiner) if refiner else "", f"{evaluation.headline().mean:.4f}", flush=True)
    rows = []
    for name, evaluation in found.items():
        changes = [change(found["none"], evaluation, m) for m in SHOWN]
        cells = [change_text(*c) if name != "none" else "" for c in changes]
        rows.append(
            [name, interval_text(evaluation.headline()), *cells, str(sum(map(len, evaluation.missed().values())))]
        )
    header = ["refiner", "DSC", *(f"change of {METRICS[m].heading}" for m in SHOWN), "missed"]
    (options.out / "refine_volumes.md").write_text(markdown_table(header, rows))
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
