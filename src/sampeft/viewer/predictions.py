"""Predictions of the page: class map, confidence, scores, and files made when they are asked for."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np

from sampeft.data.case import Dataset, ImageFile
from sampeft.data.ground_truth import read_labels
from sampeft.data.slices import SliceView
from sampeft.errors import SampeftError, is_full
from sampeft.io import geotiff, read_volume, write_array, write_atomically, write_map
from sampeft.io.dicom import Series
from sampeft.labels import LabelSet
from sampeft.metrics.protocols import PROTOCOLS
from sampeft.prediction.batch_size import Batch
from sampeft.prediction.outputs import output_stem
from sampeft.prediction.segmenter import Segmenter
from sampeft.prediction.sinks import Confidence
from sampeft.provenance import without_nan
from sampeft.viewer import pictures
from sampeft.viewer.corrections import ClassMap
from sampeft.viewer.errors import RequestError
from sampeft.viewer.jobs import DONE, Job
from sampeft.viewer.runs import Run
from sampeft.volume import Volume

_READ = 0.05  # share of the whole that reading takes
_NETWORK = 0.9


@dataclass(frozen=True)
class Source:
    """What is segmented. path: the file or series. case, file, dataset: where it is one of the data set's images."""

    path: Path
    case: str | None = None
    file: ImageFile | None = None
    dataset: Dataset | None = None


@dataclass(frozen=True)
class Geometry:
    """What stays in memory of an image: a Volume without its pixels."""

    like: Volume
    colours: bool
    plane: str

    @classmethod
    def of(cls, volume: Volume, view: SliceView) -> Geometry:
        nothing = np.broadcast_to(np.uint8(0), volume.grid)
        return cls(replace(volume, array=nothing), volume.array.ndim == 4, view.plane)

    @property
    def kind(self) -> str:
        """In what the result is written."""
        if isinstance(self.like.header, geotiff.MapHeader):
            return "geotiff"
        if self.like.is_raster:
            return "png"
        return "dicom" if isinstance(self.like.header, Series) else "nifti"


