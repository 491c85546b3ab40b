"""The paper's numbers: its printed averages are those of its rows, background among them, and what they are without."""

from __future__ import annotations

import pytest

from sampeft.data.layouts.flare22 import FLARE22_LABELS
from sampeft.data.layouts.gid import GID_LABELS
from sampeft.data.layouts.sirst import SIRST_LABELS
from sampeft.experiments.paper_tables import PLANS
from sampeft.report.paper import BACKGROUND, PAPER, PARAMETERS, our_name

COLUMNS = [(name, column) for name, table in PAPER.items() for column in table.columns]


@pytest.mark.parametrize(("name", "column"), COLUMNS)
def test_every_printed_average_is_the_mean_of_its_rows(name: str, column: str) -> None:
    """Table 4 included: SAM 2's 14 rows do average 0.3044."""
    table = PAPER[name]
    at = table.columns.index(column)
    assert sum(row[at] for row in table.rows.values()) / len(table.rows) == pytest.approx(table.printed[at], abs=5e-4)


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("table1", [0.4673]),
        ("table2", [0.4673, 0.5285, 0.5008, 0.5337, 0.5169]),
        ("table4", [0.4673, 0.3020]),
        ("table5", [0.4684, 0.4637, 0.4964]),
        ("table6", [0.5203, 0.4379, 0.8874]),
    ],
)
def test_foreground_means(name: str, means: list[float]) -> None:
    table = PAPER[name]
    assert [table.foreground_mean(column) for column in table.columns] == pytest.approx(means, abs=5e-5)


def test_rows_picked_at_random_are_the_papers() -> None:
    """Looked up by column, so that a column that slipped is seen."""
    assert PAPER["table2"].only("SAM LoRA r=4").rows["left kidney"] == (0.9580,)
    assert PAPER["table2"].only("SAM LoRA r=8", "SAM Adapter").rows["spleen"] == (0.4417, 0.4130)
    assert PAPER["table4"].only("SAM 2").rows["esophagus"] == (0.0609,)
    assert PAPER["table4"].only("SAM 2").printed == (0.3044,)
    assert PAPER["table5"].only("SAM LoRA r=4").rows[BACKGROUND] == (0.8047,)
    assert PARAMETERS["LoRA r=4"] == (95.5, 2.5)


@pytest.mark.parametrize(
    ("name", "labels"),
    [(name, FLARE22_LABELS) for name in ("table1", "table2", "table4")]
    + [("table5", GID_LABELS), ("table6", SIRST_LABELS)],
)
def test_the_classes_are_those_of_our_readers(name: str, labels: object) -> None:
    names = labels.names  # type: ignore[attr-defined]
    assert {our_name(n) for n in names} | {BACKGROUND} == set(PAPER[name].rows)


def test_every_row_of_a_plan_has_its_column() -> None:
    for name, plan in PLANS.items():
        if name in PAPER:
            assert [row.paper for row in plan.rows(False) if row.paper] == list(PAPER[name].columns)


def test_names_of_btcv_are_turned_to_ours() -> None:
    given = ["kidney_right", "kidney_left", "adrenal_gland_right", "adrenal_gland_left", "inferior_vena_cava", "Liver"]
    assert [our_name(name) for name in given] == [
        "right kidney", "left kidney", "right adrenal gland", "left adrenal gland", "inferior vena cava", "liver",
    ]  # fmt: skip
    assert all(our_name(name) == name for name in PAPER["table2"].rows)
    assert our_name("portal_vein_and_splenic_vein") not in PAPER["table2"].rows
    assert our_name("_") == ""
