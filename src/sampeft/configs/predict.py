"""What `sampeft predict` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sampeft.options import MAX_BATCH, MAX_VIEWS, RESULTS, Batch, check_ranges, check_tile, number

POSITIONAL = {
    "run": {
        "type": Path,
        "help": "folder of a trained run; more run folders (folds, seeds) may follow, whose mean is then used",
    },
    "inputs": {
        "type": Path,
        "nargs": "+",
        "help": "image files, DICOM series folders, folders of either, or patterns such as 'scans/**/*.nii.gz'",
    },
}


@dataclass(frozen=True)
class Config:
    """What to write, and how.

    Several processes (torchrun, accelerate launch) share the cases.

    Args:
        out: folder for the label maps, predictions.json (what became of each case), cases.csv (the same as a table,
            cases to review first at the top) and classes.csv (id, name and colour of each class). A case that is
            already there, made by this run with these options, is kept: after a stop the same command goes on.
        force: overwrite label maps that are already there; those of other settings only all together.
        volumes: also write volumes.csv: pixels and millilitres of each class in each case.
        probabilities: also write the probability map of each class (0..1 in steps of 1/255) into `probabilities`.
        uncertainty: also write the normalised entropy of each pixel (0: certain, 1: all classes equally likely)
            into `uncertainty`, and with --views the share of views that predict another class.
        vector: also write the outlines in pictures and rasters as polygons: geojson, or gpkg (GeoPackage). Default:
            none.
        min_area: leave out polygons smaller than this, in square metres, or in pixels where the picture has no
            place on the map.
        simplify: leave out corners of polygons that stand out by less than this, in pixels.
        series: which of several DICOM series, echoes or stacks to read: the series number, or DICOM attributes and their
            values, such as SeriesDescription=T2*,EchoTime=30. Default: there may be only one.
        nifti: write NIfTI for DICOM images, too, instead of DICOM SEG.
        refine: refiner of the predicted maps: components, crf, level-set, outline-points, or fitted: the one that
            `sampeft refine` chose for the run. Default: none.
        refine_options: options of the refiner, such as --refine_options.smooth 2.
        views: test-time augmentation: views of each slice (shifted, scaled, with other windows; mirrored and turned
            only where the run was trained on such) whose predictions are averaged; time grows with them, 1 switches
            it off.
        temperature: divisor of the logits for probabilities, entropy and confidence; `sampeft evaluate` fits one.
        tile: side in pixels of the windows into which pictures and rasters are cut; auto: by the size of the
            training pictures, or their resolution on the ground; off: each picture in one piece.
        overlap: overlap of neighbouring windows, as a share of their side.
        gsd: ground sampling distance of the network input, in metres a pixel. Default: that of the run.
        batch: batch size in slices; auto: by the free memory. Lower it when memory runs out.
        engine: what runs the network: auto, torch, openvino or onnx. auto: OpenVINO on a CPU where it is installed
            and gives the same result, else torch; for less than 16 MiB of images only when its graph has been built
            before.
        precision: number format of the engine: f32, bf16 or int8.
        last: use the run's last checkpoint instead of its best.
        weights: file of the backbone's weights. Default: found by the name of the run's backbone.
        json: print the written files as one JSON object on stdout.
    """

    run: Path
    inputs: list[Path]
    out: Path = field(metadata=RESULTS)
    force: bool = False
    volumes: bool = False
    probabilities: bool = False
    uncertainty: bool = False
    vector: Literal["geojson", "gpkg"] | None = None
    min_area: float = number(0.0, 0)
    simplify: float = number(0.0, 0, 1000)
    series: str | None = None
    nifti: bool = False
    refine: str | None = None
    refine_options: dict[str, Any] = field(default_factory=dict)
    views: int = number(1, 1, MAX_VIEWS)
    temperature: float = number(1.0, 0, 100, above=True)
    tile: str = "auto"
    overlap: float = number(0.25, 0, 0.75)
    gsd: float | None = number(None, 0, 1_000_000, above=True)
    batch: Batch = number("auto", 1, MAX_BATCH)
    engine: str = "auto"
    precision: str = "f32"
    last: bool = False
    weights: str | None = None
    json: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        check_tile(self.tile)
