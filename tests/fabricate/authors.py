"""The authors' own implementations from their pip packages, with random weights that leave no table at zero."""

from __future__ import annotations

import functools
from typing import Any
from unittest import mock

import pytest
import torch

SAM_VIT = {"sam-vit-b": "vit_b", "sam-vit-l": "vit_l", "sam-vit-h": "vit_h"}
SAM2 = [f"{version}-hiera-{size}" for version in ("sam2", "sam2.1") for size in ("t", "s", "b+", "l")]


def build(name: str) -> Any:
    """Skips when the package is not there."""
    if name in SAM_VIT:
        return pytest.importorskip("segment_anything").sam_model_registry[SAM_VIT[name]]()
    pytest.importorskip("sam2")
    from hydra import compose
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    version, size = name.split("-hiera-")
    decoder = "++model.sam_mask_decoder_extra_args.dynamic_multimask"  # as the package's own loader sets it
    wanted = [f"{decoder}_via_stability=true", f"{decoder}_stability_delta=0.05", f"{decoder}_stability_thresh=0.98"]
    config = compose(config_name=f"configs/{version}/{version}_hiera_{size}.yaml", overrides=wanted)
    OmegaConf.resolve(config)
    linspace = functools.partial(torch.linspace, device="cpu")  # its values are read, which meta tensors have not
    with mock.patch("torch.linspace", linspace):
        return instantiate(config.model, _recursive_=True)


def with_full_tables(model: Any) -> Any:
    """Position tables and single embeddings start as zeros; an error in their place would not show."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "pos" in name or name.startswith("no_mem"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()
