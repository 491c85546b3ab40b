"""Tables of a comparison as Markdown, CSV, LaTeX and JSON."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

from sampeft.metrics.comparison import Comparison, MetricComparison, Pair, Row
from sampeft.metrics.paired import ALPHA
from sampeft.metrics.statistics import METHOD, Interval
from sampeft.provenance import csv_text, without_nan
from sampeft.report.style import shown_name
from sampeft.report.tables import NOT_SCORED, ORACLE, markdown_table

NOT_WORSE = "†"
NARROW = 4
"""So many columns of scores fit a page of LaTeX's `article`; more get letters for names and intervals in two lines."""
_HEADING_WIDTH = 12  # characters of a method's name on one line of a LaTeX heading
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "†": r"\dag{}", "−": "$-$", "±": r"$\pm$", "×": r"$\times$",
    "α": r"$\alpha$", "β": r"$\beta$", "λ": r"$\lambda$", "µ": r"$\mu$", "μ": r"$\mu$", "≤": r"$\leq$", "≥": r"$\geq$",
}  # fmt: skip


def heading(comparison: Comparison, name: str) -> str:
    """A method's name; an oracle is always labelled as one."""
    return f"{name}, {ORACLE}" if name in comparison.oracles else name


def legend(comparison: Comparison, found: MetricComparison, marks: Literal["markdown", "latex"]) -> list[str]:
    """What the numbers and marks of one metric's table mean, one sentence each; how best and worse are marked differs."""
    best, not_worse = ("**Bold**", NOT_WORSE) if marks == "markdown" else ("Bold", "underlined")
    lines = [
        f"{found.measure.heading} of {len(comparison.cases)} cases: mean over cases, {found.mean.name} in the last row. "
        f"{METHOD}. Protocol {comparison.protocol.name}."
    ]
    tests = [pair for pair in found.pairs if not pair.with_oracle]
    if tests:
        in_mean, in_classes = (
            next((pair.n_family for pair in tests if (pair.row == found.mean.name) is mean), 0)
            for mean in (True, False)
        )
        lines.append(
            f"{best}: best mean; {not_worse}: not shown to be worse than the best (two-sided Wilcoxon signed-rank test over "
            f"cases, {100 * ALPHA:.0f} %, Holm's correction over all pairs of methods: {in_classes} tests in the classes, "
            f"{in_mean} of the mean, where a case's own mean over classes is tested)."
        )
        if marks == "markdown":
            lines.append(
                "All pairs are corrected for, and not only those with the best, since the best was picked by the same "
                "scores. Metrics are not corrected for one another."
            )
    if any(row.too_few for row in found.rows):
        lines.append(
            "Too few: with so many cases no difference, however large, could be shown after the correction, so nothing is "
            "marked in that row and nothing can be concluded from it."
        )
    if found.has_infinite:
        lines.append(
            "A distance is infinite where a class was missed; beside inf stand the mean of the finite ones and the number of "
            "cases with an infinite one. An infinite mean is worse than any finite one; among infinite means, in ranks and in "
            "the test of the mean a miss counts as the largest finite distance of all methods plus 1."
        )
    if found.measure.title.startswith("absolute"):
        lines.append("Errors are compared by their size, since errors of opposite sign would cancel in a mean.")
    if comparison.oracles:
        lines.append(
            f"Oracles ({', '.join(comparison.oracles)}) used the truth: they are neither best nor ranked, and their pairs "
            "are corrected by themselves."
        )
    return lines


def comparison_md(comparison: Comparison) -> str:
    """Notes, then for each metric: table, differences of the mean pair by pair, ranks, and what the marks mean."""
    parts = [f"# {len(comparison.names)} evaluations of {len(comparison.cases)} cases"]
    parts += [f"**Note.** {note}" for note in comparison.notes]
    for found in comparison.metrics:
        digits = decimals(found)
        parts.append(f"## {found.measure.heading}")
        header = ["class", *(heading(comparison, name) for name in comparison.names), "n"]
        rows = [
            [row.name if row is not found.mean else f"**{row.name}**"]
            + [_marked_md(row, name, digits) for name in comparison.names]
            + [_n_text(row)]
            for row in found.rows
        ]
        parts.append(markdown_table(header, rows).rstrip())
        parts.append("\n".join(f"- {line}" for line in legend(comparison, found, "markdown")))
        parts.append(f"Differences of the {found.mean.name}, over cases (every class is in tests.csv):")
        parts.append("\n".join(f"- {pair_text(pair, digits)}" for pair in found.of_row(found.mean.name)))
        if found.ranking:
            parts.append(
                "Mean rank over cases (1 is best), and in how many of 10,000 resamples of the cases a method has the best "
                f"{found.mean.name}:"
            )
            firsts = dict(zip(found.ranking.names, found.ranking.first, strict=True))
            order = sorted(found.mean_rank, key=lambda name: found.mean_rank[name])
            parts.append("\n".join(f"- {name}: {found.mean_rank[name]:.2f}, {firsts[name]:.0%}" for name in order))
    return "\n\n".join(parts) + "\n"


