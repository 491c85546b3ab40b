"""Counts per case in, the evaluation out: scores per class with intervals, what failed, scores.csv and summary.json."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError, SampeftError, unknown_name
from sampeft.io import write_atomically
from sampeft.labels import LabelSet
from sampeft.metrics.counts import Counts
from sampeft.metrics.overlap import METRICS, POLICY
from sampeft.metrics.statistics import Interval, bootstrap_interval, bootstrap_per_class, mean_of_means

SCORES, COUNTS, SUMMARY = "scores.csv", "counts.csv", "summary.json"


@dataclass(frozen=True)
class ClassScore:
    """One foreground class over all cases.

    interval: mean over the cases that have a score, its n their number.
    n_truth: cases whose truth has the class. n_missed: those of them of which not one pixel was found.
    n_false: cases without the class in the truth for which it was predicted.
    """

    name: str
    interval: Interval
    n_truth: int
    n_missed: int
    n_false: int

    @property
    def n(self) -> int:
        return self.interval.n

    @property
    def never_found(self) -> bool:
        """The truth has the class, yet every case scores 0: a fault of labels or training rather than a low score."""
        return 0 < self.n_truth == self.n_missed


@dataclass(frozen=True)
class Evaluation:
    """What was scored.

    counts: case id -> counts pooled over the case's files and slices.
    meta: where the predictions come from: protocol, model, data, split, oracle (the truth was used), seeds, seconds...
    """

    counts: dict[str, Counts]
    labels: LabelSet
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for case, counts in self.counts.items():
            if counts.tp.shape != (len(self.labels),):
                raise ValueError(f"case {case} counts {len(counts.tp)} classes, the label map has {len(self.labels)}")

    @property
    def cases(self) -> tuple[str, ...]:
        return tuple(self.counts)

    @property
    def is_oracle(self) -> bool:
        return bool(self.meta.get("oracle"))

    def matrix(self, metric: str = "dsc") -> npt.NDArray[np.float64]:
        """(cases, K) scores in 0..1, all classes in channel order; NaN where a case has no score for a class."""
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
        return np.array([METRICS[metric](c) for c in self.counts.values()]).reshape(-1, len(self.labels))

    def headline(self, metric: str = "dsc") -> Interval:
        """*The* number: mean over foreground classes of the mean over cases. Background never enters it."""
        return bootstrap_interval(self._by_case_id(metric)[:, list(self.labels.foreground)])

    def with_background_mean(self, metric: str = "dsc") -> float:
        """Mean over all classes, background among them, as many papers average; only to be shown beside `headline`."""
        return mean_of_means(self.matrix(metric))

    def per_class(self, metric: str = "dsc") -> list[ClassScore]:
        """Foreground classes in channel order."""
        channels = list(self.labels.foreground)
        intervals = bootstrap_per_class(self._by_case_id(metric)[:, channels])
        missed, false = self.missed(), self.false()
        has_truth = np.array([c.truth > 0 for c in self.counts.values()]).reshape(-1, len(self.labels))
        return [
            ClassScore(name, interval, int(has_truth[:, k].sum()), len(missed[name]), len(false[name]))
            for k, interval in zip(channels, intervals, strict=True)
            for name in [self.labels.names[k]]
        ]

    def missed(self) -> dict[str, list[str]]:
        """Foreground class -> cases whose truth has it and of which not one pixel was found."""
        return self._cases_where(lambda c: (c.fn > 0) & (c.tp == 0))

    def false(self) -> dict[str, list[str]]:
        """Foreground class -> cases without it for which it was predicted."""
        return self._cases_where(lambda c: (c.fp > 0) & (c.truth == 0))

    def _cases_where(self, holds: Any) -> dict[str, list[str]]:
        found = {case: holds(counts) for case, counts in self.counts.items()}
        return {self.labels.names[k]: [case for case in found if found[case][k]] for k in self.labels.foreground}

    def _by_case_id(self, metric: str) -> npt.NDArray[np.float64]:
        """The matrix with cases sorted, so that intervals do not depend on which process scored which case."""
        return self.matrix(metric)[np.argsort(np.array(self.cases, dtype=object), kind="stable")]

    def write(self, out: Path) -> None:
        """Write scores.csv (one row per case x class x metric), counts.csv and summary.json; the folder is made.

        The summary comes last: where it is, the other two are whole.
        """
        names = self.labels.names
        pixels = {case: (counts.truth, counts.prediction) for case, counts in self.counts.items()}
        scores = {metric: self.matrix(metric) for metric in METRICS}
        out.mkdir(parents=True, exist_ok=True)
        _write_csv(
            out / SCORES,
            ("case", "class", "metric", "value", "n_truth_pixels", "n_pred_pixels"),
            (
                (case, names[k], metric, repr(float(scores[metric][i, k])), pixels[case][0][k], pixels[case][1][k])
                for i, case in enumerate(self.cases)
                for k in range(len(names))
                for metric in METRICS
            ),
        )
        _write_csv(
            out / COUNTS,
            ("case", "class", "tp", "fp", "fn"),
            (
                (case, names[k], counts.tp[k], counts.fp[k], counts.fn[k])
                for case, counts in self.counts.items()
                for k in range(len(names))
            ),
        )
        text = json.dumps(_without_nan(self.summary()), indent=1, allow_nan=False, default=str, ensure_ascii=False)
        write_atomically(out / SUMMARY, (text + "\n").encode())

    def summary(self) -> dict[str, Any]:
        """What summary.json holds; NaN stands for `no score`."""
        per_class = {metric: self.per_class(metric) for metric in METRICS}
        return {
            "meta": self.meta,
            "policy": POLICY,
            "interval": "95 % percentile bootstrap over cases, 10000 resamples",
            "n_cases": len(self.counts),
            "foreground_mean": {metric: asdict(self.headline(metric)) for metric in METRICS},
            "with_background_mean": {metric: self.with_background_mean(metric) for metric in METRICS},
            "too_few_cases": self.headline().too_few,
            "never_found": [c.name for c in per_class["dsc"] if c.never_found],
            "classes": {
                c.name: {
                    "n_truth": c.n_truth,
                    "n_missed": c.n_missed,
                    "n_false": c.n_false,
                    **{metric: asdict(per_class[metric][i].interval) for metric in METRICS},
                }
                for i, c in enumerate(per_class["dsc"])
            },
            "label_map": self.labels.to_json(),
        }

    @classmethod
    def read(cls, out: Path) -> Evaluation:
        """Read what `write` wrote: equal counts, labels and meta. Raises DataError when it is missing or damaged."""
        path = out / SUMMARY
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            labels = LabelSet.from_json(content["label_map"], path)
            path = out / COUNTS
            counts: dict[str, Counts] = {}
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            for row in rows:
                k = labels.names.index(row["class"])
                case = counts.setdefault(row["case"], Counts.zeros(len(labels)))
                case.tp[k], case.fp[k], case.fn[k] = int(row["tp"]), int(row["fp"]), int(row["fn"])
            if len(rows) != content["n_cases"] * len(labels):
                raise ValueError(f"{len(rows)} rows for {content['n_cases']} cases of {len(labels)} classes")
            return cls(counts, labels, dict(content["meta"]))
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); an evaluation folder is what `sampeft evaluate` writes"
            ) from None
        except (KeyError, TypeError, ValueError, AttributeError, SampeftError) as error:
            raise DataError(f"{path}: not a whole evaluation ({error}); run `sampeft evaluate` again") from None


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
