"""Check a data set: pairing, labels, geometry and intensity, each fault with its file and how to mend it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.faults import Fault as Fault
from sampeft.data.faults import class_faults, lonely_labels, look_alikes, odd_files, same_pixels
from sampeft.data.file_statistics import FileFacts, notes, seen_in, summary, usual_plane
from sampeft.data.ground_truth import GRID_TOLERANCE_VOXELS as GRID_TOLERANCE_VOXELS
from sampeft.data.ground_truth import count_channels, read_truth
from sampeft.data.ground_truth import on_image_grid as on_image_grid
from sampeft.data.ground_truth import read_labels as read_labels
from sampeft.data.intensity import NO_NUMBERS, Intensity, choose, count_no_numbers, select_bands
from sampeft.data.values import Seen, is_constant, odd_values
from sampeft.errors import DataError, counted, unforeseen
from sampeft.io import read_volume
from sampeft.volume import IGNORE, LabelVolume, Volume


@dataclass(frozen=True)
class ClassCount:
    """Pixels (voxels) of a class, the number of cases that have it, and that number in each split."""

    name: str
    id: int
    pixels: int
    cases: int
    by_split: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class CheckReport:
    """What a check found.

    ignored: pixels without a truth. splits: cases of each split, of those that were looked at. notes: what is no fault
    but good to know. summary: sizes, spacing and intensity as `facts.summary` gives them. plane: that most volumes ask for by
    their spacing, `auto` without any. seen: what a run trained on the files has seen.
    """

    root: Path
    cases: int
    files: int
    classes: tuple[ClassCount, ...]
    ignored: int
    faults: tuple[Fault, ...]
    splits: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)
    plane: str = "auto"
    seen: Seen | None = None

    def __repr__(self) -> str:
        found = f"{len(self.errors)} errors, {len(self.warnings)} warnings"
        first = f"\n            {self.faults[0]}" if self.faults else ""
        return f"CheckReport({self.root}: {self.cases} cases in {self.files} files, {found}{first})"

    @property
    def errors(self) -> tuple[Fault, ...]:
        return tuple(fault for fault in self.faults if fault.severity == "error")

    @property
    def warnings(self) -> tuple[Fault, ...]:
        return tuple(fault for fault in self.faults if fault.severity == "warning")

    def raise_on_errors(self, shown: int = 3) -> None:
        """Raises one DataError with the first errors, if there are any."""
        errors = self.errors
        if len(errors) == 1:
            raise DataError(str(errors[0]))
        if errors:
            more = f" | and {len(errors) - shown} more" if len(errors) > shown else ""
            raise DataError(f"{self.root}: {len(errors)} faults: {' | '.join(map(str, errors[:shown]))}{more}")

    def table(self) -> str:
        """Markdown table of the classes; a column for each split."""
        names = list(self.splits)
        head: list[object] = ["id", "class", "pixels", "cases", *names]
        rule: list[object] = ["---:", "---", "---:", "---:", *["---:"] * len(names)]
        rows = [
            [
                c.id,
                c.name,
                c.pixels,
                f"{c.cases} of {self.cases}",
                *(f"{c.by_split[n]} of {self.splits[n]}" for n in names),
            ]
            for c in self.classes
        ]
        return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in (head, rule, *rows))

    def to_json(self) -> dict[str, Any]:
        faults = [{**asdict(fault), "file": str(fault.file)} for fault in self.faults]
        return {**asdict(self), "root": str(self.root), "faults": faults}


@dataclass
class _Found:
    """What the check of one file came to.

    counts: pixels per class and (last) ignored. is_counted: whether its truth was read. display, placed_by, by_name, foreign: as
    of `Truth`. print: what `leaks` compares.
    """

    faults: list[Fault]
    counts: npt.NDArray[np.int64]
    is_counted: bool = False
    display: bool = False
    placed_by: str = ""
    by_name: bool = False
    foreign: str = ""
    facts: FileFacts | None = None
    print: npt.NDArray[np.float32] | None = None


def check_dataset(
    dataset: Dataset,
    cases: Sequence[Case] | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    side: int | None = None,
    recipe: Intensity | None = None,
    leaks: bool = False,
) -> CheckReport:
    """Open every image and label of the cases (all of them by default) and list what is wrong.

    progress: called with (files done, files). side: pixels of the network's input, to find structures that vanish at
    that size. recipe: whose bands each image must have, and that the body is cut out with. leaks: also look for images
    of different splits that look alike. Faults come in the order of the cases, those of the whole set last.
    """
    chosen = dataset.cases if cases is None else tuple(cases)
    jobs = [(case, file) for case in chosen for file in case.files]
    counts = {case.id: np.zeros(len(dataset.labels) + 1, dtype=np.int64) for case in chosen}
    unlabelled = set(dataset.splits.get("unlabelled", ()))
    faults: list[Fault] = []
    facts: list[FileFacts] = []
    uncounted: set[str] = set()  # cases with a truth that could not be read, or without one
    displayed: list[Path] = []
    placed: dict[str, list[Path]] = {}
    by_name: list[Path] = []
    foreign: list[tuple[Path, str]] = []
    prints: dict[str, npt.NDArray[np.float32]] = {}
    # Decompression and hashing leave Python's lock alone, so threads read as fast as processes and start at once.
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        results = pool.map(
            lambda job: _check_file(job[1], dataset, job[0].id not in unlabelled, side, recipe, leaks), jobs
        )
        for done, ((case, file), found) in enumerate(zip(jobs, results, strict=True)):
            faults += found.faults
            counts[case.id] += found.counts
            uncounted |= set() if found.is_counted else {case.id}
            facts += [found.facts] if found.facts else []
            prints |= {} if found.print is None else {file.id: found.print}
            displayed += [file.label] if found.display and file.label else []
            if found.placed_by and file.label:
                placed.setdefault(found.placed_by, []).append(file.label)
            by_name += [file.label] if found.by_name and file.label else []
            foreign += [(file.label, found.foreign)] if found.foreign and file.label else []
            if progress:
                progress(done + 1, len(jobs))
    if displayed:
        name = dataset.labels.names[dataset.labels.foreground[0]]
        problem = f"255 in {counted(len(displayed), 'mask')}, the first is {displayed[0].name}"
        faults.append(Fault(dataset.root, problem, f"it is read as the only class, '{name}'", "warning"))
    if by_name:
        problem = f"other ids for the classes in {counted(len(by_name), 'label')}, the first is {by_name[0].name}"
        fix = "they are read by the names or colours in the files; --map decides otherwise"
        faults.append(Fault(dataset.root, problem, fix, "warning"))
    if foreign:
        path, lists = foreign[0]
        problem = f"names of classes that the label map does not have, in {counted(len(foreign), 'label')}: {lists}"
        faults.append(Fault(path, problem, "their ids are taken as they are; correct the names or the ids", "warning"))
    faults += lonely_labels(dataset)
    faults += class_faults(
        dataset, {case: count for case, count in counts.items() if case not in uncounted}, len(counts)
    )
    splits = {
        name: [i for i in dict.fromkeys(ids) if i in counts] for name, ids in dataset.splits.items() if name in _SIDES
    }
    faults += same_pixels(dataset, facts, splits)
    faults += odd_files(facts)
    if leaks:
        faults += look_alikes(dataset, prints)
    present = {i: count[:-1] > 0 for i, count in counts.items()}
    table = np.stack([*counts.values(), np.zeros(len(dataset.labels) + 1, dtype=np.int64)])
    classes = tuple(
        ClassCount(
            name,
            id,
            int(table[:, c].sum()),
            int((table[:, c] > 0).sum()),
            {split: sum(bool(present[i][c]) for i in ids) for split, ids in splits.items()},
        )
        for c, (name, id) in enumerate(zip(dataset.labels.names, dataset.labels.ids, strict=True))
    )
    told = notes(facts, dataset.labels, dataset.modality)
    told += [
        f"placed by their {by}: {counted(len(labels), 'label')}, the first is {labels[0].name}"
        for by, labels in placed.items()
    ]
    if without := sum(case.id in unlabelled for case in chosen):
        told.append(
            f"only images were checked of {counted(without, 'case')} that the layout ships without labels (split 'unlabelled')"
        )
    return CheckReport(
        root=dataset.root,
        cases=len(chosen),
        files=len(jobs),
        classes=classes,
        ignored=int(table[:, -1].sum()),
        faults=tuple(faults),
        splits={name: len(ids) for name, ids in splits.items()},
        notes=tuple(told),
        summary=summary(facts),
        plane=usual_plane(f.plane for f in facts),
        seen=seen_in(facts),
    )


_SIDES = ("train", "val", "test")


def _check_file(
    file: ImageFile, dataset: Dataset, labelled: bool, side: int | None, recipe: Intensity | None, leaks: bool
) -> _Found:
    classes = len(dataset.labels)
    found = _Found([], np.zeros(classes + 1, dtype=np.int64))
    try:
        image = read_volume(file.image)
        if bad := count_no_numbers(image):
            fix = "they are read as the lowest level; replace them by the value of air or of no data"
            found.faults.append(Fault(file.image, f"{bad} values are {NO_NUMBERS}", fix, "warning"))
        if recipe:
            select_bands(image, recipe.bands)
        if is_constant(image):
            fix = "nothing can be learned or scored there; export it again or leave it out"
            found.faults.append(Fault(file.image, "all its pixels have one value", fix, "warning"))
        elif recipe and (odd := odd_values(image, recipe)):
            found.faults.append(_fault(odd, file, "warning"))
        if leaks:
            from sampeft.data.near_duplicates import image_print

            found.print = image_print(image)
        if not labelled:
            nothing = np.full(image.grid, IGNORE, dtype=np.int16)
            found.facts = FileFacts.of(file, image, nothing, classes)
            return found
        label, found.display, found.placed_by, found.by_name, found.foreign = read_truth(file, dataset, image)
        found.is_counted = True
        found.counts[:-1] = count_channels(label.array, classes)
        found.counts[-1] = label.array.size - found.counts[:-1].sum()
        found.facts = FileFacts.of(file, image, label.array, classes)
        if side is not None:
            found.faults += _lost(file, image, label, dataset, recipe, side)
    except DataError as error:
        found.faults.append(_fault(str(error), file))
    except (OSError, MemoryError) as error:
        problem = f"cannot be read ({type(error).__name__}: {error})"
        found.faults.append(Fault(file.image, problem, "check the file, the disk and the memory"))
    except Exception as error:
        problem, _, fix = unforeseen(error).rpartition("; ")
        found.faults.append(Fault(file.image, problem, fix))
    return found


def _lost(
    file: ImageFile, image: Volume, label: LabelVolume, dataset: Dataset, recipe: Intensity | None, side: int
) -> list[Fault]:
    """A warning for each class that the file has and no slice of it has any more at the network's side."""
    import torch

    from sampeft.data.slice_cache import Preparation, PreparedVolume

    present = count_channels(label.array, len(dataset.labels))
    missing = {k for k in dataset.labels.foreground if present[k]}
    preparation = Preparation(recipe or choose(image, dataset.modality)[1], side)
    prepared = PreparedVolume.of(image, preparation, quiet=True)
    truth = prepared.view.slices(label.array)
    for truth_HW in truth:
        if not missing:
            break
        if missing.intersection(np.unique(truth_HW).tolist()):
            seen = prepared.frame.channels(torch.from_numpy(np.ascontiguousarray(truth_HW)))
            missing -= set(np.unique(seen.numpy()).tolist())
    rows, columns = prepared.frame.size
    return [
        Fault(
            file.label or file.image,
            f"class '{dataset.labels.names[k]}' ({present[k]} {'pixels' if image.is_raster else 'voxels'}) is lost when "
            f"{rows} x {columns} pixels are scaled to a side of {side}",
            "it cannot be learned from this file; train with a larger --side, or on tiles cut from the images",
            "warning",
        )
        for k in sorted(missing)
    ]


def _fault(text: str, file: ImageFile, severity: str = "error") -> Fault:
    """A reader's sentence `file: problem; fix` in its parts."""
    path = file.label if file.label and text.startswith(f"{file.label}: ") else file.image
    problem, _, fix = text.removeprefix(f"{path}: ").rpartition("; ")
    return Fault(path, problem, fix, severity)
