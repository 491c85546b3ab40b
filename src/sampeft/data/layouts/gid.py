"""Layout of the Gaofen Image Dataset with 5 land covers: large scenes, or crops of them."""

from __future__ import annotations

import re
from pathlib import Path

from sampeft.data.case import Case, Dataset, ImageFile
from sampeft.data.folds import list_files, read_splits
from sampeft.data.pairing import cases_of, image_files, pair_files
from sampeft.errors import DataError
from sampeft.io import file_stem
from sampeft.labels import LabelSet

LOOKS_FOR = "image_RGB/<scene>.tif and label_5classes/<scene>_label.tif, or images/ and labels/ with crops of GID"
LARGE = "Large-scale Classification_5classes"
UNDEFINED_IN_CROPS = 5
"""Value of undefined pixels in the index labels of GID-MTL5; in others 5 may be water, so there it is an error."""

COLORS = {
    "builtup": (255, 0, 0),
    "farmland": (0, 255, 0),
    "forest": (0, 255, 255),
    "meadow": (255, 255, 0),
    "water": (0, 0, 255),
}
GID_LABELS = LabelSet(tuple(COLORS), (0, 1, 2, 3, 4), ignore=255, colors=tuple(COLORS.values()))

_SCENE = re.compile(r"^(GF2_PMS[12]__L1A\d{10}-MSS[12])(?:_|$)")  # satellite, camera, product, sensor
_CROP = re.compile(rf"^(?:{'|'.join(COLORS)})_\d+$")


def matches(root: Path) -> bool:
    return _folders(root) is not None


def read(root: Path) -> Dataset:
    """Read the data set. Ids are those of GID-MTL5: 0 builtup, 1 farmland, 2 forest, 3 meadow, 4 water, 255 undefined.

    Large scenes are image_RGB/GF2_PMS1__L1A0001064454-MSS1.tif with label_5classes/..._label.tif in the colours of GID
    (black is undefined), in the root or in its folder "Large-scale Classification_5classes"; crops lie in images/ and
    labels/, with colours or ids. Crops whose name begins with that of a scene are cases together; those of GID-MTL5
    (forest_012) do not tell their scene, so each is a case. train.txt, val.txt and test.txt list scenes or files.
    Raises DataError as `pair_files` does.
    """
    folders = _folders(root)
    if folders is None:
        raise DataError(f"{root}: is no GID; looked for {LOOKS_FOR}")
    images, labels = folders
    suffix = "_label" if any(file_stem(p).endswith("_label") for p in image_files(labels)) else ""
    files = pair_files(images, labels, label_suffix=suffix, complete=False)
    cases = _cases(files)
    return Dataset(
        name=root.resolve().name,
        root=root,
        labels=GID_LABELS,
        cases=cases,
        splits=read_splits({**list_files(images.parent), **list_files(root)}, cases),
        label_values={UNDEFINED_IN_CROPS: 255} if all(_CROP.match(file.id) for file in files) else {},
        modality="RGB satellite",
        label_colors={**{color: id for id, color in enumerate(COLORS.values())}, (0, 0, 0): 255},
    )


def _cases(files: list[ImageFile]) -> tuple[Case, ...]:
    scenes = {file.id: match[1] if (match := _SCENE.match(file.id)) else file.id for file in files}
    return cases_of(files, scenes)


def _folders(root: Path) -> tuple[Path, Path] | None:
    """The folders of images and labels."""
    for folder in (root, root / LARGE):
        if (folder / "image_RGB").is_dir() and (folder / "label_5classes").is_dir():
            return folder / "image_RGB", folder / "label_5classes"
    images, labels = root / "images", root / "labels"
    if not (images.is_dir() and labels.is_dir()):
        return None
    stems = [file_stem(path) for path in image_files(images)]
    ours = stems and all(_CROP.match(stem) or _SCENE.match(stem) for stem in stems)
    return (images, labels) if ours else None
