"""What requests carry and what answers say, as the interface documents it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Place = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False, description="in pixels of the slice")]
Inside = Annotated[int, Field(ge=0, le=1, description="1: belongs to it, 0: does not")]
SliceNumber = Annotated[int, Field(ge=0, le=1_000_000, description="of the model's slices, counted from 0")]
Count = Annotated[int, Field(ge=0, le=2**40)]


class Fault(BaseModel):
    """What is wrong, in one sentence."""

    error: str


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AboutBody(BaseModel):
    """What this server offers, so that a page shows no more."""

    version: str
    data: str | None = Field(description="name of the data set of --data")
    saves: bool = Field(description="whether corrected cases can be saved (--corrections)")
    max_upload_mib: int
    solid: bool = Field(description="whether the library of the 3-D view is there")


class Label(BaseModel):
    name: str
    id: int = Field(description="in label files")
    color: tuple[int, int, int] = Field(description="red, green, blue of 0..255")
    foreground: bool


class RunBody(BaseModel):
    id: str
    model: str = Field(description="what tables call it, such as `lite-medsam lora r=4, pixel head`")
    backbone: str
    method: str
    options: dict[str, Any]
    side: int = Field(description="pixels of the network's square")
    plane: str
    random_weights: bool
    labels: list[Label]
    evaluations: list[str] = Field(description="ids of the evaluations that lie in the run or beside it")
    headline: dict[str, Any] | None = Field(description="of the first of them: metric -> mean, low, high, n")


class ImageBody(BaseModel):
    id: str
    has_labels: bool


class CaseBody(BaseModel):
    id: str
    splits: list[str]
    has_labels: bool
    images: list[ImageBody]


class CasesBody(BaseModel):
    name: str
    modality: str
    labels: list[Label]
    splits: dict[str, int] = Field(description="cases of each split")
    cases: list[CaseBody]


class SliceConfidence(BaseModel):
    slice: int
    confidence: float


class ResultBody(BaseModel):
    kind: str = Field(description="of the file at `result`: nifti, dicom, png or geotiff")
    flat: bool = Field(description="a picture, whose image is also there as PNG")
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None
    plane: str = Field(description="of the model's slices: axial, coronal, sagittal, or picture")
    axes: tuple[int, int, int] = Field(description="array axes of slices, rows and columns")
    backwards: tuple[bool, bool, bool] = Field(description="whether each of them runs against the array's axis")
    slices: int
    slice_size: tuple[int, int] = Field(description="rows and columns of a slice")
    confidence: float | None = Field(description="mean probability of the class shown, over the foreground")
    worst_slices: list[SliceConfidence] = Field(description="slices with foreground, the least confident one first")
    pixels: dict[str, int]
    ml: dict[str, float] | None
    has_truth: bool
    revision: int = Field(description="grows with every correction")
    corrections: int = Field(description="how many can be taken back")


class PredictionBody(BaseModel):
    id: str
    run: str
    name: str
    case: str | None
    image: str | None
    state: str = Field(description="queued, running, done, failed or cancelled")
    progress: float = Field(description="0..1")
    eta_s: float | None
    waiting_before: int
    message: str
    result: ResultBody | None


class ScoresBody(BaseModel):
    protocol: str
    policy: str
    classes: dict[str, dict[str, float | str | None]] = Field(
        description='class -> metric -> value; null: no score, "inf": no distance'
    )


class Mask(Strict):
    """size: rows and columns of the slice. counts: how many pixels are outside, inside, outside ... along the rows."""

    size: tuple[int, int]
    counts: list[Count] = Field(max_length=2_000_000)


class Prompt(Strict):
    """With as many boxes as lists of points each pair makes one mask; the answer is the union."""

    slice: SliceNumber
    plane: str | None = Field(None, description="when given, must be that of the model's slices")
    label: str = Field(description="name of the class that the mask is meant for")
    boxes: list[tuple[Place, Place, Place, Place]] = Field([], max_length=64, description="x0, y0, x1, y1 each")
    points: list[Annotated[list[tuple[Place, Place, Inside]], Field(min_length=1, max_length=256)]] = Field(
        [], max_length=64, description="lists of (x, y, inside)"
    )
    adapted: bool = Field(False, description="with the trained adapter in place instead of the pretrained model")


class PromptAnswer(BaseModel):
    slice: int
    label: str
    mask: Mask
    pixels: int
    milliseconds: float


class Correction(Strict):
    slice: SliceNumber
    label: str = Field(description="class that the mask's pixels get; the background erases")
    mask: Mask
    over: bool = Field(True, description="also change pixels of other foreground classes")


class CorrectionAnswer(BaseModel):
    slice: int
    changed: int = Field(description="pixels")
    revision: int
    corrections: int
    pixels: dict[str, int]
    ml: dict[str, float] | None


class Save(Strict):
    name: str | None = Field(None, max_length=100, description="of the case; nothing: that of the image")


class Saved(BaseModel):
    image: str = Field(description="below the folder of corrected cases, as is `label`")
    label: str


class EvaluationBody(BaseModel):
    id: str
    model: str
    data: str
    split: str
    protocol: str
    oracle: bool
    cases: int
    over: str = Field(description="what the headline is the mean over")
    headline: dict[str, Any]
    report: bool


class EvaluationDetail(EvaluationBody):
    classes: dict[str, Any]
    by_case: dict[str, Any] = Field(description="case -> metric -> class -> value")