def pair_text(pair: Pair, digits: int = 3) -> str:
    """`A − B = +0.020 [0.010, 0.030], rank-biserial 0.80, n = 12: differs (p = 0.004)`."""
    interval = pair.difference
    size = "not finite" if math.isnan(interval.mean) else f"{interval.mean:+.{digits}f} {brackets(interval, digits)}"
    effect = "" if math.isnan(pair.test.effect) else f", rank-biserial {pair.test.effect:+.2f}"
    n = "" if pair.test.too_few else f", n = {pair.test.n}"  # that verdict says it
    return f"{pair.a} − {pair.b} = {size.rstrip()}{effect}{n}: {pair.test.verdict}"


def comparison_csv(comparison: Comparison) -> str:
    """The table's numbers unrounded, one row per metric, method and class; the mean is a row of its own."""
    header = ["metric", "method", "oracle", "class", "mean", "low", "high", "n", "n_infinite", "finite_mean", "standing",
              "mean_rank", "share_first", "cases_compared", "cases_left_out"]  # fmt: skip
    lines: list[Sequence[Any]] = []
    for found in comparison.metrics:
        firsts = dict(zip(found.ranking.names, found.ranking.first.tolist(), strict=True)) if found.ranking else {}
        for name in comparison.names:
            for row in found.rows:
                i = row.intervals[name]
                finite = "" if i.finite_mean is None else i.finite_mean
                ranked = [found.mean_rank.get(name, ""), firsts.get(name, "")] if row is found.mean else ["", ""]
                lines.append(
                    [found.metric, name, str(name in comparison.oracles).lower(), row.name, i.mean, i.low, i.high, i.n,
                     i.n_infinite, finite, "too few" if row.too_few else row.standing(name), *ranked,
                     len(comparison.cases), comparison.n_left_out]
                )  # fmt: skip
    return csv_text(header, lines)


def paired_tests_csv(comparison: Comparison) -> str:
    """Every paired test, one row per metric, class (or mean) and pair."""
    header = ["metric", "class", "a", "b", "with_oracle", "n", "n_equal", "difference", "low", "high", "rank_biserial", "p",
              "p_holm", "tests_in_family", "smallest_p_holm", "verdict", "cases_compared", "cases_left_out"]  # fmt: skip
    lines: list[Sequence[Any]] = []
    for found in comparison.metrics:
        for pair in found.pairs:
            t, i = pair.test, pair.difference
            lines.append(
                [found.metric, pair.row, pair.a, pair.b, str(pair.with_oracle).lower(), t.n, t.n_equal, i.mean, i.low,
                 i.high, t.effect, t.p, t.p_holm, pair.n_family, t.smallest_p, t.verdict, len(comparison.cases),
                 comparison.n_left_out]
            )  # fmt: skip
    return csv_text(header, lines)


def comparison_tex(comparison: Comparison) -> str:
    r"""One complete `table` environment per metric; the document needs `\usepackage{booktabs}` only."""
    tables = [_metric_tex(comparison, found) for found in comparison.metrics]
    return "\n".join([r"% Needs \usepackage{booktabs}.", *tables])


def _metric_tex(comparison: Comparison, found: MetricComparison) -> str:
    digits, names = decimals(found), comparison.names
    wide = len(names) > NARROW
    size = r"\tiny" if wide else r"\scriptsize"
    headings = [heading(comparison, name) for name in names]
    letters = [_letter(m) for m in range(len(names))]
    said = legend(comparison, found, "latex")
    if wide:
        said.insert(1, "; ".join(f"{letter}: {name}" for letter, name in zip(letters, headings, strict=True)) + ".")
    caption, *below = [*said[:1], *comparison.notes, *said[1:]]
    environment = "table*" if wide else "table"
    shown = letters if wide else [_heading_tex(name) for name in headings]
    lines = [
        rf"\begin{{{environment}}}[tb]",
        r"\centering",
        rf"\caption{{{escape(caption)}}}\smallskip",
        rf"\label{{tab:comparison-{found.metric.replace('_', '-')}}}",
        r"\footnotesize\renewcommand{\arraystretch}{0.85}" if wide else r"\small",
        rf"\setlength{{\tabcolsep}}{{{2.5 if wide else 4}pt}}",
        rf"\begin{{tabular}}{{@{{}}l{'r' * (len(names) + 1)}@{{}}}}",
        r"\toprule",
        " & ".join(["", *shown, r"$n$"]) + r" \\",
        r"\midrule",
    ]
    for row in found.rows:
        if row is found.mean:
            lines.append(r"\midrule")
        elif row is not found.rows[0]:
            lines.append(r"\addlinespace[1pt]")
        cells = [escape(shown_name(row.name)), *(_marked_tex(row, name, digits) for name in names), _n_text(row)]
        lines.append(" & ".join(cells) + r" \\")
        spreads = [brackets(row.intervals[name], digits) for name in names]
        for line in zip(*(_halves(spread, wide) for spread in spreads), strict=True):
            if any(line):
                cells = [rf"{{{size} {part}}}" if part else "" for part in line]
                lines.append(" & ".join(["", *cells, ""]) + r" \\")
    notes = rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {escape(' '.join(below))}}}"
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", notes, rf"\end{{{environment}}}", ""])


