"""Windows cover an image, their weights sum to one, and blending by rows is blending by definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampeft.errors import UsageError
from sampeft.prediction.sliding_window import Axis, Blend, finished


@given(st.integers(1, 300), st.integers(1, 90), st.floats(0, 0.9))
def test_windows_cover_an_axis_inside_it_and_weights_sum_to_one(size: int, length: int, overlap: float) -> None:
    axis = Axis.cover(size, length, overlap)
    total = np.zeros(size)
    for start, shares in zip(axis.starts, axis.weights, strict=True):
        assert 0 <= start <= size - axis.length
        assert (shares > 0).all()
        total[start : start + axis.length] += shares
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    assert list(axis.starts) == sorted(set(axis.starts))
    steps = np.diff(axis.starts)
    assert (steps <= max(1, round(axis.length * (1 - overlap)))).all()
    assert len(steps) == 0 or steps.max() - steps.min() <= 1  # even


def test_windows_and_weights_by_hand() -> None:
    """10 pixels, windows of 4 that share half: the last is moved to the border; cos^2 of 22.5 and 67.5 degrees."""
    axis = Axis.cover(10, 4, 0.5)
    assert axis.starts == (0, 2, 4, 6)
    falling = np.cos(np.radians([22.5, 67.5])) ** 2
    np.testing.assert_allclose(axis.weights[0], [1, 1, *falling], rtol=1e-6)
    np.testing.assert_allclose(axis.weights[1], [*falling[::-1], *falling], rtol=1e-6)
    np.testing.assert_allclose(axis.weights[3], [*falling[::-1], 1, 1], rtol=1e-6)
    assert Axis.cover(10, 4, 0).starts == (0, 3, 6)
    assert Axis.cover(3, 4, 0.5) == Axis(3, 3, (0,))


@pytest.mark.parametrize(("length", "overlap"), [(0, 0.5), (4, -0.1), (4, 0.95), (4, float("nan"))])
def test_impossible_windows_are_refused(length: int, overlap: float) -> None:
    with pytest.raises(UsageError, match="windows of"):
        Axis.cover(10, length, overlap)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("size", [(23, 31), (8, 40), (5, 6), (40, 8)])
def test_the_blend_is_the_weighted_sum_by_definition(overlap: float, size: tuple[int, int]) -> None:
    """Windows that disagree, some unknown; the oracle holds the whole image at once."""
    rng = np.random.default_rng(3)
    rows, columns = (Axis.cover(n, 8, overlap) for n in size)
    shape = (3, rows.length, columns.length)
    known = rng.random((len(rows), len(columns))) > 0.2
    windows = rng.dirichlet(np.ones(3), (len(rows), len(columns), *shape[1:])).transpose(0, 1, 4, 2, 3)
    whole = np.zeros((3, *size))
    for i, top in enumerate(rows.starts):
        for j, left in enumerate(columns.starts):
            weight = rows.weights[i][:, None] * columns.weights[j]
            place = np.s_[:, top : top + shape[1], left : left + shape[2]]
            whole[place] += known[i, j] * weight * windows[i, j]

    blend, found = Blend(rows, columns, 3), np.full((3, *size), np.nan)
    for i in range(len(rows)):
        for j in range(len(columns)):
            inside = np.s_[:, finished(rows, i), finished(columns, j)]
            assert np.isnan(found[inside]).all()
            found[inside] = blend.add(i, j, windows[i, j].astype(np.float32) if known[i, j] else None)
    np.testing.assert_allclose(found, whole, atol=1e-6)
