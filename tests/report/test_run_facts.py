"""A run's config in words: what a reader asks first, digests shortened and never lost."""

from __future__ import annotations

import pytest

from sampeft.report.run_card import facts, listed, origin, shown

DIGEST = "79d8c9dc" * 8
CONFIG = {
    "backbone": "lite-medsam",
    "training": {"steps": None, "minutes": 30.0, "batch": 2, "lr": 0.0005},
    "held_out_cases": [f"p{i}" for i in range(10)],
    "description": {
        "backbone": "lite-medsam",
        "weights_sha256": DIGEST,
        "method": "lora",
        "options": {"rank": 16, "alpha": 32.0},
        "trainable": 250_000,
        "total": 10_000_000,
        "label_map": {"labels": {"background": 0, "portal_vein": 1}},
        "preparation": {
            "intensity": {"kind": "window", "low": -160.0, "high": 240.0, "crop": "body", "bands": None},
            "side": 256,
            "plane": "auto",
            "context": "repeat",
            "context_mm": None,
        },
        "seed": 0,
        "data": {"name": "toy", "fingerprint": "ab12" * 16, "cases": 18, "slices": 12_400},
        "versions": {"python": "3.11.2"},
        "git_commit": "dc0d5e3a1b2c-dirty",
    },
}


def test_what_was_trained_on_what_is_said_in_words() -> None:
    found = {fact.name: fact.value for fact in facts(CONFIG)}
    assert found == {
        "backbone": "lite-medsam",
        "pretrained weights, SHA-256": "79d8c9dc79d8…",
        "method": "LoRA",
        "options of the method": "rank 16, alpha 32",
        "trained parameters": "250,000 of 10,000,000 (2.5 %)",
        "classes": "background, portal vein",
        "training data": "toy, 18 cases, 12,400 slices",
        "fingerprint of the data": "ab12ab12ab12…",
        "cases held out to choose the model": "10: p0, p1, p2, p3, p4, p5, p6, p7 and 2 more",
        "preparation": "slices of 256 x 256 pixels; window -160 to 240; cropped to the body; context repeat",
        "training": "minutes 30, slices a step 2, peak learning rate 0.0005",
        "seed": "0",
        "versions": "python 3.11.2",
        "source commit": "dc0d5e3a1b2c with changes that are not committed",
    }
    assert origin(CONFIG) == "LoRA on lite-medsam, 250,000 of 10,000,000 (2.5 %) parameters trained, on 18 cases of toy"


def test_a_shortened_digest_keeps_the_whole() -> None:
    assert [fact.whole for fact in facts(CONFIG) if fact.whole] == [DIGEST, "ab12" * 16]


def test_every_setting_is_listed_once() -> None:
    found = listed(CONFIG)
    names = [fact.name for fact in found]
    assert len(set(names)) == len(names)
    assert {"training: lr", "description: options: rank", "held out cases"} <= set(names)
    assert {fact.name: fact.value for fact in found}["held out cases"].endswith("p8, p9")


def test_what_is_not_known_is_left_out() -> None:
    assert facts({}) == []
    assert origin({}) == ""
    assert [fact.name for fact in facts({"backbone": "sam-vit-b", "data": "toy"})] == ["backbone", "training data"]
    assert origin({"backbone": "sam-vit-b", "method": "home-made"}) == "home-made on sam-vit-b"


@pytest.mark.parametrize(
    ("value", "text"),
    [(12_345, "12,345"), (0.00012, "0.00012"), (True, "yes"), (None, "none"), ([1, "a"], "1, a"), (81_234.0, "81,234")],
)
def test_values_are_written_for_readers(value: object, text: str) -> None:
    assert shown(value) == text
