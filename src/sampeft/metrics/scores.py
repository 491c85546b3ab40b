"""An evaluation: scores per class with intervals, what failed, scores.csv and summary.json."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sampeft.errors import DataError, NoDataError, SampeftError, unknown_name
from sampeft.io import write_atomically
from sampeft.labels import LabelSet
from sampeft.metrics import METRICS, counted
from sampeft.metrics.calibration import Calibration
from sampeft.metrics.counts import Counts
from sampeft.metrics.landcover import land_cover
from sampeft.metrics.measures import VOLUME, CaseScore, Measures
from sampeft.metrics.places import PLACES
from sampeft.metrics.protocols import PROTOCOLS, TARGET_COUNTS, Protocol
from sampeft.metrics.statistics import FEW, METHOD, Interval, bootstrap_interval, bootstrap_per_class, mean_of_means
from sampeft.metrics.targets import TargetCounts
from sampeft.provenance import csv_text, json_text

SCORES, COUNTS, SUMMARY, CALIBRATION = "scores.csv", "counts.csv", "summary.json", "calibration.json"
_PLACES = [name for names in PLACES.values() for name in names]


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


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What was scored.

    counts: case id -> counts pooled over the case's files and slices.
    meta: where the predictions come from: protocol, model, data, split, oracle (the truth was used), seeds, seconds...
    measures: case id -> what counts cannot give, such as surface distances; empty where only pixels were counted.
    calibration: reading of the probabilities (`as trained`, `temperature 1.37`) -> how far they can be believed, over
        a sample of all pixels; empty where no probabilities were seen.
    """

    counts: dict[str, Counts]
    labels: LabelSet
    meta: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, Measures] = field(default_factory=dict)
    calibration: dict[str, Calibration] = field(default_factory=dict)

    @classmethod
    def of(cls, scores: Mapping[str, CaseScore], labels: LabelSet, meta: dict[str, Any]) -> Evaluation:
        """Cases in the order given."""
        counts = {case: score.counts for case, score in scores.items()}
        return cls(counts, labels, meta, {case: score.measures for case, score in scores.items()})

    def __repr__(self) -> str:
        what = f"{self.meta.get('model', 'label maps')} on {self.meta.get('data', 'data')}"
        return (
            f"Evaluation({what}, split {self.meta.get('split', 'all')}, protocol {self.protocol.name}\n"
            f"           {len(self.counts)} cases, {len(self.labels)} classes, "
            f"{self.headline_name} of DSC {self.headline().mean:.3f})"
        )

    def sizes(self) -> tuple[npt.NDArray[np.float64], str]:
        """(cases, K) size of every class in the truth, NaN where it has none, and the unit: `ml`, or `px` without a
        pixel size in mm."""
        if self.measures and all(VOLUME in measures.values for measures in self.measures.values()):
            return self._raw(VOLUME), "ml"
        pixels = np.array([c.truth for c in self.counts.values()], dtype=np.float64).reshape(-1, len(self.labels))
        return np.where(pixels > 0, pixels, np.nan), "px"

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

    @property
    def protocol(self) -> Protocol:
        """The rules that were scored by."""
        return PROTOCOLS.get(str(self.meta.get("protocol", "default")), PROTOCOLS["default"])

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the cases have, as `METRICS` orders them; FLARE22 knows DSC and NSD only."""
        measured = {name for measures in self.measures.values() for name in measures.values}
        known = measured if self.protocol.flare22 and measured else measured | counted().keys()
        return tuple(name for name in METRICS if name in known)

    def matrix(self, metric: str = "dsc") -> npt.NDArray[np.float64]:
        """(cases, K), all classes in channel order; NaN where a case has no score for a class, inf for no distance.

        What the protocol measured goes before what counts give. Raises UsageError for a metric that the cases lack.
        """
        of_counts = counted().get(metric)
        if metric not in self.metrics and of_counts is None:
            raise unknown_name("metric", metric, self.metrics)
        rows = []
        for case, counts in self.counts.items():
            measured = self.measures[case].values if case in self.measures else {}
            if metric in measured:
                rows.append(measured[metric])
            else:
                rows.append(of_counts(counts) if of_counts else np.full(len(self.labels), np.nan))
        return np.array(rows).reshape(-1, len(self.labels))

    @property
    def averaged(self) -> tuple[int, ...]:
        """Channels that the headline is the mean over: the foreground, or all by protocol `paper`."""
        return tuple(range(len(self.labels))) if self.protocol.with_background else self.labels.foreground

    @property
    def headline_name(self) -> str:
        """What the headline is the mean over, as tables must call it."""
        paper = self.protocol.with_background and self.labels.has_background
        return "mean with background (as the paper averages)" if paper else "foreground mean"

    def headline(self, metric: str = "dsc") -> Interval:
        """*The* number: mean over foreground classes of the mean over cases.

        Background never enters it but by protocol `paper`; `headline_name` then says so.
        """
        return self._mean_over(metric, self.averaged)

    def _mean_over(self, metric: str, channels: Sequence[int]) -> Interval:
        return bootstrap_interval(self._by_case_id(metric)[:, list(channels)], bounds=METRICS[metric].bounds)

    def with_background_mean(self, metric: str = "dsc") -> float:
        """Mean over all classes, background among them, as many papers average; only to be shown beside `headline`."""
        return mean_of_means(self.matrix(metric))

    def per_class(self, metric: str = "dsc") -> list[ClassScore]:
        """Foreground classes in channel order."""
        channels = list(self.labels.foreground)
        intervals = bootstrap_per_class(self._by_case_id(metric)[:, channels], bounds=METRICS[metric].bounds)
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

    def pooled(self) -> Counts:
        """Counts of all cases together."""
        return sum(self.counts.values(), Counts.zeros(len(self.labels)))

    def targets(self) -> dict[str, TargetCounts]:
        """Foreground class -> targets of all cases together; empty unless the protocol counts targets."""
        counted = [m.values for m in self.measures.values() if "targets" in m.values]
        return {
            self.labels.names[k]: TargetCounts(
                **{field: int(sum(values[name][k] for values in counted)) for name, field in TARGET_COUNTS.items()}
            )
            for k in (self.labels.foreground if counted else ())
        }

    def _cases_where(self, holds: Any) -> dict[str, list[str]]:
        found = {case: holds(counts) for case, counts in self.counts.items()}
        return {self.labels.names[k]: [case for case in found if found[case][k]] for k in self.labels.foreground}

    def _by_case_id(self, metric: str) -> npt.NDArray[np.float64]:
        """The matrix with cases sorted, so that intervals do not depend on which process scored which case."""
        return self.matrix(metric)[np.argsort(np.array(self.cases, dtype=object), kind="stable")]

    def write(self, out: Path) -> None:
        """Write scores.csv (one row per case x class x metric), counts.csv, calibration.json where there is any, and
        summary.json; the folder is made. The summary comes last: where it is, the others are whole."""
        names = self.labels.names
        pixels = {case: (counts.truth, counts.prediction) for case, counts in self.counts.items()}
        measured = {name for measures in self.measures.values() for name in measures.values}
        places = {name: self._raw(name) for name in _PLACES if name in measured}
        extra = measured - set(self.metrics) - set(_PLACES)
        scores = {metric: self.matrix(metric) for metric in self.metrics}
        scores |= {name: self._raw(name) for name in sorted(extra)}
        out.mkdir(parents=True, exist_ok=True)
        scores_csv = csv_text(
            ("case", "class", "metric", "value", "n_truth_pixels", "n_pred_pixels"),
            (
                (case, names[k], metric, repr(float(scores[metric][i, k])), pixels[case][0][k], pixels[case][1][k])
                for i, case in enumerate(self.cases)
                for k in range(len(names))
                for metric in scores
            ),
        )
        write_atomically(out / SCORES, scores_csv)
        counts_csv = csv_text(
            ("case", "class", "tp", "fp", "fn", *places),
            (
                (
                    case,
                    names[k],
                    counts.tp[k],
                    counts.fp[k],
                    counts.fn[k],
                    *(repr(float(p[i, k])) for p in places.values()),
                )
                for i, (case, counts) in enumerate(self.counts.items())
                for k in range(len(names))
            ),
        )
        write_atomically(out / COUNTS, counts_csv)
        if self.calibration:
            sums = {reading: sums.to_json() for reading, sums in self.calibration.items()}
            write_atomically(out / CALIBRATION, json.dumps(sums) + "\n")
        else:
            (out / CALIBRATION).unlink(missing_ok=True)  # of an evaluation before
        write_atomically(out / SUMMARY, json_text(self.summary()))

    def _raw(self, name: str) -> npt.NDArray[np.float64]:
        nothing = np.full(len(self.labels), np.nan)
        rows = [self.measures[case].values.get(name, nothing) for case in self.counts]
        return np.array(rows).reshape(-1, len(self.labels))

    def summary(self) -> dict[str, Any]:
        """What summary.json holds; NaN stands for `no score`."""
        metrics, protocol = self.metrics, self.protocol
        per_class = {metric: self.per_class(metric) for metric in metrics}
        headline = {metric: asdict(self.headline(metric)) for metric in metrics}
        targets = self.targets()
        return {
            "meta": self.meta,
            "policy": protocol.about,
            "interval": METHOD,
            "n_cases": len(self.counts),
            "headline": {"over": self.headline_name, **headline},
            "foreground_mean": headline
            if self.averaged == self.labels.foreground
            else {metric: asdict(self._mean_over(metric, self.labels.foreground)) for metric in metrics},
            "with_background_mean": {
                metric: self.with_background_mean(metric) for metric in metrics if metric in counted()
            },
            "all_pixels": asdict(land_cover(self.pooled(), self.labels.foreground)),
            **(
                {"targets": {name: {**asdict(t), "pd": t.pd, "fa": t.fa} for name, t in targets.items()}}
                if targets
                else {}
            ),
            **({"calibration": self._calibration()} if self.calibration else {}),
            "too_few_cases": headline["dsc"]["n"] < FEW,
            "never_found": [c.name for c in per_class["dsc"] if c.never_found],
            "classes": {
                c.name: {
                    "n_truth": c.n_truth,
                    "n_missed": c.n_missed,
                    "n_false": c.n_false,
                    **{metric: asdict(per_class[metric][i].interval) for metric in metrics},
                }
                for i, c in enumerate(per_class["dsc"])
            },
            "label_map": self.labels.to_json(),
        }

    def _calibration(self) -> dict[str, Any]:
        names = self.labels.names
        return {
            reading: {"ece": found.ece, "brier": dict(zip(names, map(float, found.brier_K), strict=True))}
            for reading, found in self.calibration.items()
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
            places: dict[str, dict[str, npt.NDArray[np.float64]]] = {}
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            for row in rows:
                k = labels.names.index(row["class"])
                case = counts.setdefault(row["case"], Counts.zeros(len(labels)))
                case.tp[k], case.fp[k], case.fn[k] = int(row["tp"]), int(row["fp"]), int(row["fn"])
                for name in [name for name in _PLACES if name in row]:
                    place = places.setdefault(row["case"], {}).setdefault(name, np.full(len(labels), np.nan))
                    place[k] = float(row[name])
            if len(rows) != content["n_cases"] * len(labels):
                raise ValueError(f"{len(rows)} rows for {content['n_cases']} cases of {len(labels)} classes")
            path = out / SCORES
            evaluation = cls(counts, labels, dict(content["meta"]))
            # A mean over seeds has no whole pixels to compute its scores from.
            own_scores = bool(evaluation.protocol.flare22) or "averaged_over" in evaluation.meta
            measures = _read_measures(path, labels, counts, own_scores, places)
            path = out / CALIBRATION
            sums = json.loads(path.read_text(encoding="utf-8")) if "calibration" in content else {}
            calibration = {reading: Calibration.from_json(found) for reading, found in sums.items()}
            return replace(evaluation, measures=measures, calibration=calibration)
        except OSError as error:
            raise NoDataError(
                f"{path}: cannot be read ({error.strerror}); an evaluation folder is what `sampeft evaluate` writes"
            ) from None
        except (KeyError, TypeError, ValueError, AttributeError, SampeftError) as error:
            raise DataError(f"{path}: not a whole evaluation ({error}); run `sampeft evaluate` again") from None


def _read_measures(
    path: Path,
    labels: LabelSet,
    cases: Iterable[str],
    all_metrics: bool,
    places: Mapping[str, Mapping[str, npt.NDArray[np.float64]]],
) -> dict[str, Measures]:
    """What scores.csv holds. all_metrics: those of counts too, because the protocol has its own rules for them. places: what
    counts.csv holds beside the counts."""
    table: dict[str, dict[str, npt.NDArray[np.float64]]] = {case: {} for case in cases}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        values = table[row["case"]].setdefault(row["metric"], np.full(len(labels), np.nan))
        values[labels.names.index(row["class"])] = float(row["value"])
    if len(rows) != len(labels) * sum(map(len, table.values())) or len({frozenset(v) for v in table.values()}) > 1:
        raise ValueError(f"{len(rows)} rows of scores for {len(table)} cases of {len(labels)} classes")
    own = {
        case: {name: v for name, v in values.items() if all_metrics or name not in counted()} | {**places.get(case, {})}
        for case, values in table.items()
    }
    return {case: Measures(values) for case, values in own.items() if values}
