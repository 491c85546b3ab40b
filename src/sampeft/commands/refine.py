"""Fit refiners on a run's held-out cases and keep the best for --refine fitted."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import product
from typing import Any

from sampeft.configs.refine import Config
from sampeft.console import bar, say
from sampeft.data import open_dataset
from sampeft.data.check import check_dataset
from sampeft.errors import UsageError, unknown_name
from sampeft.evaluation.fit_refiner import Rough, fit_refiner
from sampeft.io.raster_windows import glance
from sampeft.one_writer import one_writer
from sampeft.options import check_paths, parse_map
from sampeft.peft.run_files import tensors_file
from sampeft.prediction.loading import load
from sampeft.prediction.sinks import check_refiner
from sampeft.provenance import run_config
from sampeft.refine import REFINERS
from sampeft.refine.stored import FILE, write_fitted
from sampeft.workflows.evaluate import cut_of, same_labels


def check_names(config: Config) -> None:
    if config.refiner is not None and config.refiner not in REFINERS:
        raise unknown_name("refiner", config.refiner, REFINERS)


def run(config: Config) -> int:
    check_paths(config)
    check_names(config)
    with one_writer(config.run):
        return _refine(config)


def _refine(config: Config) -> int:
    segmenter = load(config.run, weights=config.weights)
    dataset = open_dataset(config.data, config.layout, parse_map(config.map))
    same_labels(segmenter.labels, dataset, config.run)
    settings = run_config(config.run)
    ids = config.cases or settings.get("held_out_cases", [])
    if not ids:
        raise UsageError(f"{config.run}: held no cases out; name some that are never scored with --cases")
    if trained := sorted(set(ids) & set(settings.get("training_cases", []))):
        raise UsageError(f"{config.run}: was trained on {', '.join(trained[:5])}; give --cases that it has not seen")
    known = {case.id: case for case in dataset.cases}
    if missing := [name for name in ids if name not in known]:
        raise UsageError(
            f"{dataset.root}: has no case {', '.join(missing[:5])}; give the data that the run was trained on"
        )
    if tested := sorted(set(ids) & set(dataset.splits.get("test", ()))):
        say(f"warning   {', '.join(tested[:5])}: listed as test cases; do not score on them what is fitted on them")
    cases = [known[name] for name in ids]
    check_dataset(dataset, cases, recipe=segmenter.preparation.intensity).raise_on_errors()
    names = [config.refiner] if config.refiner else list(REFINERS)
    if cut := cut_of(segmenter, cases):
        if not config.refiner:
            names = [name for name in names if not REFINERS[name].looks_at_slices()]
            say(f"note      {cut[0]} is cut into windows; the refiners that look at whole images are left out")
        for name, path in product(names, cut):
            check_refiner(REFINERS[name](), path, glance(path)[0])
    with bar("rough maps", len(cases)) as shown:
        rough = Rough.of(segmenter, dataset, cases, shown)
    tried: dict[str, Any] = {}
    best = None
    for name in names:
        with bar(f"fitting {name}") as shown:
            fitted = fit_refiner(name, rough, shown)
        tried[name] = {
            "before": fitted.before,
            "after": fitted.after,
            "options": asdict(fitted.refiner) if fitted.refiner else None,
            "tried": fitted.tried,
        }
        cases_text = f"{len(cases)} held-out case{'' if len(cases) == 1 else 's'}"
        say(f"{name:<16}foreground DSC of {cases_text} {fitted.before:.4f} -> {fitted.after:.4f}")
        if fitted.refiner and (best is None or fitted.after > best.after):
            best = fitted
    if best is None or best.refiner is None:
        stale = (config.run / FILE).is_file()
        (config.run / FILE).unlink(missing_ok=True)  # what was fitted before does not hold any more
        say(f"none helps the held-out cases; nothing is kept{f', and {FILE} of before is removed' if stale else ''}")
    else:
        record = {"fitted_on": ids, "dsc_before": best.before, "dsc_after": best.after}
        kept = write_fitted(config.run, tensors_file(config.run), best.refiner, record)
        say(f"kept in {kept}; use it with --refine fitted")
    if config.json:
        print(json.dumps(tried))
    return 0
