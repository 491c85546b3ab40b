"""Pair images with labels by name, and group the pairs into cases."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from sampeft.data.case import Case, ImageFile
from sampeft.errors import DataError, FormError, NoDataError, counted
from sampeft.io import IMAGE_SUFFIXES, composed, file_stem
from sampeft.io.fetched import is_dangling


def natural_key(text: str) -> list[str | int]:
    """Sort key that puts img_2 before img_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def image_files(folder: Path) -> list[Path]:
    """The files of a folder that end like images, hidden ones left out, in natural order; links to nothing among them, so
    that a case whose content was not fetched is told when it is read. NoDataError without folder."""
    try:
        found = [p for p in folder.iterdir() if p.name.lower().endswith(IMAGE_SUFFIXES) and not p.name.startswith(".")]
    except OSError as error:
        raise NoDataError(f"{folder}: cannot be listed ({error.strerror}); check the path") from None
    return sorted((p for p in found if p.is_file() or is_dangling(p)), key=lambda p: natural_key(p.name))


def series_folders(folder: Path) -> list[Path]:
    """The sub-folders that hold a DICOM file, or a link to nothing that may have been one, hidden ones left out, in natural
    order: each one image."""
    below = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return sorted((p for p in below if holds_dicom(p)), key=lambda p: natural_key(p.name))


def inside(root: Path, text: str, where: str) -> Path:
    """The path `text` below the root, as the disk spells it. Raises FormError, which begins with `where`, when it leads out of
    the root or is none."""
    if "\0" in text:
        raise FormError(f"{where}: the path {text!r} holds a NUL character; correct it")
    path = Path(os.path.normpath(root / text.replace("\\", "/")))
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):
        raise FormError(f"{where}: the path '{text}' leads out of {root}; give a path below that folder")
    return _on_disk(path)


def _on_disk(path: Path) -> Path:
    """The same path with accents composed or decomposed as they are there; unchanged where nothing is."""
    if os.path.lexists(path) or str(path).isascii():
        return path
    parent = _on_disk(path.parent)
    beside = parent.iterdir() if parent.is_dir() else ()
    return next((p for p in beside if composed(p.name) == composed(path.name)), parent / path.name)


def pair_files(
    images: Path, labels: Path, *, image_suffix: str = "", label_suffix: str = "", complete: bool = True
) -> list[ImageFile]:
    """Pair `<id><image_suffix>.png` of one folder with `<id><label_suffix>.png` of the other, in natural order of ids.

    An image may also be a sub-folder `<id><image_suffix>` with a DICOM series, a label one with a DICOM SEG.
    complete: an image or a label without its partner is an error; otherwise images without a label get None.
    labels: may be the folder of the images, when the suffixes differ, and may be missing when not `complete`.
    Raises DataError for two files of one id, for an incomplete pair, and for labels of which none fits an image.
    """
    pictures = _by_id([*image_files(images), *series_folders(images)], image_suffix)
    masks = _by_id(_label_files(labels, images), label_suffix) if complete or labels.is_dir() else {}
    if images == labels:
        pictures = {id: path for id, path in pictures.items() if path not in masks.values()}
    if not pictures:
        ending = f"<name>{image_suffix}" if image_suffix else "<name>"
        raise NoDataError(
            f"{images}: no image here; looked for {ending} with {', '.join(IMAGE_SUFFIXES)}, and for sub-folders with a "
            "DICOM series"
        )
    if not masks and labels.is_dir() and images != labels:
        _refuse_other_labels(labels, pictures)
        if others := image_files(labels):
            raise NoDataError(
                f"{labels}: none of its {counted(len(others), 'label')} ends in '{label_suffix}' (here is {others[0].name}); "
                "correct the ending, or rename them"
            )
    if masks and not pictures.keys() & masks.keys():
        image, mask = next(iter(pictures.values())), next(iter(masks.values()))
        raise DataError(
            f"{labels}: none of {counted(len(masks), 'label file')} belongs to one of {counted(len(pictures), 'image')} "
            f"({image.name} wants {next(iter(pictures))}{label_suffix}, here is {mask.name}); {_advice(pictures, labels)}"
        )
    lonely = [p for own, other in ((pictures, masks), (masks, pictures)) for id, p in own.items() if id not in other]
    if complete and lonely:
        raise DataError(
            f"{counted(len(lonely), 'file')} without a partner, such as {_some(lonely)}; add or remove them"
        )
    return [ImageFile(id, path, masks.get(id)) for id, path in pictures.items()]


def _label_files(labels: Path, images: Path) -> list[Path]:
    """Label files of a folder, and its sub-folders with a DICOM SEG where it is not the folder of the images, too."""
    return image_files(labels) if labels == images else [*image_files(labels), *series_folders(labels)]


