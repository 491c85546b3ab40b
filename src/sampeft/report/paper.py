"""The numbers that the paper's tables print, with the foreground means that it leaves out.

The paper: Han, Jiang, Liu, Wu, "Medical Segmentation Based on SAM and Implementation of Variant Problems", tables 1 to 6.
"""

from __future__ import annotations

from dataclasses import dataclass

BACKGROUND = "background"


@dataclass(frozen=True)
class PaperTable:
    """One table of DSC.

    columns: methods as the paper calls them. rows: our class name -> DSC in each column, background first.
    printed: the average that the paper prints, background in it, for each column.
    """

    title: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]
    printed: tuple[float, ...]

    def foreground_mean(self, column: str) -> float:
        """Mean over the classes without background, as every table of ours averages."""
        at = self.columns.index(column)
        values = [row[at] for name, row in self.rows.items() if name != BACKGROUND]
        return sum(values) / len(values)

    def only(self, *columns: str) -> PaperTable:
        """The table with some of its columns."""
        at = [self.columns.index(column) for column in columns]
        rows = {name: tuple(row[i] for i in at) for name, row in self.rows.items()}
        return PaperTable(self.title, columns, rows, tuple(self.printed[i] for i in at))


_FLARE22 = PaperTable(
    "DSC on FLARE22",
    ("SAM", "SAM Adapter", "SAM LoRA r=1", "SAM LoRA r=4", "SAM LoRA r=8", "SAM 2"),
    {
        BACKGROUND: (0.4678, 0.9973, 0.9944, 0.9961, 0.9953, 0.3357),
        "liver": (0.5418, 0.7328, 0.6758, 0.7191, 0.7093, 0.4255),
        "right kidney": (0.7789, 0.5536, 0.5260, 0.5224, 0.4828, 0.6290),
        "spleen": (0.8002, 0.4130, 0.3901, 0.4406, 0.4417, 0.6360),
        "pancreas": (0.2321, 0.4307, 0.3826, 0.4010, 0.3985, 0.0647),
        "aorta": (0.7915, 0.7985, 0.7759, 0.7975, 0.7872, 0.5825),
        "inferior vena cava": (0.4659, 0.6611, 0.5818, 0.6342, 0.6309, 0.2915),
        "right adrenal gland": (0.0253, 0.1777, 0.1778, 0.1914, 0.1850, 0.0081),
        "left adrenal gland": (0.1891, 0.1993, 0.1761, 0.1874, 0.1538, 0.0380),
        "gallbladder": (0.4196, 0.2674, 0.2546, 0.2802, 0.2578, 0.1520),
        "esophagus": (0.2759, 0.3530, 0.3368, 0.3650, 0.3654, 0.0609),
        "stomach": (0.4558, 0.6076, 0.6270, 0.6897, 0.6554, 0.2035),
        "duodenum": (0.2937, 0.7392, 0.6792, 0.7519, 0.7192, 0.1385),
        "left kidney": (0.8049, 0.9367, 0.9265, 0.9580, 0.9333, 0.6962),
    },
    (0.4673, 0.5620, 0.5360, 0.5667, 0.5511, 0.3044),
)

PAPER: dict[str, PaperTable] = {
    "table1": _FLARE22.only("SAM"),
    "table2": _FLARE22.only("SAM", "SAM Adapter", "SAM LoRA r=1", "SAM LoRA r=4", "SAM LoRA r=8"),
    "table4": _FLARE22.only("SAM", "SAM 2"),
    "table5": PaperTable(
        "DSC on GID5",
        ("SAM", "SAM 2", "SAM LoRA r=4"),
        {
            BACKGROUND: (0.1059, 0.0975, 0.8047),
            "builtup": (0.1742, 0.1385, 0.6646),
            "water": (0.2771, 0.3197, 0.4524),
            "forest": (0.8107, 0.8027, 0.3568),
            "meadow": (0.8367, 0.8249, 0.3673),
            "farmland": (0.2435, 0.2325, 0.6411),
        },
        (0.4080, 0.4026, 0.5478),
    ),
    "table6": PaperTable(
        "DSC on SIRST",
        ("SAM", "SAM 2", "SAM LoRA r=4"),
        {BACKGROUND: (0.7614, 0.4407, 0.9999), "target": (0.5203, 0.4379, 0.8874)},
        (0.6409, 0.4393, 0.9437),
    ),
}
"""Tables of DSC; table 3 holds parameters."""

PARAMETERS: dict[str, tuple[float, float]] = {
    "LoRA r=1": (95.3, 2.4),
    "LoRA r=4": (95.5, 2.5),
    "LoRA r=8": (95.6, 2.7),
    "Adapter": (106.1, 10.8),
}
"""Table 3: method -> all and trained parameters in millions."""


def our_name(name: str) -> str:
    """A class name of a data set as the tables above write it: `adrenal_gland_right` -> `right adrenal gland`."""
    words = name.replace("_", " ").lower().split()
    for side in ("right", "left"):
        if words[-1:] == [side]:
            words = [side, *words[:-1]]
    return " ".join(words)
