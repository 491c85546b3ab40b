"""Table 3 of the paper: parameters of SAM ViT-B with its methods, ours beside the paper's."""

from __future__ import annotations

from pathlib import Path

from sampeft.configs.params import Config as ParamsConfig
from sampeft.io import write_atomically
from sampeft.report.paper import PARAMETERS
from sampeft.report.tables import markdown_table
from sampeft.workflows.params import count


def reproduce(out: Path) -> Path:
    """Table 3: parameters of SAM ViT-B with the paper's methods, for 14 classes and background as SAMed counts."""
    rows = []
    for name, (total, trained) in PARAMETERS.items():
        method = name.split()[0].lower()
        options = {"rank": int(name.split("=")[1])} if "=" in name else {}
        found = count(ParamsConfig(backbone="sam-vit-b", head="mask", classes=14), method, options)
        millions = (found["total_without_prompts"] / 1e6, found["trainable"] / 1e6)
        exact = (f"{found['total_without_prompts']:,}", f"{found['trainable']:,}")
        paper = (f"{total:.1f}", f"{trained:.1f}")
        rows.append(
            [name, *(text for p, m, e in zip(paper, millions, exact, strict=True) for text in (p, f"{m:.2f}", e))]
        )
    header = ["method"]
    for what in ("all parameters", "trained"):
        header += [f"paper: {what} (M)", f"ours: {what} (M)", f"ours, exactly: {what}"]
    text = (
        f"# Table 3: parameters of SAM ViT-B\n\n{markdown_table(header, rows)}\n"
        "- Ours: 14 classes and background, as SAMed counts; all that runs without a prompt. The promptable head and the "
        "prompt encoder, which only points and boxes use, are not in it.\n"
        "- `sampeft params --backbone sam-vit-b --head mask --method lora --options.rank 4 --classes 14` counts every part.\n"
    )
    out.mkdir(parents=True, exist_ok=True)
    target = out / "table3.md"
    write_atomically(target, text)
    return target