@dataclass(eq=False)
class Prediction:
    """folder: its own temporary one. asked_s: when a client last asked for it, by the monotonic clock."""

    id: str
    folder: Path
    run: Run
    source: Source
    job: Job = field(init=False)
    asked_s: float = field(default_factory=time.monotonic)
    map: ClassMap | None = None
    geometry: Geometry | None = None
    confidence: float | None = None
    worst: list[tuple[int, float]] = field(default_factory=list)
    _scores: tuple[int, dict[str, Any] | None] = field(default=(-1, None), repr=False)

    @property
    def labels(self) -> LabelSet:
        return self.run.labels

    @property
    def name(self) -> str:
        return output_stem(self.source.path)

    @property
    def has_truth(self) -> bool:
        """Whether there is a truth with the classes of the run."""
        dataset, file = self.source.dataset, self.source.file
        if dataset is None or file is None or file.label is None:
            return False
        return (dataset.labels.names, dataset.labels.ids) == (self.labels.names, self.labels.ids)

    def work(self, job: Job, segmenter: Segmenter, batch: Batch) -> None:
        """Segment; called by the worker's thread."""
        try:
            volume = read_volume(self.source.path)
            self.folder.mkdir(exist_ok=True)
            write_atomically(self.folder / "image.nii.gz", pictures.nifti_of(volume))
            if volume.is_raster:
                write_atomically(self.folder / "image.png", pictures.png_of(volume))
            job.report(_READ)

            def on_the_way(done: int, total: int) -> None:
                job.report(_READ + _NETWORK * done / total)

            made, confidence = segmenter.class_map(), Confidence(segmenter.labels)
            for _ in segmenter.predict_scenes([(segmenter.scene(volume), [made, confidence])], batch, on_the_way):
                pass
            write_array(self.folder / "channels.npy", made.on_own_grid())
            view = SliceView.of(volume, segmenter.preparation.plane)
            found = ClassMap(self.folder / "channels.npy", view, len(self.labels))
        except SampeftError as error:
            raise SampeftError(str(error).replace(f"{self.source.path.parent}/", "")) from None
        except OSError as error:
            if not is_full(error):
                raise
            raise SampeftError(
                f"the disk of the server's temporary folder {tempfile.gettempdir()} is full; free some space, or set TMPDIR to "
                "another folder and start the server anew"
            ) from None
        self.confidence, self.worst = confidence.mean, confidence.lowest_first()
        self.geometry, self.map = Geometry.of(volume, view), found

    def done(self) -> tuple[ClassMap, Geometry]:
        """Raises RequestError (409) while there is no class map."""
        if self.job.state != DONE or self.map is None or self.geometry is None:
            raise RequestError(HTTPStatus.CONFLICT, f"this prediction is {self.job.state}; there is no class map of it")
        return self.map, self.geometry

    def image(self, name: str) -> Path:
        """`image.nii.gz`, or `image.png` of a flat picture."""
        self.done()
        path = self.folder / name
        if not path.is_file():
            raise RequestError(HTTPStatus.NOT_FOUND, "this image is no flat picture; ask for image.nii.gz")
        return path

    def map_file(self) -> Path:
        """The class map as .nii.gz of ids, as it is now."""
        found, geometry = self.done()
        with found.lock:
            path = self.folder / f"map-{found.revision}.nii.gz"
            if not path.is_file():
                self._forget("map-*.nii.gz")
                write_atomically(path, pictures.map_nifti(found.array(), self.labels, geometry.like))
            return path

    def result(self) -> Path:
        """The class map in the image's own kind, as `sampeft predict` writes it."""
        found, _ = self.done()
        with found.lock:
            folder = self.folder / f"result-{found.revision}"
            there = list(folder.iterdir()) if folder.is_dir() else []
            if there:
                return there[0]
            volume = read_volume(self.source.path)
            return write_map(folder / self.name, np.array(found.array()), self.labels, volume)

    def scores(self) -> dict[str, Any] | None:
        """{class: {metric: value}} of the map as it is now against the truth, by protocol `default`; None without one."""
        found, geometry = self.done()
        dataset, file = self.source.dataset, self.source.file
        if not self.has_truth or dataset is None or file is None:
            return None
        with found.lock:
            if self._scores[0] != found.revision:
                revision = found.revision
                volume = read_volume(self.source.path)
                truth = read_labels(file, dataset, volume)
                score = PROTOCOLS["default"].score(
                    np.array(found.array(), dtype=np.int16),
                    truth.array,
                    geometry.like.spacing_mm,
                    self.labels,
                    "px" if geometry.like.is_raster else "mm",
                )
                self._scores = revision, scores_by_class(score, self.labels)
            return self._scores[1]

    def sizes(self) -> dict[str, int]:
        """Pixels of each foreground class."""
        found, _ = self.done()
        return {self.labels.names[k]: int(found.pixels[k]) for k in self.labels.foreground}

    def millilitres(self) -> dict[str, float] | None:
        """Of each foreground class; None where the image states no spacing."""
        _, geometry = self.done()
        if geometry.like.affine is None:
            return None
        voxel_ml = abs(float(np.linalg.det(geometry.like.affine[:3, :3]))) / 1000
        return {name: count * voxel_ml for name, count in self.sizes().items()}

    def _forget(self, pattern: str) -> None:
        """Remove what was made of older revisions but the last one, which somebody may be reading."""
        for path in sorted(self.folder.glob(pattern), key=lambda p: p.stat().st_mtime)[:-1]:
            path.unlink(missing_ok=True)


def scores_by_class(score: Any, labels: LabelSet) -> dict[str, Any]:
    """{class: {metric: value}} of a CaseScore; null stands for no score, "inf" for no distance."""
    from sampeft.metrics import METRICS, counted

    values = {name: of_counts(score.counts) for name, of_counts in counted().items()}
    values |= {name: found for name, found in score.measures.values.items() if name in METRICS}
    table = {
        labels.names[k]: {name: float(values[name][k]) for name in METRICS if name in values} for k in labels.foreground
    }
    return dict(without_nan(table))
