"""`sampeft oracle`: the pretrained model helped by the truth, scored."""

from __future__ import annotations

import torch

from sampeft.backbones import backbone, check_weights, load_backbone
from sampeft.configs.oracle import Config
from sampeft.console import say
from sampeft.data import open_dataset
from sampeft.data.recipe import check_intensity, chosen_intensity
from sampeft.data.slice_cache import Preparation
from sampeft.errors import UsageError
from sampeft.model import SemanticSam
from sampeft.one_writer import one_writer
from sampeft.options import check_paths, parse_map
from sampeft.oracle.protocols import Oracle, protocols_of
from sampeft.provenance import plain_json
from sampeft.report.results import begin_results, check_origin, write_results
from sampeft.workflows.evaluate import checked_cases
from sampeft.workflows.oracle import add_notes, mask_settings, notes_of, score, write_side_by_side


def check_names(config: Config) -> None:
    protocols_of(config.protocols)
    spec = backbone(config.backbone)
    if not spec.is_sam:
        raise UsageError("an oracle prompts a Segment Anything model, and the backbone none is none; choose another")
    check_weights(spec, config.weights)
    mask_settings(config.masks, spec)
    check_intensity(config.intensity, config.bands)


def run(config: Config) -> int:
    check_paths(config)
    check_names(config)
    with one_writer(config.out):
        return _run(config)


def _run(config: Config) -> int:
    protocols, spec = protocols_of(config.protocols), backbone(config.backbone)
    settings = mask_settings(config.masks, spec)
    several = len(protocols) > 1
    folders = {protocol.name: config.out / protocol.name if several else config.out for protocol in protocols}
    known = {"data": str(config.data.resolve()), "split": config.split, "backbone": config.backbone}
    origins = {folder: {"oracle": name, **known} for name, folder in folders.items()}
    if several:
        origins[config.out] = {"oracle": "several", **known}
    for folder, origin in origins.items():
        check_origin(folder, origin, config.force)
    dataset = open_dataset(config.data, config.layout, parse_map(config.map))
    cases = checked_cases(dataset, config.split)
    _, recipe = chosen_intensity(config.intensity, config.bands, cases, dataset.modality)
    model = SemanticSam(load_backbone(config.backbone, config.weights), dataset.labels, config.side or spec.native_side)
    if torch.cuda.is_available():
        model.cuda()
    if any(protocol.apart for protocol in protocols):
        say(f"automatic masks: {settings}")
    for folder, origin in origins.items():
        begin_results(folder, origin)
    results = score(
        Oracle(model, protocols, settings),
        dataset,
        cases,
        Preparation(recipe, model.side),
        config.split,
        config.out if config.maps else None,
    )
    for name, (evaluation, looks) in results.items():
        folder = folders[name]
        write_results(folder, {str(evaluation.meta["model"]): evaluation}, looks, extra_notes=notes_of(evaluation))
        add_notes(folder / "table.md", [evaluation])
    if several:
        write_side_by_side(config.out, results)
    first = folders[protocols[0].name]
    print(plain_json(first / "summary.json") if config.json else (config.out / "table.md").read_text(encoding="utf-8"))
    say(f"results in {config.out}")
    return 0
