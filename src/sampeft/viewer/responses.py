"""Answers of the routes from the service's objects, and what routes share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request
from fastapi.responses import FileResponse

from sampeft.labels import LabelSet
from sampeft.viewer.evaluations import Evaluations
from sampeft.viewer.jobs import DONE
from sampeft.viewer.predictions import Prediction
from sampeft.viewer.runs import Run
from sampeft.viewer.schemas import Fault, Label, PredictionBody, ResultBody, RunBody, SliceConfidence
from sampeft.viewer.service import Service

_TYPES = {".gz": "application/gzip", ".png": "image/png", ".tif": "image/tiff", ".dcm": "application/dicom"}


def service_of(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


TheService = Annotated[Service, Depends(service_of)]
"""What a route takes to get at everything."""


class Note(Protocol):
    """Writes what the one who asks did into the audit log, if there is one, as `Audit.note` does."""

    def __call__(self, did: str, **what: Any) -> None: ...


def note_of(request: Request) -> Note:
    address = request.client.host if request.client else ""
    forwarded = request.headers.get("x-forwarded-for")  # by a proxy; anybody may write it, so it is kept apart
    return partial(service_of(request).audit.note, address, forwarded_for=forwarded[:200] if forwarded else None)


TheNote = Annotated[Note, Depends(note_of)]


def faults(**statuses: str) -> dict[int | str, dict[str, Any]]:
    """`faults(s404="no such run")`: the refusals of a route, for its documentation; all have `{"error": sentence}`."""
    common = {"s401": "without the token", "s403": "asked by another host or page", "s422": "a wrong value, named"}
    return {int(name[1:]): {"model": Fault, "description": why} for name, why in {**common, **statuses}.items()}


def file_response(*types: str) -> dict[int | str, dict[str, Any]]:
    """A file as the answer, for the documentation of a route."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in types}
    return {200: {"content": content, "description": "the file"}}


def sent(path: Path, name: str) -> FileResponse:
    """A file of the server, to be saved under a name."""
    return FileResponse(path, media_type=_TYPES.get(path.suffix, "application/octet-stream"), filename=name)


def labels_body(labels: LabelSet) -> list[Label]:
    return [
        Label(name=name, id=id, color=color, foreground=k in labels.foreground)
        for k, (name, id, color) in enumerate(zip(labels.names, labels.ids, labels.colors, strict=True))
    ]


def run_body(run: Run, evaluations: Evaluations) -> RunBody:
    known = evaluations.of_run[run.id]
    return RunBody(
        id=run.id,
        model=run.model,
        backbone=run.description["backbone"],
        method=run.description["method"],
        options=run.description["options"],
        side=run.description["preparation"]["side"],
        plane=run.description["preparation"].get("plane", "auto"),
        random_weights=run.has_random_weights,
        labels=labels_body(run.labels),
        evaluations=known,
        headline=evaluations[known[0]].to_json()["headline"] if known else None,
    )


def prediction_body(prediction: Prediction, service: Service) -> PredictionBody:
    job = prediction.job
    file = prediction.source.file
    return PredictionBody(
        id=prediction.id,
        run=prediction.run.id,
        name=prediction.name,
        case=prediction.source.case,
        image=file.id if file else None,
        state=job.state,
        progress=job.progress,
        eta_s=job.eta_s,
        waiting_before=service.worker.ahead_of(job),
        message=job.message,
        result=result_body(prediction) if job.state == DONE else None,
    )


def result_body(prediction: Prediction) -> ResultBody:
    found, geometry = prediction.done()
    like = geometry.like
    return ResultBody(
        kind=geometry.kind,
        flat=like.is_raster,
        shape=like.grid,
        spacing_mm=None if like.is_raster else like.spacing_mm,
        plane=geometry.plane,
        axes=found.view.axes,
        backwards=found.view.backwards,
        slices=found.slices,
        slice_size=found.size(),
        confidence=prediction.confidence,
        worst_slices=[SliceConfidence(slice=s, confidence=c) for s, c in prediction.worst],
        pixels=prediction.sizes(),
        ml=prediction.millilitres(),
        has_truth=prediction.has_truth,
        revision=found.revision,
        corrections=found.steps,
    )
