"""Bars: what they say is left is what is left."""

from __future__ import annotations

import re

import pytest

from sampeft import console as progress


@pytest.mark.parametrize(("before", "done", "left"), [(0.0, 0.25, "1:30"), (0.5, 0.75, "0:30"), (0.5, 0.5, "?")])
def test_the_time_left_goes_by_what_was_done_since_the_bar_began(monkeypatch, capsys, before, done, left):
    """Thirty seconds for a quarter of the work; one that goes on did not do in them what was done before."""
    seconds = iter([100.0, 130.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    progress.Bar("training", 1.0, before).update(done)
    assert re.search(r"(\S+) left", capsys.readouterr().err)[1] == left
