"""POST an image, GET how far it is and its files, DELETE it; prompts, corrections and saving."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import FileResponse

from sampeft.io import read_volume
from sampeft.metrics.protocols import PROTOCOLS
from sampeft.viewer.corrections import mask_of, run_lengths
from sampeft.viewer.errors import RequestError
from sampeft.viewer.predictions import Prediction
from sampeft.viewer.responses import TheNote, TheService, faults, file_response, prediction_body, sent
from sampeft.viewer.schemas import (
    Correction,
    CorrectionAnswer,
    Mask,
    PredictionBody,
    Prompt,
    PromptAnswer,
    Save,
    Saved,
    ScoresBody,
)

router = APIRouter(prefix="/api/predictions")
_KINDS = ("application/gzip", "image/png", "image/tiff", "application/dicom")
_GONE = "no such prediction, or its time is over"
_NOT_DONE = "the prediction has not ended well, so that there is no class map"


@router.post(
    "",
    status_code=202,
    responses=faults(
        s400="no form",
        s404="no such run, case or image",
        s413="more than the server takes",
        s415="no image",
        s429="the queue is full",
        s507="the disk is full",
    ),
    tags=["predictions"],
)
def predict(
    service: TheService,
    note: TheNote,
    run: Annotated[str, Form(description="id of a run")],
    file: Annotated[UploadFile | None, File(description="an image, or a zip with a DICOM series")] = None,
    case: Annotated[str | None, Form(description="a case of the data set instead of a file")] = None,
    image: Annotated[str | None, Form(description="which of its images, where it has several")] = None,
) -> PredictionBody:
    """Segment an image that is sent, or one of the data set. The answer's id is all that gives access to it."""
    if (file is None) == (case is None):
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "send either a file or the id of a case")
    if file is not None:
        found = service.predict_upload(run, file.file, file.filename or "image")
    else:
        found = service.predict_case(run, case or "", image)
    note("predicted", **_which(found), run=run)
    return prediction_body(found, service)


@router.get("", responses=faults(), tags=["predictions"])
def of_ids(
    service: TheService,
    ids: Annotated[list[str], Query(max_length=200, description="of predictions")] = [],  # noqa: B006
) -> list[PredictionBody]:
    """Predictions by their ids, unknown ones left out: those to look at first come first. That is, failed ones, those
    without any foreground, then by rising confidence; what has not ended comes last."""
    return sorted((prediction_body(found, service) for found in service.known(ids)), key=_to_review)


@router.get("/{id}", responses=faults(s404=_GONE), tags=["predictions"])
def prediction(id: str, service: TheService) -> PredictionBody:
    """How far it is; when done, its geometry, volumes and confidence, with the least confident slices first."""
    return prediction_body(service.prediction(id), service)


@router.delete("/{id}", status_code=204, responses=faults(s404=_GONE), tags=["predictions"])
def end(id: str, service: TheService, note: TheNote) -> None:
    """Cancel it while it waits or runs; afterwards remove it with its files."""
    found = service.prediction(id)
    service.end(id)
    note("removed", **_which(found))


@router.get(
    "/{id}/files/{kind}",
    responses={**faults(s404=_GONE, s409=_NOT_DONE), **file_response(*_KINDS)},
    response_class=FileResponse,
    tags=["predictions"],
)
def file(
    id: str, kind: Literal["result", "map.nii.gz", "image.nii.gz", "image.png"], service: TheService, note: TheNote
) -> FileResponse:
    """`result`: the class map in the image's own kind (NIfTI, DICOM SEG, PNG, GeoTIFF). The others are for a viewer."""
    found = service.prediction(id)
    if kind == "result":
        with service.heavy:
            path = found.result()
        name = path.name
    elif kind == "map.nii.gz":
        with service.heavy:
            path, name = found.map_file(), f"{found.name}_map.nii.gz"
    else:
        path, name = found.image(kind), f"{found.name}.{kind.removeprefix('image.')}"
    note("looked at", **_which(found), file=kind)
    return sent(path, name)


@router.get("/{id}/scores", responses=faults(s404=_GONE, s409=_NOT_DONE), tags=["predictions"])
def scores(id: str, service: TheService, note: TheNote) -> ScoresBody:
    """Scores of each class against the truth of the data set, of the class map as it is now."""
    found = service.prediction(id)
    with service.heavy:
        classes = found.scores()
    if classes is None:
        raise RequestError(HTTPStatus.NOT_FOUND, "there is no truth with this run's classes for this image")
    note("looked at", **_which(found), file="scores")
    return ScoresBody(protocol="default", policy=PROTOCOLS["default"].about, classes=classes)