def _letter(m: int) -> str:
    """A, B, ..., Z, A1, B1, ..."""
    return chr(ord("A") + m % 26) + (str(m // 26) if m >= 26 else "")


def _halves(spread: str, wide: bool) -> tuple[str, ...]:
    """The interval on one line, or on two where there is no room for its width."""
    if not wide:
        return (spread,)
    first, comma, second = spread.partition(", ")
    return first.replace("finite ", "") + comma.strip(), second


def escape(text: str) -> str:
    """Plain text as LaTeX prints it; a percent sign stays with its number."""
    return "".join(_LATEX.get(character, character) for character in text).replace(r" \%", r"~\%")


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Everything as plain JSON; null stands for `no value` and "inf" for an infinite one."""
    content: dict[str, Any] = {
        "methods": list(comparison.methods),
        "oracles": list(comparison.oracles),
        "protocol": comparison.protocol.name,
        "policy": comparison.protocol.about,
        "interval": METHOD,
        "alpha": ALPHA,
        "cases": list(comparison.cases),
        "left_out": {name: list(cases) for name, cases in comparison.left_out.items()},
        "notes": comparison.notes,
        "metrics": {found.metric: _metric_json(found) for found in comparison.metrics},
    }
    return dict(without_nan(content))


def _metric_json(found: MetricComparison) -> dict[str, Any]:
    ranking = found.ranking
    return {
        "title": found.measure.heading,
        "better": found.measure.better,
        "rows": {
            row.name: {
                "is_mean": row is found.mean,
                "too_few": row.too_few,
                "best": list(row.best),
                "not_shown_worse": list(row.not_worse),
                "scores": {name: dict(vars(interval)) for name, interval in row.intervals.items()},
            }
            for row in found.rows
        },
        "tests": [
            {
                "row": pair.row,
                "a": pair.a,
                "b": pair.b,
                "with_oracle": pair.with_oracle,
                "tests_in_family": pair.n_family,
                "verdict": pair.test.verdict,
                "interval": dict(vars(pair.difference)),
                **{name: value for name, value in vars(pair.test).items() if name != "difference"},
            }
            for pair in found.pairs
        ],
        "ranks": {
            name: {"mean_rank": found.mean_rank[name], "share_of_ranks": ranking.share[m].tolist()}
            for m, name in enumerate(ranking.names)
        }
        if ranking
        else {},
        "not_told_apart": [list(group) for group in found.groups],
    }


def decimals(found: MetricComparison) -> int:
    """3 of a share, 2 of mm, ml and the like; more where all means are as small as false alarm rates are."""
    means = [abs(i.mean) for row in found.rows for i in row.intervals.values() if math.isfinite(i.mean) and i.mean]
    least = 3 if found.measure.bounds == (0.0, 1.0) else 2
    return max(least, 2 - math.floor(math.log10(max(means)))) if means else least


def mean_text(interval: Interval, digits: int = 3) -> str:
    """`0.812`, `inf` or `not scored`."""
    if math.isnan(interval.mean):
        return NOT_SCORED
    return "inf" if interval.n_infinite else f"{interval.mean:.{digits}f}"


def brackets(interval: Interval, digits: int = 3) -> str:
    """`[0.790, 0.833]`; beside `inf` `(finite 3.10, 2 inf)`; nothing without an interval."""
    return ", ".join(_spread(interval, digits))


def _spread(interval: Interval, digits: int) -> tuple[str, ...]:
    if interval.n_infinite:
        infinite = f"{interval.n_infinite} inf"
        if interval.finite_mean is None:
            return (f"({infinite})",)
        return f"(finite {interval.finite_mean:.{digits}f}", f"{infinite})"
    if math.isnan(interval.low):
        return ()
    return f"[{interval.low:.{digits}f}", f"{interval.high:.{digits}f}]"


def _marked_md(row: Row, name: str, digits: int) -> str:
    text = f"{mean_text(row.intervals[name], digits)} {brackets(row.intervals[name], digits)}".rstrip()
    if name in row.best:
        return f"**{text}**"
    return f"{text} {NOT_WORSE}" if name in row.not_worse else text


def _marked_tex(row: Row, name: str, digits: int) -> str:
    text = mean_text(row.intervals[name], digits)
    if name in row.best:
        return rf"\textbf{{{text}}}"
    return rf"\underline{{{text}}}" if name in row.not_worse else text


def _heading_tex(name: str) -> str:
    lines = [escape(line) for line in textwrap.wrap(name, _HEADING_WIDTH) or [""]]
    stacked = r"\\".join(lines)
    return stacked if len(lines) == 1 else rf"\shortstack[r]{{{stacked}}}"


def _n_text(row: Row) -> str:
    return f"{row.n} (too few)" if row.too_few and set(row.n) != {"0"} else row.n
