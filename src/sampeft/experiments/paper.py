"""Train and score the rows of the paper's tables, each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sampeft.backbones import NONE, RANDOM, backbone, load_backbone
from sampeft.baselines import BASELINES
from sampeft.configs.oracle import Masks
from sampeft.configs.train import Config as TrainConfig
from sampeft.console import bar, say
from sampeft.data import open_dataset
from sampeft.data.case import Case, Dataset
from sampeft.data.folds import fold_of
from sampeft.data.recipe import chosen_intensity
from sampeft.data.slice_cache import Preparation
from sampeft.errors import UsageError, WeightsError, counted
from sampeft.evaluation.calibrate import Readings
from sampeft.evaluation.score import Look, score_cases, telling_slice
from sampeft.experiments.memo import finish, finished, identity, scored_before
from sampeft.labels import BACKGROUND, LabelSet
from sampeft.metrics.protocols import PROTOCOLS
from sampeft.metrics.scores import Evaluation
from sampeft.model import SemanticSam
from sampeft.oracle.automatic_masks import MaskSettings
from sampeft.oracle.protocols import ORACLE_PROTOCOLS, Oracle
from sampeft.prediction.loading import load
from sampeft.stopping import unless_stopped
from sampeft.training.loop import Training
from sampeft.workflows.evaluate import checked_cases, evaluate_segmenter, held_out_temperature
from sampeft.workflows.oracle import mask_settings as settings_with
from sampeft.workflows.oracle import score
from sampeft.workflows.train import train

DATA = {
    "flare22": ("flare22", "FLARE22", "btcv_slices"),
    "gid5": ("gid_mtl5", "GID-MTL5", "GID5", "gid5"),
    "sirst": ("sirst", "SIRST-5K", "SIRST", "NUAA-SIRST"),
}
"""Folders below the data root that are looked for, the paper's own data first."""

_FAULTY = "Misc_111"
_BASELINE_SIDE = 224  # of the pictures that baselines look at
_RULES = {"flare22": "default", "gid5": "land-cover", "sirst": "targets"}
_FOLD = "fold1of5"
"""What is scored, the rest being trained on, where a data set ships no test list."""


@dataclass(frozen=True, eq=False)
class Row:
    """One method of a table: an oracle on a backbone, a method that is trained, or a baseline that costs nothing.

    heading: what the table calls it. paper: the paper's column that it stands beside; empty: none. head: of what is trained;
    the paper's is `mask`. control: trained without a Segment Anything model. second: on the second backbone (SAM 2).
    """

    heading: str
    paper: str
    kind: Literal["oracle", "trained", "baseline"]
    method: str = "lora"
    options: Mapping[str, Any] = field(default_factory=dict)
    second: bool = False
    head: str = "mask"
    control: bool = False

    @property
    def is_oracle(self) -> bool:
        """Whether the truth that it is scored by was used."""
        return self.kind == "oracle" or (self.kind == "baseline" and BASELINES[self.method].is_oracle)

    @property
    def slug(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in self.heading.lower()).replace("--", "-")


