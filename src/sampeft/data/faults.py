"""What is wrong with a data set as a whole: copies, near duplicates, outliers, classes that nothing teaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sampeft.data.case import Dataset, ImageFile
from sampeft.data.file_statistics import FileFacts
from sampeft.data.outliers import outliers
from sampeft.data.pairing import image_files
from sampeft.errors import counted


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file and how to mend it. severity: `error` stops a training, `warning` does not."""

    file: Path
    problem: str
    fix: str
    severity: str = "error"

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}; {self.fix}"


def odd_files(facts: Sequence[FileFacts]) -> list[Fault]:
    """A warning for each thing in which a file is unlike all the others."""
    return [Fault(*one, "warning") for one in outliers(facts)]


def same_pixels(dataset: Dataset, facts: Sequence[FileFacts], splits: dict[str, list[str]]) -> list[Fault]:
    """A warning for each group of files with equal images."""
    groups: dict[str, list[ImageFile]] = {}
    for one in facts:
        groups.setdefault(one.digest, []).append(one.file)
    owner = {file.id: case.id for case in dataset.cases for file in case.files}
    found = []
    for files in groups.values():
        if len(files) > 1:
            sides = [name for name, ids in splits.items() if any(owner[file.id] in ids for file in files)]
            others = ", ".join(file.image.name for file in files[1:4]) + (", ..." if len(files) > 4 else "")
            problem = f"has the same pixels as {others}"
            fix = "keep one of them"
            if len(sides) > 1:
                problem += f", in the splits {' and '.join(sides)}"
                fix += ", or put them on one side: scores would not be those of unseen images"
            found.append(Fault(files[0].image, problem, fix, "warning"))
    return found


def look_alikes(dataset: Dataset, prints: dict[str, npt.NDArray[np.float32]]) -> list[Fault]:
    """A warning for each two files of different splits that look alike."""
    from sampeft.data.near_duplicates import near_duplicates

    return [
        Fault(
            one.image,
            f"looks like {other.image.name} of another split (likeness {likeness:.3f})",
            "look at both; if they show the same scene or patient, put them on one side of the split",
            "warning",
        )
        for one, other, likeness in near_duplicates(dataset, prints=prints)
    ]


def lonely_labels(dataset: Dataset) -> list[Fault]:
    files = [file for case in dataset.cases for file in case.files]
    used = {file.image for file in files} | {file.label for file in files}
    folders = sorted({file.label.parent for file in files if file.label})
    return [
        Fault(path, "belongs to no image of the data set", "add its image or remove the label", "warning")
        for folder in folders
        for path in image_files(folder)
        if path not in used
    ]


def class_faults(dataset: Dataset, counts: dict[str, npt.NDArray[np.int64]], cases: int) -> list[Fault]:
    """Warnings for classes that nothing teaches: in no case at all, or in test cases but in no training case.

    counts: of the cases whose truth was read, out of so many; of the others nothing is known.
    """
    if not counts:
        return []

    def seen(ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        total: npt.NDArray[np.int64] = sum((counts[i][:-1] for i in ids), np.zeros(len(dataset.labels), np.int64))
        return total > 0

    faults = []
    everywhere = seen(list(counts))
    train = [i for i in dataset.splits.get("train", ()) if i in counts]
    for channel in dataset.labels.foreground:
        name = dataset.labels.names[channel]
        if not everywhere[channel]:
            problem = f"class '{name}' is in none of {counted(len(counts), 'case')}"
            problem += f" whose labels can be read, of {cases}" if len(counts) < cases else ""
            fix = "it cannot be learned or scored; add cases that have it or remove it from the label map"
            faults.append(Fault(dataset.root, problem, fix, "warning"))
            continue
        for split in ("val", "test"):
            others = [i for i in dataset.splits.get(split, ()) if i in counts]
            if train and others and seen(others)[channel] and not seen(train)[channel]:
                problem = f"class '{name}' is in the {split} cases but in no training case"
                faults.append(Fault(dataset.root, problem, "move a case that has it to the training split", "warning"))
    return faults
