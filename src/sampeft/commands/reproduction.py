"""Data root and settings in, trained and scored rows of the paper's tables out, each done once and found again later."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sampeft.automatic_masks import MaskSettings
from sampeft.backbones import load_backbone
from sampeft.commands.evaluate import checked_cases, evaluate_segmenter, held_out_temperature
from sampeft.commands.oracle import score
from sampeft.commands.train import Config as TrainConfig
from sampeft.commands.train import chosen_intensity, say, train
from sampeft.data import open_dataset
from sampeft.data.cache import Preparation
from sampeft.data.case import Case, Dataset
from sampeft.errors import SampeftError, UsageError, WeightsError
from sampeft.evaluation import Look
from sampeft.inference import load
from sampeft.io import write_atomically
from sampeft.labels import BACKGROUND, LabelSet
from sampeft.metrics.protocols import PROTOCOLS as SCORING
from sampeft.metrics.scores import Evaluation
from sampeft.metrics.statistics import Interval, Scores, bootstrap_interval, bootstrap_per_class
from sampeft.model import SemanticSam
from sampeft.oracle import PROTOCOLS, Oracle
from sampeft.probabilities import CalibratedPredictor
from sampeft.training import Training

DATA = {
    "flare22": ("flare22", "FLARE22", "btcv_slices"),
    "gid5": ("gid_mtl5", "GID-MTL5", "GID5", "gid5"),
    "sirst": ("sirst", "SIRST-5K", "SIRST", "NUAA-SIRST"),
}
"""Folders below the data root that are looked for, the paper's own data first."""

DONE = "complete.json"
_FAULTY = "Misc_111"
_RULES = {"flare22": "default", "gid5": "land-cover", "sirst": "targets"}


class StoppedError(SampeftError):
    """A training was stopped by Ctrl-C or SIGTERM; what is done is kept."""


@dataclass(frozen=True, eq=False)
class Row:
    """One method of a table: an oracle on a backbone, or a method that is trained.

    heading: what the table calls it. paper: the paper's column that it stands beside.
    """

    heading: str
    paper: str
    kind: Literal["oracle", "trained"]
    method: str = "lora"
    options: Mapping[str, Any] = field(default_factory=dict)
    second: bool = False  # on the second backbone (SAM 2)

    @property
    def slug(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in self.heading.lower()).replace("--", "-")


@dataclass(frozen=True)
class Place:
    """Where the data is, on what it is done, and with what effort.

    data: what the paper calls it: flare22, gid5, sirst. undefined: whether pixels without a truth are a background
    class, as in the paper, instead of left out. seeds: how many trainings of each row.
    minutes: of each training; subset: so many test cases, evenly spread over the list; oracle_subset: the same for oracles,
    which ask a model hundreds of times a slice.
    """

    data: str
    root: Path
    out: Path
    backbone: str = "lite-medsam"
    weights: str | None = None
    second_backbone: str = "sam2.1-hiera-t"
    second_weights: str | None = None
    undefined: bool = False
    split: str = "test"
    held_out: float = 0.1
    seeds: int = 2
    side: int | None = None
    minutes: float | None = None
    subset: int | None = None
    oracle_subset: int | None = None
    training: Training = field(default_factory=Training)

    @cached_property
    def dataset(self) -> Dataset:
        dataset = open_dataset(self.root)
        dataset = without_faulty(dataset)
        return undefined_as_background(dataset) if self.undefined else dataset

    @cached_property
    def cases(self) -> list[Case]:
        return spread(list(checked_cases(self.dataset, self.split)), self.subset)

    @property
    def oracle_cases(self) -> list[Case]:
        return spread(self.cases, self.oracle_subset)

    @property
    def stamp(self) -> str:
        """What a reader must know of the effort, the paper's being unknown."""
        training = self.training
        parts = [f"{len(self.cases)} test cases of {self.dataset.name}"]
        if self.subset:
            parts[0] += f" (REDUCED: a subset of {len(self.dataset.split(self.split))})"
        if len(self.oracle_cases) < len(self.cases):
            parts.append(f"oracles on {len(self.oracle_cases)} of them (REDUCED)")
        limits = [f"{training.steps} steps"] if training.steps else []
        limits += [f"{self.minutes:.3g} minutes"] if self.minutes else []
        parts.append(f"{self.seeds} seeds, {' or '.join(limits) or '30 minutes'} of training each")
        if self.minutes:
            parts[-1] += " (REDUCED by --budget)"
        return f"{'; '.join(parts)}; {self.backbone}, side {self.side or 'by default'}"


