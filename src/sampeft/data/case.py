"""A data set as the rest of the code sees it: cases (a patient, a scene) made of image files with their label files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampeft.errors import UsageError, unknown_name
from sampeft.labels import LabelSet


@dataclass(frozen=True)
class ImageFile:
    """One image on disk and, where there is a truth, its label file.

    id: the stem that pairs image and label, unique in the data set; output files are named after it.
    image: a file, or the folder of a DICOM series.
    """

    id: str
    image: Path
    label: Path | None = None


@dataclass(frozen=True)
class Case:
    """What a score belongs to and what no split ever divides: a patient or a scene, in one or more files."""

    id: str
    files: tuple[ImageFile, ...]


TRAINVAL = "trainval"
"""The split of all that a final model may be trained on."""


SYNTHETIC = "PHANTOM.json"
"""File in a folder whose images a program drew."""


@dataclass(frozen=True, repr=False)
class Dataset:
    """A data set.

    splits: name -> ids of cases. `train` and `test` at least where the layout ships them; may be empty.
        `unlabelled` names the cases that the layout ships without a truth; they are for prediction only.
    label_values: file value -> id, applied on reading (a mask with 255 for its only class, a mapping by the user).
    label_colors: (red, green, blue) of 0..255 -> id (or the ignore id), for masks that are stored as colours; a mask
        of grey values or palette indices holds ids all the same. None: colours are an error.
    """

    name: str
    root: Path
    labels: LabelSet
    cases: tuple[Case, ...]
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    label_values: dict[int, int] = field(default_factory=dict)
    modality: str = ""
    label_colors: dict[tuple[int, int, int], int] | None = None

    @property
    def is_synthetic(self) -> bool:
        """Whether a program drew its images, such as the phantom of `sampeft demo`."""
        return (self.root / SYNTHETIC).is_file()

    def __repr__(self) -> str:
        splits = ", ".join(f"{name} {len(ids)}" for name, ids in self.splits.items())
        return (
            f"Dataset({self.name}: {len(self.cases)} cases{f' ({splits})' * bool(splits)} in {self.root}\n"
            f"        {len(self.labels)} classes: {', '.join(self.labels.names[:8])}{', ...' * (len(self.labels) > 8)})"
        )

    def split(self, name: str) -> tuple[Case, ...]:
        """The cases of a split, in the split's order; `all` is every case, `trainval` those of train and val. Raises UsageError
        for an unknown name."""
        if name == "all":
            return self.cases
        if name == TRAINVAL and name not in self.splits and {"train", "val"} <= self.splits.keys():
            return (*self.split("train"), *self.split("val"))
        if name not in self.splits:
            raise unknown_name("split", name, [*self.splits, "all"])
        by_id = {case.id: case for case in self.cases}
        if missing := [i for i in self.splits[name] if i not in by_id]:
            raise UsageError(f"{self.root}: split '{name}' names cases without images: {', '.join(missing[:5])}")
        return tuple(by_id[i] for i in self.splits[name])
