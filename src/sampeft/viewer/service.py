"""Everything that requests are answered from: runs, data set, evaluations, predictions and their worker."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from functools import lru_cache, partial
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from sampeft.data import open_dataset
from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.ground_truth import read_labels
from sampeft.errors import UsageError
from sampeft.io import read_volume, write_atomically
from sampeft.prediction.segmenter import Segmenter
from sampeft.viewer import pictures, uploads
from sampeft.viewer.audit import Audit
from sampeft.viewer.corrected_cases import CorrectedCases
from sampeft.viewer.errors import RequestError, not_found
from sampeft.viewer.evaluations import Evaluations
from sampeft.viewer.jobs import QUEUED, RUNNING, Job, Worker
from sampeft.viewer.predictions import Prediction, Source
from sampeft.viewer.prompts import Prompts
from sampeft.viewer.runs import Runs
from sampeft.viewer.settings import Settings
from sampeft.viewer.workspace import Workspace

_SWEEP_S = 20.0
_MOST_UNPACKED = 4  # uploads that are copied or unpacked at a time


class Service:
    """Opened at the start of the server and closed at its end, when all its temporary files go.

    Raises SampeftError for a folder that is not what it should be. above: where the temporary folder is made.
    """

    def __init__(self, settings: Settings, above: Path | None = None) -> None:
        self.settings = settings
        self.runs = Runs(settings.runs, settings.weights, settings.engine)
        self.dataset: Dataset | None = open_dataset(settings.data, settings.layout) if settings.data else None
        self.evaluations = Evaluations(settings.evals, self.runs.by_id)
        self.corrected = CorrectedCases(settings.corrections) if settings.corrections else None
        if not (self.runs.by_id or self.dataset or self.evaluations.by_id):
            raise UsageError("nothing to show; give trained runs, --data or --evals")
        self.audit = Audit(settings.audit)
        self.prompts = Prompts()
        self.workspace = Workspace(above)
        self._predictions: dict[str, Prediction] = {}
        self._lock = threading.Lock()
        self._unpacking = threading.BoundedSemaphore(_MOST_UNPACKED)
        self.heavy = threading.Lock()  # held where a whole image is read for a request, so that memory stays bounded
        self._read = lru_cache(1)(read_volume)  # a view asks for an image and then for its truth on the image's grid
        self.worker = Worker(settings.max_waiting)
        self._closing = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="sweeping", daemon=True)
        self._sweeper.start()

    def close(self) -> None:
        """Stop the worker and remove the temporary files; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self.worker.close()
        self._sweeper.join(1)
        self.workspace.close()
        self.audit.close()

    def cases(self, split: str | None = None) -> Sequence[tuple[Case, list[str]]]:
        """Cases with the names of the splits they are in. Raises RequestError (404) for an unknown split."""
        if self.dataset is None:
            return []
        if split is not None and split not in self.dataset.splits:
            raise not_found("split", split)
        of_case = {
            case.id: [n for n, ids in self.dataset.splits.items() if case.id in ids] for case in self.dataset.cases
        }
        return [(case, of_case[case.id]) for case in self.dataset.cases if split is None or split in of_case[case.id]]

    def image_of(self, case: str, image: str | None) -> tuple[Dataset, ImageFile]:
        """An image of a case, its only one when not named. Raises RequestError (404, 422)."""
        found = next((c for c, _ in self.cases() if c.id == case), None)
        if self.dataset is None or found is None:
            raise not_found("case", case)
        if image is None:
            if len(found.files) > 1:
                raise RequestError(
                    HTTPStatus.UNPROCESSABLE_ENTITY, f"case '{case}' has {len(found.files)} images; name one of them"
                )
            return self.dataset, found.files[0]
        file = next((f for f in found.files if f.id == image), None)
        if file is None:
            raise not_found("image", image)
        return self.dataset, file

    def case_file(self, case: str, image: str, kind: str) -> Path:
        """`image.nii.gz`, `image.png` or `truth.nii.gz` of an image of the data set; made once and kept for a while."""
        dataset, file = self.image_of(case, image)
        if kind == "truth.nii.gz" and file.label is None:
            raise RequestError(HTTPStatus.NOT_FOUND, f"image '{file.id}' has no labels")
        folder = self.workspace.folder / "cases"
        path = folder / f"{sha256(file.id.encode()).hexdigest()[:24]}-{kind}"
        with self.heavy:
            if not path.is_file():
                volume = self._read(file.image)
                if kind == "truth.nii.gz":
                    content = pictures.map_nifti(read_labels(file, dataset, volume).array, dataset.labels, volume)
                elif kind == "image.nii.gz":
                    content = pictures.nifti_of(volume)
                elif volume.is_raster:
                    content = pictures.png_of(volume)
                else:
                    raise RequestError(HTTPStatus.NOT_FOUND, "this image is no flat picture; ask for image.nii.gz")
                folder.mkdir(exist_ok=True)
                write_atomically(path, content)
            path.touch()
        return path

    def predict_upload(self, run: str, source: BinaryIO, name: str) -> Prediction:
        """Take an image that a client sent and put its segmentation into the queue. Raises RequestError."""
        self.runs[run]
        self.worker.check_room()
        id, folder = self._new()
        try:
            with self._unpacking:
                path = uploads.receive(source, name, folder / "upload", self.settings.max_upload_bytes)
            return self._begin(id, folder, run, Source(path))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def predict_case(self, run: str, case: str, image: str | None) -> Prediction:
        """Put the segmentation of an image of the data set into the queue. Raises RequestError."""
        self.runs[run]
        dataset, file = self.image_of(case, image)
        id, folder = self._new()
        try:
            return self._begin(id, folder, run, Source(file.image, case, file, dataset))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def prediction(self, id: str) -> Prediction:
        """Raises RequestError (404) for an id that nobody was given, or whose time is over."""
        with self._lock:
            found = self._predictions.get(id)
            if found is None:
                raise not_found("prediction", id)
            found.asked_s = time.monotonic()
            return found

    def known(self, ids: Sequence[str]) -> list[Prediction]:
        """Those of the ids that are there, each once."""
        with self._lock:
            there = [id for id in dict.fromkeys(ids) if id in self._predictions]
        return [self.prediction(id) for id in there]

    def end(self, id: str) -> None:
        """Cancel a prediction that waits or runs; remove one that has ended, with its files."""
        found = self.prediction(id)
        if found.job.state in (QUEUED, RUNNING):
            self.worker.cancel(found.job)
        else:
            self._remove(found)

    def segmenter(self, prediction: Prediction) -> Segmenter:
        return self.runs.segmenter(prediction.run.id)

    def _new(self) -> tuple[str, Path]:
        """An id of 128 random bits, which is all that gives access, and its folder."""
        id = secrets.token_hex(16)
        folder = self.workspace.folder / "predictions" / id
        folder.mkdir(parents=True)
        return id, folder

    def _begin(self, id: str, folder: Path, run: str, source: Source) -> Prediction:
        prediction = Prediction(id, folder, self.runs[run], source)
        prediction.job = Job(partial(self._work, prediction))
        with self._lock:
            self.worker.submit(prediction.job)
            self._predictions[id] = prediction
        return prediction

    def _work(self, prediction: Prediction, job: Job) -> None:
        job.report(0.0, "loading the model")
        segmenter = self.segmenter(prediction)
        job.report(0.0, "segmenting")
        prediction.work(job, segmenter, self.settings.batch)

    def _remove(self, prediction: Prediction) -> None:
        with self._lock:
            self._predictions.pop(prediction.id, None)
        self.prompts.forget(prediction.id)
        shutil.rmtree(prediction.folder, ignore_errors=True)

    def sweep(self, later_s: float = 0.0) -> None:
        """Remove what nobody has asked for in `keep_minutes`. later_s: as if it were so much later."""
        limit_s = self.settings.keep_minutes * 60 - later_s
        with self._lock:
            old = [p for p in self._predictions.values() if time.monotonic() - p.asked_s > limit_s]
        for prediction in old:
            if prediction.job.state not in (QUEUED, RUNNING):
                self._remove(prediction)
        self._read.cache_clear()
        for path in (self.workspace.folder / "cases").glob("*"):
            if time.time() - path.stat().st_mtime > limit_s:
                path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        while not self._closing.wait(_SWEEP_S):
            self.sweep()
