"""Plan and run a sweep: every combination of option values, over folds and seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from sampeft.arguments import Parser
from sampeft.configs.sweep import Config
from sampeft.configs.train import Config as TrainConfig
from sampeft.console import say
from sampeft.data import open_dataset
from sampeft.data.case import Case, Dataset
from sampeft.data.folds import fold_of, split_cases
from sampeft.data.recipe import chosen_intensity
from sampeft.errors import UsageError, unknown_name
from sampeft.experiments.grid import Axis, Plan, Run, axis_of, flags
from sampeft.experiments.memo import plain_settings, settings_before, write_json
from sampeft.experiments.sweep_results import write_ranking
from sampeft.experiments.sweep_runs import Part, Sweep, claim, failures, held
from sampeft.metrics.protocols import protocol_of
from sampeft.options import parse_map
from sampeft.provenance import differences
from sampeft.workflows.train import check_names as check_names_of_training

PLAN, COMPARING = "plan.json", "comparing.lock"


_FORMAT = 1


_FREE = {"options", "denoise_options"}  # hold whatever a method or denoiser takes


def check_names(config: Config) -> None:
    """As `train` does; of the sweep's own the protocol."""
    check_names_of_training(config)
    protocol_of(config.protocol, None)


def planned(config: Config) -> Sweep:
    """The sweep as asked for. Raises UsageError for anything that is known to be wrong before the first training."""
    if config.task != "segment":
        raise UsageError("a sweep trains segmenters; leave --task out")
    protocol = protocol_of(config.protocol, None)
    texts = [config.set] if isinstance(config.set, str) else config.set or []
    axes = tuple(axis_of(text) for text in texts)
    base = TrainConfig(**{f.name: getattr(config, f.name) for f in fields(TrainConfig)})
    dataset = open_dataset(config.data, config.layout, parse_map(config.map))
    parts = {part.name: part for part in parts_of(config, dataset)}
    seeds = tuple(range(config.training.seed, config.training.seed + config.seeds))
    plan = Plan(axes, tuple(parts), seeds)
    read = OptionReader(base)
    configs = {name: read(axes, values) for name, values in plan.settings.items()}
    for setting in configs.values():
        check_names_of_training(setting)
    # Folds begin with other cases, whose first image alone would choose; it must be one choice for all runs.
    first = next(iter(parts.values())).dataset.split("train")
    resolved = {name: with_one_intensity(setting, first, dataset.modality) for name, setting in configs.items()}
    return Sweep(config.out, plan, resolved, parts, protocol)


def with_one_intensity(config: TrainConfig, cases: Sequence[Case], modality: str) -> TrainConfig:
    """`auto` replaced by what it comes to for these cases."""
    name, recipe = chosen_intensity(config.intensity, config.bands, cases, modality)
    bands = config.bands or (",".join(map(str, recipe.bands)) if recipe.bands else None)
    return replace(config, intensity=name, bands=bands)


def parts_of(config: Config, dataset: Dataset) -> list[Part]:
    """Which cases are left out and scored. Test cases are in none of it unless they are asked for by name."""
    if config.split.startswith("fold"):
        raise UsageError(f"--split {config.split}: a sweep makes all folds itself; give --folds, such as --folds 5")
    on_test = config.split == "test"
    if on_test and config.folds is not None:
        raise UsageError("--folds scores every case that is trained on once; leave --split test out")
    tests = dataset.split("test") if on_test else ()
    if on_test and not tests:
        raise UsageError(f"{dataset.root}: lists no test cases; leave --split out to score held-out cases")
    split = "auto" if on_test else config.split
    known = without_tests(dataset) if split == "auto" else dataset
    seed = config.training.seed
    if config.folds is None:
        # The same cases are held out for all seeds, so that their scores can be averaged.
        train, held_out = split_cases(known, split, config.held_out, seed)
        if not (tests or held_out):
            raise UsageError("nothing is left to score: give --folds 5, or hold cases out with --held_out 0.15")
        warn_of_tests(dataset, [] if on_test else held_out)
        return [part("test" if on_test else "held_out", dataset, train, held_out, tests)]
    cases, _ = split_cases(known, split, 0, seed)
    if split == "auto" and "val" in known.splits:
        cases += [case for case in known.split("val") if case not in cases]
    warn_of_tests(dataset, cases)
    pool = replace(known, cases=tuple(case for case in known.cases if case in cases), splits={})
    found = []
    for name in [f"fold{number}of{config.folds}" for number in range(1, config.folds + 1)]:
        _, inside = fold_of(pool, name) or ([], [])
        train, held_out = split_cases(pool, name, config.held_out, seed)
        found.append(part(name, dataset, train, held_out, inside))
    return found


def part(name: str, dataset: Dataset, train: Sequence[Case], held_out: Sequence[Case], scored: Sequence[Case]) -> Part:
    """scored: beside the held-out cases; nothing: those are scored themselves."""
    named = {"train": train, "val": held_out, "test": scored}
    splits = {split: tuple(case.id for case in cases) for split, cases in named.items() if cases}
    if unlabelled := dataset.splits.get("unlabelled"):
        splits["unlabelled"] = unlabelled
    return Part(name, replace(dataset, splits=splits), "test" if scored else "val")


