"""Split cases into disjoint sets: drawn with a seed, or read from the lists that a data set ships."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from random import Random

from sampeft.data.case import Case, Dataset
from sampeft.data.pairing import natural_key
from sampeft.errors import FormError, UsageError, counted
from sampeft.io import file_stem
from sampeft.strict_json import text_of

_EXCLUSIVE = ("train", "val", "test")


def hold_out(case_ids: Iterable[str], fraction_or_count: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Draw (training ids, held-out ids), the same for any order of the input.

    fraction_or_count: below 1 a share of the cases, rounded and at least one; from 1 on a number of cases.
    Raises UsageError when either side would be empty.
    """
    ids = _distinct(case_ids)
    count = fraction_or_count if fraction_or_count >= 1 else max(1, round(fraction_or_count * len(ids)))
    if fraction_or_count <= 0 or count != int(count) or count >= len(ids):
        if len(ids) < 2:
            raise UsageError(
                f"cannot hold out {fraction_or_count:g} of {counted(len(ids), 'case')} (all files of a patient or scene are "
                "one case); train without by --held_out 0, or add cases"
            )
        raise UsageError(
            f"cannot hold out {fraction_or_count:g} of {len(ids)} cases; give a share between 0 and 1 or a whole "
            "number that leaves at least one case on each side, or --held_out 0 for none"
        )
    held = set(_shuffled(ids, seed)[: int(count)])
    return tuple(i for i in ids if i not in held), tuple(i for i in ids if i in held)


def drawn(case_ids: Iterable[str], count: int, seed: int) -> tuple[str, ...]:
    """So many of the ids; with the same seed fewer are among more, for any order of the input. Raises UsageError for more
    than there are."""
    ids = _distinct(case_ids)
    if not 1 <= count <= len(ids):
        raise UsageError(f"cannot train on {count} of {counted(len(ids), 'case')}; give 1..{len(ids)}")
    kept = set(_shuffled(ids, seed)[:count])
    return tuple(i for i in ids if i in kept)


def k_folds(
    case_ids: Iterable[str], k: int, seed: int, presence: Mapping[str, Sequence[bool]] | None = None
) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """k pairs (training ids, held-out ids); every case is held out once, fold sizes differ by one at most.

    presence: per case, whether it has each class; then each class is spread over the folds as evenly as the sizes
    allow, the rarest first. The same for any order of the input. Raises UsageError unless 2 <= k <= number of cases.
    """
    ids = _distinct(case_ids)
    if not 2 <= k <= len(ids):
        choice = f"choose 2..{len(ids)}" if len(ids) > 1 else "they need two cases or more"
        raise UsageError(f"cannot make {k} folds of {counted(len(ids), 'case')}; {choice}")
    order = _shuffled(ids, seed)
    parts = [set(order[fold::k]) for fold in range(k)] if presence is None else _stratified(order, k, presence)
    return tuple((tuple(i for i in ids if i not in part), tuple(i for i in ids if i in part)) for part in parts)


def _stratified(order: Sequence[str], k: int, presence: Mapping[str, Sequence[bool]]) -> list[set[str]]:
    """Greedy: the class that the fewest cases left have is dealt out to the folds with the largest want of it."""
    classes = range(max(len(presence[id]) for id in order))
    room = [len(order[fold::k]) for fold in range(k)]
    total = [sum(presence[id][c] for id in order) for c in classes]
    want = [[total[c] * room[fold] / len(order) for c in classes] for fold in range(k)]
    parts: list[set[str]] = [set() for _ in range(k)]
    left = list(order)
    while left:
        counts = [sum(presence[id][c] for id in left) for c in classes]
        rarest = min((c for c in classes if counts[c]), key=lambda c: counts[c], default=None)
        for id in [id for id in left if rarest is None or presence[id][rarest]]:
            own = [c for c in classes if presence[id][c]]
            fold = max(
                (f for f in range(k) if room[f]),
                key=lambda f: (want[f][rarest] if rarest is not None else 0, sum(want[f][c] for c in own), room[f], -f),
            )
            parts[fold].add(id)
            room[fold] -= 1
            for c in own:
                want[fold][c] -= 1
            left.remove(id)
    return parts