def spread(cases: list[Case], count: int | None) -> list[Case]:
    """So many of the cases, evenly spread over the list; all where there are no more."""
    if not count or count >= len(cases):
        return cases
    return [cases[i] for i in np.linspace(0, len(cases) - 1, count).round().astype(int)]


def find_data(data: str, data_root: Path, given: Path | None) -> Path:
    """The folder of a data set: as given, or the first of its known names below the root."""
    if given:
        return given
    for name in DATA[data]:
        if (data_root / name).is_dir():
            return data_root / name
    raise UsageError(
        f"{data_root}: has none of {', '.join(DATA[data])}; `sampeft fetch` lists where to get them, or give --data FOLDER"
    )


def without_faulty(dataset: Dataset) -> Dataset:
    """Without SIRST's Misc_111, whose mask as published has another size than its image."""
    if "sirst" not in dataset.name.lower() or all(case.id != _FAULTY for case in dataset.cases):
        return dataset
    say(f"note      {_FAULTY} is left out: its published mask (592 x 400) does not fit its image (325 x 220)")
    kept = tuple(case for case in dataset.cases if case.id != _FAULTY)
    splits = {name: tuple(i for i in ids if i != _FAULTY) for name, ids in dataset.splits.items()}
    return replace(dataset, cases=kept, splits=splits)


def undefined_as_background(dataset: Dataset) -> Dataset:
    """The reading that the paper averages by: pixels without a truth are a class, which the model has to find."""
    labels = dataset.labels
    if labels.has_background or labels.ignore is None:
        return dataset
    new_ids = {old: old + 1 for old in labels.ids}
    values = {stored: new_ids.get(i, 0) for stored, i in {**{i: i for i in labels.ids}, **dataset.label_values}.items()}
    values[labels.ignore] = 0
    shifted = LabelSet(
        (BACKGROUND, *labels.names), (0, *new_ids.values()), None, labels.pairs, ((0, 0, 0), *labels.colors)
    )
    colors = {color: new_ids.get(i, 0) for color, i in (dataset.label_colors or {}).items()}
    return replace(
        dataset,
        name=f"{dataset.name}, undefined as background",
        labels=shifted,
        label_values=values,
        label_colors=colors or None,
    )


def trained(place: Place, row: Row, seed: int) -> Path:
    """Folder of the trained run; trains it unless that was done before. Raises StoppedError on Ctrl-C."""
    run = place.out / row.slug / f"seed{seed}" / "run"
    training = replace(place.training, seed=seed, minutes=place.minutes or place.training.minutes)
    config = TrainConfig(
        data=place.root,
        out=run,
        backbone=place.backbone,
        weights=place.weights,
        method=row.method,
        options=dict(row.options),
        split="train" if "train" in place.dataset.splits else "auto",
        held_out=place.held_out,
        side=place.side,
        training=training,
        force=True,
    )
    settings = json.loads(json.dumps({**asdict(config), "data": place.dataset.name, "out": None}, default=str))
    if (run / DONE).is_file():
        before = json.loads((run / DONE).read_text(encoding="utf-8"))["settings"]
        if before != settings:
            changed = ", ".join(key for key in settings if before.get(key) != settings[key])
            raise UsageError(f"{run}: was trained with other settings ({changed}); choose another --out")
        return run
    say(f"\ntraining  {row.heading}, seed {seed}")
    result = train(config, place.dataset)
    if result.stopped:
        raise StoppedError(f"stopped; what is done is in {place.out}, run the same command again to go on")
    content = {"settings": settings, "steps": result.steps, "minutes": result.minutes}
    write_atomically(run / DONE, (json.dumps(content, indent=1) + "\n").encode())
    return run


