"""GET: runs, cases of the data set with their images and truth, evaluations and comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse

from sampeft import __version__
from sampeft.viewer.errors import not_found
from sampeft.viewer.responses import TheNote, TheService, faults, file_response, labels_body, run_body, sent
from sampeft.viewer.schemas import AboutBody, CaseBody, CasesBody, EvaluationBody, EvaluationDetail, ImageBody, RunBody
from sampeft.viewer.security import REPORT_POLICY
from sampeft.viewer.settings import MIB

router = APIRouter(prefix="/api")
SOLID = Path(__file__).parent / "static" / "vendor" / "niivue.js"
"""What `make page` puts there."""


@router.get("/about", responses=faults(), tags=["server"])
def about(service: TheService) -> AboutBody:
    """What this server offers."""
    return AboutBody(
        version=__version__,
        data=service.dataset.name if service.dataset else None,
        saves=service.corrected is not None,
        max_upload_mib=service.settings.max_upload_bytes // MIB,
        solid=SOLID.is_file(),
    )


@router.get("/runs", responses=faults(), tags=["runs"])
def runs(service: TheService) -> list[RunBody]:
    """Trained runs with their classes and, where an evaluation lies beside, how good they are."""
    return [run_body(run, service.evaluations) for run in service.runs.by_id.values()]


@router.get("/runs/{run}", responses=faults(s404="no such run"), tags=["runs"])
def run(run: str, service: TheService) -> RunBody:
    """One trained run."""
    return run_body(service.runs[run], service.evaluations)


@router.get("/cases", responses=faults(s404="no data set, or no such split"), tags=["data set"])
def cases(service: TheService, split: str | None = None) -> CasesBody:
    """The cases of the data set, or of one of its splits."""
    dataset = service.dataset
    if dataset is None:
        raise not_found("data set", "start the server with --data")
    return CasesBody(
        name=dataset.name,
        modality=dataset.modality,
        labels=labels_body(dataset.labels),
        splits={name: len(ids) for name, ids in dataset.splits.items()},
        cases=[
            CaseBody(
                id=case.id,
                splits=splits,
                has_labels=all(file.label is not None for file in case.files),
                images=[ImageBody(id=file.id, has_labels=file.label is not None) for file in case.files],
            )
            for case, splits in service.cases(split)
        ],
    )


@router.get(
    "/cases/{case}/images/{image}/{kind}",
    responses={**faults(s404="no such image or file"), **file_response("application/gzip", "image/png")},
    response_class=FileResponse,
    tags=["data set"],
)
def case_file(
    case: str,
    image: str,
    kind: Literal["image.nii.gz", "image.png", "truth.nii.gz"],
    service: TheService,
    note: TheNote,
) -> FileResponse:
    """An image for a viewer: values as read, as NIfTI; a flat picture also as PNG. The truth holds ids."""
    path = service.case_file(case, image, kind)
    note("looked at", case=case, image=image, file=kind)
    return sent(path, kind)


@router.get("/evaluations", responses=faults(), tags=["evaluations"])
def evaluations(service: TheService) -> list[EvaluationBody]:
    """Evaluations given with --evals and those that lie in or beside a run."""
    return [EvaluationBody(**found.to_json()) for found in service.evaluations.by_id.values()]


@router.get("/evaluations/{evaluation}", responses=faults(s404="no such evaluation"), tags=["evaluations"])
def evaluation(evaluation: str, service: TheService, note: TheNote) -> EvaluationDetail:
    """One evaluation with each class's interval and the scores of every case."""
    found = service.evaluations[evaluation]
    by_case = service.evaluations.cases(evaluation)
    note("looked at", evaluations=[evaluation])
    return EvaluationDetail(**found.to_json(), classes=found.summary.get("classes", {}), by_case=by_case)


@router.get(
    "/evaluations/{evaluation}/report.html",
    responses={**faults(s404="no such evaluation, or no report of it"), **file_response("text/html")},
    response_class=FileResponse,
    tags=["evaluations"],
)
def report(evaluation: str, service: TheService, note: TheNote) -> FileResponse:
    """The report that `sampeft evaluate` wrote."""
    path = service.evaluations[evaluation].report
    if path is None:
        raise not_found("report of evaluation", evaluation)
    note("looked at", evaluations=[evaluation], file=path.name)
    return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/compare", responses=faults(s404="no such evaluation"), tags=["evaluations"])
def compare(
    ids: Annotated[list[str], Query(min_length=2, max_length=20, description="of evaluations of the same cases")],
    service: TheService,
    note: TheNote,
    metrics: Annotated[list[str], Query(max_length=14, description="such as dsc; nothing: DSC and NSD")] = [],  # noqa: B006
) -> dict[str, Any]:
    """Evaluations side by side: means with intervals, paired tests, ranks, and the cases, worst first."""
    found = service.evaluations.compared(ids, metrics)
    note("looked at", evaluations=ids)
    return found