def fold_of(
    dataset: Dataset, split: str, presence: Mapping[str, Sequence[bool]] | None = None
) -> tuple[list[Case], list[Case]] | None:
    """`fold2of5` -> (cases outside, cases inside) the second of five folds; None for any other name.

    The folds are over all cases but those of the split `unlabelled`, and for one data set (and presence, as in
    `k_folds`) always the same. Raises UsageError for a fold that there is not.
    """
    match = re.fullmatch(r"fold(\d+)of(\d+)", split)
    if match is None:
        return None
    number, k = int(match[1]), int(match[2])
    if not 1 <= number <= k:
        raise UsageError(f"split '{split}': the folds are fold1of{k} to fold{k}of{k}")
    cases = [case for case in dataset.cases if case.id not in dataset.splits.get("unlabelled", ())]
    inside = set(k_folds([case.id for case in cases], k, 0, presence)[number - 1][1])
    return [c for c in cases if c.id not in inside], [c for c in cases if c.id in inside]


def read_splits(
    lists: Mapping[str, Path | Sequence[str]],
    cases: Sequence[Case],
    excluded: frozenset[str] = frozenset(),
    described: Path | None = None,
) -> dict[str, tuple[str, ...]]:
    """Split name -> case ids, from text files with one file stem or case id a line, or from such names.

    excluded: stems that were left out on purpose. described: the file that holds the names, for messages. Raises FormError
    for a name without an image, for a list with a part of a case's files, and when train, val and test share a case.
    """
    owner = {file.id: case for case in cases for file in case.files} | {case.id: case for case in cases}
    splits: dict[str, tuple[str, ...]] = {}
    where = f"{described}: " if described else ""
    for split, names in lists.items():
        source = names if isinstance(names, Path) else f"{where}split '{split}'"
        given = _lines(names) if isinstance(names, Path) else names
        if not given:
            warnings.warn(f"{source}: the list of the split '{split}' is empty", stacklevel=2)
        listed = [file_stem(Path(name.replace("\\", "/"))) for name in given]
        listed = [name for name in listed if name not in excluded]
        if unknown := [name for name in listed if name not in owner]:
            raise FormError(
                f"{source}: {len(unknown)} of {counted(len(listed), 'name')} without an image ({', '.join(unknown[:5])}); "
                "correct the list or add the images"
            )
        splits[split] = tuple(dict.fromkeys(owner[name].id for name in listed))
        for case in (owner[name] for name in splits[split]):
            named = {file.id for file in case.files} & set(listed)
            if case.id not in listed and len(named) < len(case.files):
                raise FormError(
                    f"{source}: names {len(named)} of the {len(case.files)} files of case {case.id}; a case is never "
                    "divided, name all of them"
                )
    for one, other in combinations([name for name in _EXCLUSIVE if name in splits], 2):
        if leak := sorted(set(splits[one]) & set(splits[other]), key=natural_key):
            shared = f"{counted(len(leak), 'case')} ({', '.join(leak[:10])})"
            raise FormError(
                f"{'' if isinstance(lists[one], Path) else where}splits '{one}' and '{other}' share {shared}, so scores would "
                "not be those of unseen cases; put each case on one side"
            )
    return splits


def list_files(root: Path) -> dict[str, Path]:
    """train.txt, val.txt and test.txt of a folder, those that exist."""
    return {name: path for name in _EXCLUSIVE if (path := root / f"{name}.txt").is_file()}


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in text_of(path).splitlines() if line.strip()]
    except OSError as error:
        raise FormError(f"{path}: the list of a split cannot be read ({error.strerror}); check its path") from None
    except ValueError as error:
        raise FormError(f"{path}: the list of a split cannot be read: {error}") from None


def _distinct(case_ids: Iterable[str]) -> list[str]:
    ids = sorted(case_ids, key=natural_key)
    if len(set(ids)) < len(ids):
        raise ValueError("a case id is there twice")
    return ids


def _shuffled(ids: Sequence[str], seed: int) -> list[str]:
    order = list(ids)
    Random(seed).shuffle(order)
    return order


def split_cases(
    dataset: Dataset, split: str, held_out: float, seed: int, count: int | None = None
) -> tuple[list[Case], list[Case]]:
    """(training cases, held-out cases). A `val` split that the data set ships is used as the held-out cases. count: so many
    of the training cases alone."""
    name = split if split != "auto" else "train" if "train" in dataset.splits else "all"
    fold = fold_of(dataset, split)
    unlabelled = dataset.splits.get("unlabelled", ())
    cases = {case.id: case for case in (fold[0] if fold else dataset.split(name)) if case.id not in unlabelled}
    train, held = tuple(cases), list[Case]()
    if held_out > 0 and split == "auto" and dataset.splits.get("val"):
        held = list(dataset.split("val"))
    elif held_out > 0:
        train, ids = hold_out(sorted(cases), held_out, seed)
        held = [cases[i] for i in ids]
    if count is not None:
        train = drawn(train, count, seed)
    return [cases[i] for i in train], held