def group_cases(files: Sequence[ImageFile], pattern: str | None, source: Path) -> tuple[Case, ...]:
    """Files whose id gives the same first group of the pattern (the patient, the scene) are one case; without a
    pattern each file is one. `source`: the file that holds the pattern, for messages."""
    if pattern is None:
        return tuple(Case(file.id, (file,)) for file in files)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise FormError(f"{source}: group_regex '{pattern}' is no regular expression ({error})") from None
    if not compiled.groups:
        raise FormError(f"{source}: group_regex '{pattern}' has no group; put the case's part of the name in ()")
    owner: dict[str, str] = {}
    for file in files:
        match = compiled.search(file.id)
        if match is None or not match[1]:
            raise FormError(
                f"{source}: group_regex '{pattern}' does not fit the file {file.image.name}; correct either"
            )
        owner[file.id] = match[1]
    return cases_of(files, owner)


def cases_of(files: Sequence[ImageFile], owner: Mapping[str, str]) -> tuple[Case, ...]:
    """Cases, in natural order, of the files whose ids have the same owner."""
    grouped: dict[str, list[ImageFile]] = {}
    for file in files:
        grouped.setdefault(owner[file.id], []).append(file)
    return tuple(Case(id, tuple(grouped[id])) for id in sorted(grouped, key=natural_key))


def holds_dicom(path: Path) -> bool:
    """Whether it is a DICOM file, or a folder that holds one, or a link to nothing that may have been one."""
    if not path.is_dir():
        return _is_dicom(path)
    try:
        return any(_is_dicom(path) or is_dangling(path) for path in path.iterdir())
    except OSError:  # not ours to read
        return False


def _is_dicom(path: Path) -> bool:
    from sampeft.io import dicom

    try:
        with path.open("rb") as file:
            return dicom.recognises(file.read(1024))
    except OSError:  # a folder, or not ours to read
        return False


def _by_id(paths: Iterable[Path], suffix: str) -> dict[str, Path]:
    """Id -> path, of those whose stem ends with the suffix."""
    found: dict[str, Path] = {}
    for path in paths:
        stem = composed(path.name) if path.is_dir() else file_stem(path)
        if not stem.endswith(composed(suffix)):
            continue
        id = stem.removesuffix(composed(suffix))
        if id in found:
            raise DataError(
                f"{path.parent}: {found[id].name} and {path.name} are two files of one name; keep one of them"
            )
        found[id] = path
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


_OTHER_LABELS = {
    (".json", ".geojson", ".xml", ".shp", ".gpkg", ".kml"): (
        "drawings ({}), as LabelMe, COCO, CVAT and QGIS write them, instead of masks; draw them into one PNG per image whose "
        "pixels hold the ids of the classes (labelme2voc, pycocotools' annToMask, gdal_rasterize)"
    ),
    (".txt",): (
        "text ({}), as YOLO writes boxes and outlines, instead of masks; draw it into one PNG per image whose pixels hold the "
        "ids of the classes"
    ),
    (".npy", ".npz", ".mat", ".h5", ".hdf5"): (
        "arrays ({}), which say neither spacing nor place; save each as NIfTI on the grid of its image, or a flat one as PNG"
    ),
}
"""What programs write instead of masks, by the endings of files."""


def _refuse_other_labels(labels: Path, ids: Collection[str]) -> None:
    """Raises DataError for a folder of labels without any label file, but with what many programs write instead.

    ids: of the images.
    """
    inside = sorted((p for p in labels.iterdir() if not p.name.startswith(".")), key=lambda p: natural_key(p.name))
    for endings, what in _OTHER_LABELS.items():
        written = (p for p in inside if p.suffix.lower() in endings)
        if found := [p for p in written if p.suffix.lower() != ".txt" or p.stem in ids]:  # others are notes
            raise DataError(f"{labels}: holds {what.format(found[0].name)}")
    for folder in (p for p in inside if p.is_dir()):
        if masks := image_files(folder):
            of_class = folder.name not in ids and file_stem(masks[0]) in ids
            stem = file_stem(masks[0]) if of_class else folder.name
            ending = masks[0].name.removeprefix(file_stem(masks[0]))
            kinds = (
                "a folder per class with one file per image"
                if of_class
                else "a folder per image with one file per class"
            )
            raise DataError(
                f"{labels}: holds {kinds} ({folder.name}/{masks[0].name}, {counted(len(masks), 'file')}), instead of one label "
                f"file per image; join them to {stem}{ending}, in which each pixel holds the id of its class"
            )


def _advice(ids: Iterable[str], labels: Path) -> str:
    """What to declare when all label names are an image's id and one common ending."""
    known = set(ids)
    endings = set()
    for stem in map(file_stem, image_files(labels)):
        starts = [stem[:n] for n in range(len(stem), 0, -1) if stem[:n] in known]
        if starts:
            endings.add(stem.removeprefix(starts[0]))
    if len(endings) == 1:
        return f'put "mask_suffix": "{endings.pop()}" into dataset.json'
    return 'rename them like the images, or declare their common ending as "mask_suffix" in dataset.json'


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths[:3])
