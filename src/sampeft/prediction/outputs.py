"""The files of a predicted image: class map, maps of probabilities and uncertainty, outlines and areas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import UsageError
from sampeft.io import file_stem, geotiff, portable_name, sha256, write_map
from sampeft.io.areas import class_areas, write_class_areas
from sampeft.io.raster_windows import Content, Ids, MapWriter, Shares
from sampeft.io.vector import write_areas
from sampeft.labels import LabelSet
from sampeft.peft.run_files import tensors_file
from sampeft.prediction.bands import Band
from sampeft.prediction.batch_size import Batch
from sampeft.prediction.scene import Scene, SliceScene, TiledScene
from sampeft.prediction.share_maps import PROBABILITIES, UNCERTAINTY, KeptShareMaps, ShareMaps, map_path
from sampeft.prediction.sinks import ClassMap, Confidence, Sink
from sampeft.prediction.tiling import RasterOptions

if TYPE_CHECKING:
    from sampeft.prediction.segmenter import Segmenter


@dataclass(frozen=True)
class Job:
    """What is wanted of every case.

    probabilities, uncertainty: also write these maps. temperature: of the probabilities. nifti: NIfTI for DICOM, too.
    rasters: how pictures and rasters are looked at, and outlines and areas of them.
    """

    out: Path
    batch: Batch = "auto"
    probabilities: bool = False
    uncertainty: bool = False
    temperature: float = 1.0
    nifti: bool = False
    rasters: RasterOptions = field(default_factory=RasterOptions)

    def __post_init__(self) -> None:
        if not 0.01 <= self.temperature <= 100:
            raise UsageError(
                f"--temperature is {self.temperature:g}; give a number of 0.01..100, 1 for the logits as trained"
            )

    def settings(self, segmenter: Segmenter, folders: Sequence[Path]) -> dict[str, Any]:
        """All that the written files depend on beside the image; cases of other settings are not mixed in a folder.

        folders: of the runs.
        """
        refiner = segmenter.refiner
        digests = [sha256(tensors_file(folder)) for folder in folders]
        fitted = {"least_share": segmenter.least_share} if segmenter.least_share else {}
        return {
            **fitted,
            "adapter_sha256": digests[0] if len(digests) == 1 else digests,
            "weights_sha256": segmenter.description["weights_sha256"],
            "engine": segmenter.engine.name if segmenter.engine else "torch",
            "views": segmenter.views,
            "refiner": {"name": refiner.name, **asdict(refiner)} if refiner else None,
            "temperature": self.temperature,
            PROBABILITIES: self.probabilities,
            UNCERTAINTY: self.uncertainty,
            "nifti": self.nifti,
            "rasters": asdict(self.rasters),
        }


def output_stem(image: Path) -> str:
    """Name of the label map of an image; the channel number of nnU-Net's and FLARE's names is left out, as they do, and a
    name that Windows would not take is changed."""
    return portable_name(file_stem(image).removesuffix("_0000"))


class Output(ABC):
    """What looks at the prediction of an image, and the files that come of it. Each of them is there whole or not at all; what is
    unfinished when the block is left is removed."""

    def __init__(self, scene: Scene, stem: str, job: Job, segmenter: Segmenter) -> None:
        self.scene, self.stem, self.job, self.labels = scene, stem, job, segmenter.labels
        self.confidence = Confidence(segmenter.labels)

    @property
    @abstractmethod
    def sinks(self) -> Sequence[Sink]:
        """Who looks; the maps first, whose probabilities the confidence then has for nothing."""

    @abstractmethod
    def write(self) -> tuple[Path, dict[str, Any]]:
        """When all is predicted: (file of the class map, what is known of the case). Raises OSError."""

    @abstractmethod
    def close(self) -> None:
        """Drop what is unfinished."""

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _beside(self, map: Path) -> bool:
        """Write outlines and areas where they are asked for; whether any was."""
        rasters = self.job.rasters
        if rasters.vector:
            outlines = map.with_name(f"{self.stem}.{rasters.vector}")
            write_areas(map, outlines, self.labels, rasters.vector, rasters.min_area, rasters.simplify)
        if rasters.areas:
            write_class_areas(map, map.with_name(f"{self.stem}_areas.csv"), self.labels)
        return bool(rasters.vector or rasters.areas)

    def _areas(self, map: Path) -> dict[str, Any]:
        """Pixels and square metres of each class of a written map."""
        areas = class_areas(map, self.labels)
        return {
            "pixels": {area.name: area.pixels for area in areas},
            "m2": {area.name: area.square_metres for area in areas},
        }


class VolumeOutput(Output):
    """Of a volume or picture that is in memory; its class map is, too."""

    def __init__(self, scene: SliceScene, stem: str, job: Job, segmenter: Segmenter) -> None:
        super().__init__(scene, stem, job, segmenter)
        self._volume = scene.prepared.volume
        self._map = segmenter.class_map()
        self._shares = KeptShareMaps(self.labels, job.probabilities, job.uncertainty, segmenter.views, job.out)

    @property
    def sinks(self) -> Sequence[Sink]:
        return self._map, self._shares, self.confidence

    def write(self) -> tuple[Path, dict[str, Any]]:
        volume, channels, names = self._volume, self._map.on_own_grid(), self.labels.names
        target = write_map(self.job.out / self.stem, channels, self.labels, volume, self.job.nifti)
        self._shares.write(self.job.out, self.stem, volume)
        counts = sum(np.bincount(part.ravel(), minlength=len(names)) for part in channels)
        assert isinstance(counts, np.ndarray)
        pixels = dict(zip(names, map(int, counts), strict=True))
        facts: dict[str, Any] = {
            "shape": list(volume.grid),
            "confidence": self.confidence.mean,
            "pixels": pixels,
            "warnings": list(self.scene.warnings),
        }
        if volume.affine is not None:
            voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
            facts["spacing_mm"] = list(volume.spacing_mm)
            facts["ml"] = {name: count * voxel_ml for name, count in pixels.items()}
        elif self._beside(target):
            facts |= self._areas(target)
        return target, facts

    def close(self) -> None:
        self._shares.close()


class RasterOutput(Output):
    """Of a raster that is cut into windows: files grow while it is predicted, so that it may be larger than the memory. A refiner
    gets the whole class map."""

    def __init__(self, scene: TiledScene, stem: str, job: Job, segmenter: Segmenter) -> None:
        super().__init__(scene, stem, job, segmenter)
        self._scene, self._stack = scene, ExitStack()
        self._map: ClassMap | _MapFile = segmenter.class_map()
        if not segmenter.refiner:
            self._map = _MapFile(scene, job.out / stem, self.labels, self._stack)
        self._shares = _ShareFiles(scene, stem, job, segmenter, self._stack)

    @property
    def sinks(self) -> Sequence[Sink]:
        return self._map, self._shares, self.confidence

    def write(self) -> tuple[Path, dict[str, Any]]:
        self._shares.finish()
        if isinstance(self._map, ClassMap):
            whole = _MapFile(self._scene, self.job.out / self.stem, self.labels, self._stack)
            assert self._map.missing_SHW is not None
            whole.append(self._map.channels_SHW[0], self._map.missing_SHW[0])
            self._map = whole
        target = self._map.finish()  # last: where it is, its other maps are
        self._beside(target)
        return target, {
            "window": self._scene.window,
            "confidence": self.confidence.mean,
            "warnings": list(self.scene.warnings),
            **self._areas(target),
        }

    def close(self) -> None:
        self._stack.close()


class _Rows:
    """A file of whole rows of a raster, which are put together from bands. The file is opened for its first one, when it is known
    where the raster lies."""

    def __init__(self, scene: TiledScene, stem: Path, content: Content, stack: ExitStack) -> None:
        self._scene, self._stem, self._content, self._stack = scene, stem, content, stack
        self._writer: MapWriter | None = None
        self._rows: npt.NDArray[Any] | None = None

    def put(self, band: Band, values_nw: npt.NDArray[Any]) -> None:
        width = self._scene.size[1]
        if self._rows is None:
            self._rows = np.empty((len(values_nw), width), dtype=self._content.dtype)
        self._rows[:, band.columns] = values_nw
        if band.columns.stop == width:
            self.append(self._rows)
            self._rows = None

    def append(self, rows_nW: npt.NDArray[Any]) -> None:
        if self._writer is None:
            source = self._scene.source
            assert source is not None, "a raster has rows when it was opened"
            path = self._stem.with_name(self._stem.name + (".png" if source.header is None else ".tif"))
            self._writer = self._stack.enter_context(MapWriter(path, source, self._content))
        self._writer.append(rows_nW)

    def finish(self) -> Path:
        assert self._writer is not None, "every raster has rows"
        self._writer.finish()
        return self._writer.path


class _MapFile(Sink):
    """The class map, written while it is made."""

    def __init__(self, scene: TiledScene, stem: Path, labels: LabelSet, stack: ExitStack) -> None:
        self.labels, self._rows = labels, _Rows(scene, stem, Ids(labels), stack)

    def see(self, band: Band) -> None:
        assert band.missing_nw is not None
        self._rows.put(band, self._ids(band.channels_nw, band.missing_nw))

    def append(self, channels_nW: npt.NDArray[np.uint8], missing_nW: npt.NDArray[np.bool_]) -> None:
        self._rows.append(self._ids(channels_nW, missing_nW))

    def finish(self) -> Path:
        return self._rows.finish()

    def _ids(self, channels: npt.NDArray[np.uint8], missing: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        return geotiff.without_measurement(self.labels.to_ids(channels), missing, self.labels)


class _ShareFiles(ShareMaps):
    """Written while they are made; 0 where nothing was measured. Memory: a byte for each map and pixel, of a GeoTIFF of the rows
    of its tiles, of a picture of the whole."""

    def __init__(self, scene: TiledScene, stem: str, job: Job, segmenter: Segmenter, stack: ExitStack) -> None:
        super().__init__(segmenter.labels, job.probabilities, job.uncertainty, segmenter.views)
        self._files = {name: _Rows(scene, map_path(job.out, stem, name), Shares(), stack) for name in self.names}

    def put(self, name: str, band: Band, shares_nw: npt.NDArray[np.uint8]) -> None:
        assert band.missing_nw is not None
        self._files[name].put(band, np.where(band.missing_nw, 0, shares_nw))

    def finish(self) -> None:
        for file in self._files.values():
            file.finish()


def output_of(scene: Scene, image: Path, job: Job, segmenter: Segmenter) -> Output:
    if isinstance(scene, TiledScene):
        return RasterOutput(scene, output_stem(image), job, segmenter)
    assert isinstance(scene, SliceScene)
    return VolumeOutput(scene, output_stem(image), job, segmenter)