@dataclass(frozen=True)
class Place:
    """Where the data is, on what it is done, and with what effort.

    data: what the paper calls it: flare22, gid5, sirst. undefined: whether pixels without a truth are a background
    class, as in the paper, instead of left out. seeds: how many trainings of each row.
    minutes: of each training; subset: so many test cases, evenly spread over the list; oracle_subset: the same for oracles,
    which ask a model hundreds of times a slice. masks: how oracles make their automatic masks.
    """

    data: str
    root: Path
    out: Path
    backbone: str = "lite-medsam"
    weights: str | None = None
    second_backbone: str = "sam2.1-hiera-t"
    second_weights: str | None = None
    undefined: bool = False
    held_out: float = 0.1
    seeds: int = 2
    side: int | None = None
    minutes: float | None = None
    subset: int | None = None
    oracle_subset: int | None = None
    training: Training = field(default_factory=Training)
    masks: Masks = field(default_factory=Masks)

    @cached_property
    def dataset(self) -> Dataset:
        dataset = open_dataset(self.root)
        dataset = without_faulty(dataset)
        return undefined_as_background(dataset) if self.undefined else dataset

    @cached_property
    def splits(self) -> tuple[str, str]:
        """Names of what is trained on and what is scored: the lists that the data set ships, else a fold of five.
        Raises UsageError where it lists test cases alone, which would then be trained on."""
        shipped = self.dataset.splits
        if "test" not in shipped:
            return _FOLD, _FOLD
        if "train" not in shipped:
            raise UsageError(f"{self.root}: lists test cases but none to train on; add a train.txt")
        return "train", "test"

    @property
    def split(self) -> str:
        return self.splits[1]

    @cached_property
    def listed(self) -> list[Case]:
        """All test cases, checked."""
        return list(checked_cases(self.dataset, self.split))

    @cached_property
    def cases(self) -> list[Case]:
        return spread(self.listed, self.subset)

    @property
    def oracle_cases(self) -> list[Case]:
        return spread(self.cases, self.oracle_subset)

    @property
    def runs(self) -> Path:
        """Folder of what is trained and scored; the two readings of GID's pixels without a truth are apart."""
        return self.out / ("undefined" if self.undefined else "defined") if self.data == "gid5" else self.out

    def stamp(self, rows: Sequence[Row]) -> str:
        """What a reader must know of the effort for these rows, the paper's being unknown."""
        kinds = {row.kind for row in rows}
        parts = [f"{counted(len(self.cases), 'test case')} of {self.dataset.name}"]
        if len(self.cases) < len(self.listed):
            parts[0] += f" (REDUCED: a subset of {len(self.listed)})"
        if self.split == _FOLD:
            parts[0] += f" (it lists none, so {_FOLD} is held against the others)"
        if "oracle" in kinds and len(self.oracle_cases) < len(self.cases):
            parts.append(f"oracles on {len(self.oracle_cases)} of them (REDUCED)")
        if "trained" in kinds:
            minutes, steps = self.minutes or self.training.minutes, self.training.steps
            limits = [f"{steps} steps"] if steps else []
            limits += [f"{minutes_text(minutes)}{' (REDUCED by --budget)' if self.minutes else ''}"] if minutes else []
            each = " each" if self.seeds > 1 else ""
            parts.append(f"{counted(self.seeds, 'seed')}, {' or '.join(limits) or '30 minutes'} of training{each}")
            parts.append(f"{self.backbone} at side {self.side or backbone(self.backbone).side}")
        else:
            parts.append(self.backbone)
        if RANDOM in (self.weights, *(self.second_weights for row in rows if row.second)):
            parts.append("RANDOM WEIGHTS: nothing pretrained is used")
        return "; ".join(parts)


def minutes_text(minutes: float) -> str:
    return f"{minutes:.3g} minute{'' if minutes == 1 else 's'}"


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
        f"{data_root}: has none of {', '.join(DATA[data])}; `sampeft fetch --list` says where to get them, or give --data FOLDER"
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
    channels = {**{stored: channel + 1 for channel, stored in enumerate(labels.ids)}, labels.ignore: 0}
    stored = {**channels, **{value: channels[id] for value, id in dataset.label_values.items()}}
    # Ids are taken from the values that files may hold, so that a value that was an error stays one.
    ids = tuple(sorted(stored)[: len(labels) + 1])
    return replace(
        dataset,
        name=f"{dataset.name}, undefined as background",
        labels=LabelSet((BACKGROUND, *labels.names), ids, None, labels.pairs, ((0, 0, 0), *labels.colors)),
        label_values={value: ids[channel] for value, channel in stored.items()},
    )


def trained(place: Place, row: Row, seed: int) -> Path:
    """Folder of the trained run; trains it unless that was done before. Raises KeyboardInterrupt where it is stopped, UsageError
    where it was trained before with other settings."""
    run = place.runs / row.slug / f"seed{seed}" / "run"
    training = replace(place.training, seed=seed, minutes=place.minutes or place.training.minutes)
    config = TrainConfig(
        data=place.root,
        out=run,
        backbone=NONE if row.control else place.backbone,
        weights=None if row.control else place.weights,
        head=row.head,
        method=row.method,
        options=dict(row.options),
        split=place.splits[0],
        held_out=place.held_out,
        side=place.side,
        training=training,
        plan=False,
        resume=True,
        force=True,
    )
    settings = identity(config, place.dataset.name)
    if not finished(run, settings):
        say(f"\ntraining  {row.heading}, seed {seed}")
        result = unless_stopped(train(config, place.dataset))
        finish(run, settings, steps=result.steps, minutes=result.minutes)
    return run


def scored(place: Place, row: Row) -> list[Evaluation]:
    """An evaluation for each seed of a trained row, one for an oracle; those of before are read. Nothing where the second
    backbone's weights are not here."""
    if row.kind == "oracle":
        evaluation = _scored_oracle(place, row)
        return [] if evaluation is None else [evaluation]
    if row.kind == "baseline":
        return [_scored_baseline(place, row)]
    return [_scored_run(place, row, seed) for seed in range(place.seeds)]