@router.post("/{id}/prompt", responses=faults(s404=_GONE, s409=_NOT_DONE), tags=["corrections"])
def prompt(id: str, body: Prompt, service: TheService, note: TheNote) -> PromptAnswer:
    """Boxes and points on a slice to a mask. The slice is encoded at the first prompt; the next ones are fast."""
    found = service.prediction(id)
    _, geometry = found.done()
    if body.plane not in (None, geometry.plane):
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"the model's slices are {geometry.plane}, not {str(body.plane)[:20]}"
        )
    _channel(found, body.label)
    mask_HW, milliseconds = service.prompts.mask(
        found, service.segmenter(found), body.slice, body.boxes, body.points, body.adapted
    )
    height, width = mask_HW.shape
    note("segmented", **_which(found), slice=body.slice, label=body.label)
    return PromptAnswer(
        slice=body.slice,
        label=body.label,
        mask=Mask(size=(height, width), counts=run_lengths(mask_HW)),
        pixels=int(mask_HW.sum()),
        milliseconds=milliseconds,
    )


@router.post("/{id}/corrections", responses=faults(s404=_GONE, s409=_NOT_DONE), tags=["corrections"])
def correct(id: str, body: Correction, service: TheService, note: TheNote) -> CorrectionAnswer:
    """Put a mask into the class map."""
    found = service.prediction(id)
    map, _ = found.done()
    channel = _channel(found, body.label)
    if body.slice >= map.slices:
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"the image has slices 0..{map.slices - 1}, not {body.slice}"
        )
    mask_HW = mask_of(body.mask.size, body.mask.counts, map.size())
    changed = map.draw(body.slice, mask_HW, channel, body.over)
    note("corrected", **_which(found), slice=body.slice, label=body.label, pixels=changed)
    return _corrected(found, body.slice, changed)


@router.delete(
    "/{id}/corrections/last", responses=faults(s404=_GONE, s409="nothing to take back"), tags=["corrections"]
)
def undo(id: str, service: TheService, note: TheNote) -> CorrectionAnswer:
    """Take the last correction back."""
    found = service.prediction(id)
    map, _ = found.done()
    s, changed = map.undo()
    note("took a correction back", **_which(found), slice=s, pixels=changed)
    return _corrected(found, s, changed)


@router.post(
    "/{id}/save",
    status_code=201,
    responses=faults(s404=_GONE, s409="not done, no --corrections, or the name is taken", s507="the disk is full"),
    tags=["corrections"],
)
def save(id: str, body: Save, service: TheService, note: TheNote) -> Saved:
    """Write the image and its corrected labels as a case of the data set in the folder of --corrections."""
    found = service.prediction(id)
    map, geometry = found.done()
    if service.corrected is None:
        raise RequestError(HTTPStatus.CONFLICT, "start the server with --corrections DIR to save corrected cases")
    if geometry.colours and not geometry.like.is_raster:
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "stacks of colour slices cannot be saved as a case")
    with service.heavy, map.lock:
        image = found.source.path
        if not geometry.like.is_raster and not (image.is_file() and image.name.lower().endswith((".nii", ".nii.gz"))):
            image = found.image("image.nii.gz")
        volume = read_volume(image)
        name = body.name or found.name
        case = found.source.case or name
        paths = service.corrected.save(name, case, image, volume, np.array(map.array()), found.labels)
    note("saved", **_which(found), files=list(paths))
    return Saved(image=paths[0], label=paths[1])


def _which(prediction: Prediction) -> dict[str, str | None]:
    """A prediction as the audit log names it."""
    file = prediction.source.file
    return {"prediction": prediction.id, "case": prediction.source.case, "image": file.id if file else prediction.name}


def _channel(prediction: Prediction, label: str) -> int:
    names = prediction.labels.names
    if label not in names:
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"no class '{label[:80]}'; the classes are {', '.join(names)}"
        )
    return names.index(label)


def _corrected(prediction: Prediction, s: int, changed: int) -> CorrectionAnswer:
    map, _ = prediction.done()
    return CorrectionAnswer(
        slice=s,
        changed=changed,
        revision=map.revision,
        corrections=map.steps,
        pixels=prediction.sizes(),
        ml=prediction.millilitres(),
    )


def _to_review(body: PredictionBody) -> tuple[int, float]:
    if body.state == "failed":
        return 0, 0.0
    if body.result is None:
        return 2, 0.0
    return 1, -1.0 if body.result.confidence is None else body.result.confidence
