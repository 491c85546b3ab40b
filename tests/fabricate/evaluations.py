"""Evaluations with chosen scores: DSC per case and class in, an Evaluation whose DSC is exactly that out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sampeft.labels import LabelSet
from sampeft.metrics.counts import Counts
from sampeft.metrics.measures import Measures
from sampeft.metrics.scores import Evaluation

PIXELS = 1000  # of each class in the truth, so that a DSC of 0.812 is 812 true positives


def evaluation_of(
    dsc_NK: npt.ArrayLike,
    cases: Sequence[str] | None = None,
    measures: dict[str, npt.ArrayLike] | None = None,
    classes: Sequence[str] | None = None,
    **meta: object,
) -> Evaluation:
    """dsc_NK: (cases, foreground classes), in thousandths or NaN for a class that neither truth nor prediction has.

    measures: further (cases, foreground classes) scores by name.
    """
    dsc = np.asarray(dsc_NK, dtype=np.float64)
    names = tuple(classes or [f"organ_{k}" for k in range(1, dsc.shape[1] + 1)])
    ids = tuple(range(len(names) + 1))
    known = [f"case_{i}" for i in range(len(dsc))] if cases is None else cases
    pixels = np.where(np.isnan(dsc), 0, PIXELS).astype(np.int64)
    tp = np.rint(np.nan_to_num(dsc) * PIXELS).astype(np.int64)
    counts = {
        case: Counts(np.append(9000, tp[i]), np.append(0, pixels[i] - tp[i]), np.append(0, pixels[i] - tp[i]))
        for i, case in enumerate(known)
    }
    more = {name: np.asarray(values, dtype=np.float64) for name, values in (measures or {}).items()}
    extra = {
        case: Measures({name: np.append(np.nan, values[i]) for name, values in more.items()})
        for i, case in enumerate(known)
    }
    return Evaluation(counts, LabelSet(("background", *names), ids), dict(meta), extra if more else {})
