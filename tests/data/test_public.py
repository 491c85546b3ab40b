"""The table of public data and weights is consistent with itself and with the backbones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sampeft.backbones import BACKBONES
from sampeft.data.public import Public
from sampeft.io import sha256
from sampeft.workflows.fetch import fetchable

KNOWN = fetchable()


@pytest.mark.parametrize("public", KNOWN.values(), ids=KNOWN)
def test_an_entry_can_be_acted_on(public: Public) -> None:
    assert sum(map(bool, (public.url, public.hub, public.package, public.by_hand))) == 1
    assert public.licence
    assert public.cite
    assert public.page.startswith("https://")
    assert (public.kind == "weights") == bool(public.backbone)
    assert public.sha256 is None or re.fullmatch("[0-9a-f]{64}", public.sha256)
    assert "|" not in f"{public.what}{public.licence}{public.cite}{public.by_hand}"  # cells of a table
    if public.url:
        assert public.url.startswith("https://")
        assert public.file == Path(public.file).name
        assert public.unpack == (public.kind == "data")
    if "github" in public.url:
        assert re.search("[0-9a-f]{40}", public.url), "an address that may change its content"


def test_weights_files_have_names_and_digests_of_their_own() -> None:
    files = [p for p in KNOWN.values() if p.kind == "weights" and not p.hub]
    assert len({Path(p.file).name for p in files}) == len(files)
    assert len({p.sha256 for p in files}) == len(files)
    assert None not in {p.sha256 for p in files}


def test_every_backbone_can_be_fetched_under_its_name() -> None:
    assert {p.backbone for p in KNOWN.values() if p.kind == "weights"} == {
        b.name for b in BACKBONES.values() if b.is_sam
    }
    for name, backbone in BACKBONES.items():
        assert (name in KNOWN) == backbone.is_sam


@pytest.mark.real_weights
def test_lite_medsam_is_the_file_of_its_package(real_weights: Path) -> None:
    public = KNOWN["lite-medsam"]
    assert public.sha256 == sha256(real_weights)
    assert real_weights.stat().st_size == public.size_bytes