def without_tests(dataset: Dataset) -> Dataset:
    listed = set(dataset.splits.get("test", ()))
    splits = {name: ids for name, ids in dataset.splits.items() if name != "test"}
    return replace(dataset, cases=tuple(case for case in dataset.cases if case.id not in listed), splits=splits)


def warn_of_tests(dataset: Dataset, scored: Sequence[Case]) -> None:
    if tested := sorted({case.id for case in scored} & set(dataset.splits.get("test", ()))):
        say(
            f"warning   {len(tested)} of the scored cases are listed as test cases ({', '.join(tested[:4])}); once settings "
            "are chosen by them, they say nothing of unseen cases"
        )


class OptionReader:
    """Values as the command line writes them -> a training's settings, read by the parser of `sampeft train`."""

    def __init__(self, base: TrainConfig) -> None:
        self.parser = Parser("train", "", TrainConfig)
        self.base = self.parser.parse_object(plain_settings(base))
        self.known = set(_options(asdict(base)))

    def __call__(self, axes: tuple[Axis, ...], values: Mapping[str, str]) -> TrainConfig:
        for axis in axes:
            if axis.option not in self.known and axis.option.partition(".")[0] not in _FREE:
                raise unknown_name("option of train", axis.option, self.known)
        try:
            read = self.parser.parse_args(flags(values), namespace=self.base.clone())
            read.pop("config", None)
            return TrainConfig(**vars(self.parser.instantiate_classes(read)))
        except (UsageError, TypeError, ValueError) as error:
            raise UsageError(f"--set {' '.join(f'{o}={v}' for o, v in values.items())}: {error}") from None


def _options(settings: Mapping[str, Any], within: str = "") -> list[str]:
    """`training.augmentation.shift` and all others."""
    found = []
    for name, value in settings.items():
        found += [f"{within}{name}"] if not isinstance(value, dict) else _options(value, f"{within}{name}.")
    return found


def plan_json(config: Config, sweep: Sweep) -> dict[str, Any]:
    """What plan.json holds: all that two processes must agree on, and the runs in words."""
    base = TrainConfig(**{f.name: getattr(config, f.name) for f in fields(TrainConfig)})
    one = next(iter(sweep.parts.values()))
    training = {**plain_settings(base), "data": one.dataset.name}
    for name in ("out", "resume", "force", "json"):
        del training[name]
    return {
        "format": _FORMAT,
        "training": training,
        "set": {axis.option: ", ".join(axis.values) for axis in sweep.plan.axes},
        "parts": {name: f"{part.trained} cases, {len(part.cases)} scored" for name, part in sweep.parts.items()},
        "seeds": ", ".join(map(str, sweep.plan.seeds)),
        "protocol": sweep.protocol.name,
        "intensity": {name: setting.intensity for name, setting in sweep.configs.items()},
        "scored": {case.id: name for name, part in sweep.parts.items() for case in part.cases},
        "runs": [run.name for run in sweep.plan.runs],
    }


def keep_plan(sweep: Sweep, now: dict[str, Any]) -> None:
    """Write plan.json, or check the one that is there. Raises UsageError naming what differs."""
    path = sweep.out / PLAN
    sweep.out.mkdir(parents=True, exist_ok=True)
    with claim(sweep.out / ".plan.lock"):  # of processes that start at once one writes, and the others compare
        if not path.is_file():
            write_json(path, now)
            return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: cannot be read ({error}); choose another --out") from None
    parts = {name: now[name] for name in now if name != "runs"}
    changed = differences(before, parts, {"training": settings_before()})
    changed += [f"set.{option} was {was}, is not given" for option, was in before.get("set", {}).items()
                if option not in now["set"]]  # fmt: skip
    changed += [f"{name} was {was}, is not there" for name, was in before.get("parts", {}).items()
                if name not in now["parts"]]  # fmt: skip
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise UsageError(f"{path}: is another plan ({'; '.join(changed[:5])}{more}); choose another --out")


def conclude(sweep: Sweep, share: Sequence[Run], config: Config) -> int:
    """The last of all processes compares; every one says which of its share failed. Exit code 1 when any did."""
    own, failed = failures(sweep, share), failures(sweep, sweep.plan.runs)
    for name, reason in own.items():
        say(f"failed    {name}: {reason}")
    if own:
        say(f"{len(own)} of {len(share)} runs failed; the same command tries them again")
    code = 1 if own else 0
    if left := len(sweep.plan.runs) - len(sweep.done()) - len(failed):
        say(f"\n{left} runs are not done yet, here or elsewhere; whoever does the last makes the comparison")
        return code
    with held(claim(sweep.out / COMPARING)) as is_ours:
        if not is_ours:
            say("\nall runs are done; another process is comparing them")
            return code
        content = write_ranking(sweep, failed)
    print(json.dumps(content) if config.json else (sweep.out / "ranking.md").read_text(encoding="utf-8"))
    say(f"results in {config.out}")
    return code