def _scored_run(place: Place, row: Row, seed: int) -> Evaluation:
    run = trained(place, row, seed)
    folder = run.parent / "eval"
    if known := scored_before(folder, place.cases, {"data": place.dataset.name}):
        return known
    segmenter = load(run, weights=place.weights)
    temperatures = held_out_temperature(segmenter, place.dataset, place.cases, [run])
    reader = Readings(temperatures)
    say(f"scoring   {row.heading}, seed {seed}")
    rules = PROTOCOLS[_RULES[place.data]]
    evaluation, _ = evaluate_segmenter(segmenter, place.dataset, place.cases, place.split, None, rules, reader)
    evaluation.write(folder)
    return evaluation


def _scored_baseline(place: Place, row: Row) -> Evaluation:
    folder = place.runs / row.slug / "eval"
    baseline = BASELINES[row.method]
    if known := scored_before(folder, place.cases, {"data": place.dataset.name, "baseline": row.method}):
        return known
    say(f"scoring   {row.heading}")
    fold = fold_of(place.dataset, place.splits[0])
    training = fold[0] if fold else place.dataset.split(place.splits[0])
    _, recipe = chosen_intensity("auto", None, place.cases, place.dataset.modality)
    preparation = Preparation(recipe, _BASELINE_SIDE)
    meta = {"model": row.heading, "data": place.dataset.name, "split": place.split, "oracle": baseline.is_oracle}
    meta["baseline"] = row.method
    predict = baseline.fit(place.dataset, training, preparation)
    with bar("scoring", len(place.cases)) as shown:
        evaluation, _ = score_cases(
            *(predict, place.dataset, place.cases, preparation, meta, shown), protocol=PROTOCOLS[_RULES[place.data]]
        )
    evaluation.write(folder)
    return evaluation


def _scored_oracle(place: Place, row: Row) -> Evaluation | None:
    folder = place.runs / row.slug / "eval"
    name, weights = _of_oracle(place, row)
    settings = mask_settings(place, row)
    masks = {**asdict(settings), "in_words": str(settings)}
    asked = {"data": place.dataset.name, "backbone": name, "weights": weights, "automatic_masks": masks}
    if known := scored_before(folder, place.oracle_cases, asked):
        return known
    if (oracle := oracle_of(place, row)) is None:
        return None
    say(f"scoring   {row.heading}: {settings}")
    rules = PROTOCOLS[_RULES[place.data]]
    evaluation = score(oracle[0], place.dataset, place.oracle_cases, oracle[1], place.split, rules=rules)["masks"][0]
    evaluation.meta["weights"] = weights
    evaluation.write(folder)
    return evaluation


def _of_oracle(place: Place, row: Row) -> tuple[str, str | None]:
    """Backbone and weights of the row."""
    return (place.second_backbone, place.second_weights) if row.second else (place.backbone, place.weights)


def mask_settings(place: Place, row: Row) -> MaskSettings:
    return settings_with(place.masks, backbone(_of_oracle(place, row)[0]))


def oracle_of(place: Place, row: Row) -> tuple[Oracle, Preparation] | None:
    """The paper's oracle (best automatic masks) on the row's backbone; None where the second backbone has no weights
    here, which is said."""
    try:
        loaded = load_backbone(*_of_oracle(place, row))
    except WeightsError as error:
        if not row.second:
            raise
        say(f"note      {row.heading} is left out: {error}")
        return None
    model = SemanticSam(loaded, place.dataset.labels, loaded.spec.native_side)
    if torch.cuda.is_available():
        model.cuda()
    _, recipe = chosen_intensity("auto", None, place.cases, place.dataset.modality)
    return Oracle(model, (ORACLE_PROTOCOLS["masks"],), mask_settings(place, row)), Preparation(recipe, model.side)


def looks(place: Place, row: Row, cases: Sequence[Case]) -> list[Look]:
    """The telling slice of each case as the row sees it (of a trained row the first seed); the truth picks the slice, so
    that it is the same for every row. Nothing where `scored` gives nothing."""
    if row.kind == "trained":
        segmenter = load(trained(place, row, 0), weights=place.weights)
        return evaluate_segmenter(segmenter, place.dataset, cases, place.split)[1]
    if (made := oracle_of(place, row)) is None:
        return []
    oracle, preparation = made
    found: list[Look] = []
    with bar("oracle", len(cases)) as shown:
        for number, case in enumerate(cases):
            telling = telling_slice(place.dataset, case, preparation)

            def within(part: float, done: int = number) -> None:
                shown.update(done + part)

            choices, _ = oracle.choose(telling.prepared, telling.index, telling.truth_HW, within)
            found.append(telling.look(choices["masks"].channels_HW))
    return found