def scored(place: Place, row: Row) -> list[Evaluation]:
    """An evaluation for each seed of a trained row, one for an oracle; those of before are read. Nothing where the second
    backbone's weights are not here."""
    rules = SCORING[_RULES[place.data]]
    found = []
    for seed in range(place.seeds) if row.kind == "trained" else (None,):
        folder = place.out / row.slug / ("eval" if seed is None else f"seed{seed}/eval")
        cases = place.oracle_cases if seed is None else place.cases
        if (folder / "summary.json").is_file():
            known = Evaluation.read(folder)
            if known.cases == tuple(case.id for case in cases):
                found.append(known)
                continue
        if seed is None:
            if (oracle := oracle_of(place, row)) is None:
                return []
            say(f"scoring   {row.heading}: {oracle[0].settings}")
            evaluation = score(oracle[0], place.dataset, cases, oracle[1], place.split, rules=rules)["masks"][0]
        else:
            segmenter = load(trained(place, row, seed), weights=place.weights)
            temperatures = held_out_temperature(segmenter, place.dataset, cases, folder.parent / "run")
            reader = CalibratedPredictor(segmenter.model, temperatures)
            say(f"scoring   {row.heading}, seed {seed}")
            evaluation, _ = evaluate_segmenter(segmenter, place.dataset, cases, place.split, None, rules, reader)
        evaluation.write(folder)
        found.append(evaluation)
    return found


def oracle_of(place: Place, row: Row) -> tuple[Oracle, Preparation] | None:
    """The paper's oracle (best automatic masks) on the row's backbone; None where the second backbone has no weights
    here, which is said."""
    name, weights = (place.second_backbone, place.second_weights) if row.second else (place.backbone, place.weights)
    try:
        loaded = load_backbone(name, weights)
    except WeightsError as error:
        if not row.second:
            raise
        say(f"note      {row.heading} is left out: {error}")
        return None
    model = SemanticSam(loaded, place.dataset.labels, loaded.spec.native_side)
    _, recipe = chosen_intensity(TrainConfig(place.root, place.out), place.cases[0], place.dataset.modality)
    return Oracle(model, (PROTOCOLS["masks"],), MaskSettings.suited_to(loaded.spec)), Preparation(recipe, model.side)


def looks(place: Place, row: Row, cases: Sequence[Case]) -> list[Look]:
    """The telling slice of each case as the row sees it (of a trained row the first seed); the truth picks the slice, so
    that it is the same for every row. Nothing where `scored` gives nothing."""
    if row.kind == "trained":
        segmenter = load(trained(place, row, 0), weights=place.weights)
        return evaluate_segmenter(segmenter, place.dataset, cases, place.split)[1]
    oracle = oracle_of(place, row)
    return score(oracle[0], place.dataset, cases, oracle[1], place.split)["masks"][1] if oracle else []


@dataclass(frozen=True)
class SeedMean:
    """Several trainings of one method on the same cases: scores are averaged over seeds first, then over cases.

    classes: foreground class -> interval over cases. headline: foreground mean; each: that of every seed.
    with_background: mean with background, as the paper averages; None without a background class.
    """

    classes: dict[str, Interval]
    headline: Interval
    each: tuple[float, ...]
    with_background: float | None
    background: float | None

    @classmethod
    def of(cls, evaluations: Sequence[Evaluation], metric: str = "dsc") -> SeedMean:
        first = evaluations[0]
        stack = np.stack([evaluation.matrix(metric) for evaluation in evaluations])
        with np.errstate(invalid="ignore"):
            known = np.maximum((~np.isnan(stack)).sum(axis=0), 1)
            matrix: Scores = np.where(np.isnan(stack).all(axis=0), np.nan, np.nansum(stack, axis=0) / known)
        channels = list(first.labels.foreground)
        intervals = bootstrap_per_class(matrix[:, channels], bounds=(0.0, 1.0))
        has = first.labels.has_background
        with_background = float(np.mean([e.with_background_mean(metric) for e in evaluations])) if has else None
        return cls(
            {first.labels.names[k]: interval for k, interval in zip(channels, intervals, strict=True)},
            bootstrap_interval(matrix[:, channels], bounds=(0.0, 1.0)),
            tuple(e.headline(metric).mean for e in evaluations),
            with_background,
            float(np.nanmean(matrix[:, 0])) if has else None,
        )
