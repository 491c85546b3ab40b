"""Start a training from another run's weights; classes are matched by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from sampeft.errors import UsageError
from sampeft.labels import LabelSet
from sampeft.model import SemanticSam
from sampeft.peft.run_files import WEIGHTS, read_description, read_tensors
from sampeft.peft.state import load_trained, trained_state

_BY_CLASS = re.compile(r"^head\.(.*\.)?(tokens|own_tokens|here\.\w+|everywhere\.\w+|presence\.\w+|coarse\.\d+\.\w+)$")
"""Tensors of heads whose first axis is of classes."""
_OF_A_CLASS = re.compile(r"^(head\.(?:.*\.)?hypernetworks\.)(\d+)(\..*)$")
"""Tensors of heads that are of the class with this number."""


def start_from(model: SemanticSam, folder: Path, head: str) -> list[str]:
    """Copy what a run has trained into a model whose method is attached, and what it knows of classes to those of the same
    names; other classes stay as they are. Returns what became of the classes, a line each.

    head: the model's, by name. Raises UsageError for a run of another backbone or head or none of whose classes are here,
    WeightsError for one whose weights are missing, not finite or do not fit.
    """
    described = read_description(folder)
    for what, theirs, ours in (
        ("backbone", described["backbone"], model.spec.name),
        ("head", described.get("head", "mask"), head),
    ):
        if theirs != ours:
            raise UsageError(
                f"--start_from {folder}: has the {what} {theirs}, this training {ours}; give --{what} {theirs}"
            )
    state = read_tensors(folder, described)
    labels = LabelSet.from_json(described["label_map"], folder / "adapter.json")
    shared = [name for name in model.labels.names if name in labels.names]
    if not [name for name in shared if name != "background"]:
        raise UsageError(
            f"--start_from {folder}: was trained for {', '.join(labels.names)}, none of which is a class here "
            f"({', '.join(model.labels.names)})"
        )
    load_trained(model, by_names(state, trained_state(model), labels, model.labels), folder / WEIGHTS, partial=True)
    new = [name for name in model.labels.names if name not in labels.names]
    gone = [name for name in labels.names if name not in model.labels.names]
    return [
        f"{len(shared)} classes by name ({', '.join(shared)})",
        *([f"new, untrained: {', '.join(new)}"] if new else []),
        *([f"left behind: {', '.join(gone)}"] if gone else []),
    ]


def by_names(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], theirs: LabelSet, ours: LabelSet
) -> dict[str, torch.Tensor]:
    """The tensors of a run with the classes `theirs`, put in the order of `ours`; own: the model's tensors, which classes
    that the run lacks keep."""
    pairs = [(theirs.names.index(name), i) for i, name in enumerate(ours.names) if name in theirs.names]
    number = dict(pairs)
    found: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if match := _OF_A_CLASS.match(name):
            if (there := int(match[2])) in number:
                found[f"{match[1]}{number[there]}{match[3]}"] = value
        elif _BY_CLASS.match(name) and name in own and own[name].shape[1:] == value.shape[1:]:
            found[name] = own[name].clone()
            for there, here in pairs:
                found[name][here] = value[there]
        else:
            found[name] = value
    return found
