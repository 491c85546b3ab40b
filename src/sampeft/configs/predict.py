"""What `sampeft predict` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sampeft.options import MAX_BATCH, MAX_VIEWS, Batch, check_ranges, check_tile, number

POSITIONAL = {
    "run": {"type": Path, "help": "folder of a trained run; several (folds, seeds) segment by their mean"},
    "inputs": {
        "type": Path,
        "nargs": "+",
        "help": "image files, DICOM series folders, folders of either, or patterns such as 'scans/**/*.nii.gz'",
    },
}


@dataclass(frozen=True)
class Config:
    """What to segment with what.

    A case that is finished in --out, by this run with these settings, is left as it is; so a stopped or killed prediction
    goes on when the same command is given again. Several processes (torchrun, accelerate launch) share the cases.

    Args:
        out: folder for the label maps, predictions.json (what became of each case), cases.csv (the same as a table, those to
            look at first at the top), and classes.csv (id, name and colour of each class).
        series: which of several series, echoes or stacks of DICOM images to read: the number, or attributes and their values,
            such as SeriesDescription=T2*,EchoTime=30; nothing: there may be one only.
        weights: file of the backbone's weights; nothing: found by name.
        last: use the last model of the run instead of its best.
        batch: slices at a time, or auto: by the free memory; lower it when memory is short.
        engine: what runs the network: auto, torch, openvino or onnx. auto: OpenVINO on a processor where it is installed and
            computes the same, else torch; for images of under 16 MiB only when the graph is there.
        precision: numbers the engine computes with: f32, bf16 or int8.
        views: views of each slice whose predictions are averaged, moved, scaled and windowed, mirrored and turned ones where
            the run was trained on such; the network's time grows with them.
        refine: refiner of the class maps: components, crf, level-set, outline-points, or fitted: what `sampeft refine` kept
            in the run; nothing: none.
        refine_options: options of the refiner, such as --refine_options.smooth 2.
        probabilities: also write a map of each class's probability (0..1 in steps of 1/255) into `probabilities`.
        uncertainty: also write the entropy of each pixel (0: one class has all the probability, 1: all classes alike), and
            with views the share of them that see another class, into `uncertainty`.
        temperature: what logits are divided by for probabilities, entropy and confidence; `sampeft evaluate` fits one.
        volumes: also write volumes.csv: pixels and millilitres of each class in each case.
        tile: pixels of the side of the windows into which pictures and rasters are cut; auto: as the training pictures, by
            their size or by the ground; off: look at each in one piece.
        overlap: share of a window that the next one sees, too.
        gsd: metres on the ground of a pixel of the network's square; nothing: as the run says.
        vector: also write the outlines of pictures and rasters: geojson or gpkg (GeoPackage); nothing: none.
        min_area: smaller outlines are left out; square metres, or pixels without a place on the map.
        simplify: corners of outlines that stand out by less than so many pixels are left out.
        nifti: write NIfTI for DICOM images, too, instead of DICOM SEG.
        force: overwrite label maps that are already there.
        json: print the written files as one JSON object on stdout.
    """

    run: Path
    inputs: list[Path]
    out: Path
    series: str | None = None
    weights: str | None = None
    last: bool = False
    batch: Batch = number("auto", 1, MAX_BATCH)
    engine: str = "auto"
    precision: str = "f32"
    views: int = number(1, 1, MAX_VIEWS)
    refine: str | None = None
    refine_options: dict[str, Any] = field(default_factory=dict)
    probabilities: bool = False
    uncertainty: bool = False
    temperature: float = number(1.0, 0, 100, above=True)
    volumes: bool = False
    tile: str = "auto"
    overlap: float = number(0.25, 0, 0.75)
    gsd: float | None = number(None, 0, 1_000_000, above=True)
    vector: Literal["geojson", "gpkg"] | None = None
    min_area: float = number(0.0, 0)
    simplify: float = number(0.0, 0, 1000)
    nifti: bool = False
    force: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        check_tile(self.tile)
