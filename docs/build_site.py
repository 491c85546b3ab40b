"""docs/, benchmarks/ and the program in, the documentation site out: build/site.

    python docs/build_site.py            # a broken link is an error; `make docs` does the same

Pages are written so that they also read well as plain files: links lead to files of the repository, formulas are
```math blocks and $`...`$, and `<!-- generated: NAME -->` marks a table that is made here from the program.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = {"docs": "", "benchmarks": "benchmarks", "recipes": "recipes", "CHANGELOG.md": "CHANGELOG.md"}
"""File or folder of the repository -> where it is in the site."""
TOOLS = [REPOSITORY / "docs" / name for name in ("build_site.py", "site_pages.py", "griffe_notes.py")]
KEPT = (".md", ".png", ".css", ".js", ".sbatch", ".yaml", ".sh", ".py")

_FENCE = re.compile(r"^( *)(```+)(\w*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
_INLINE_MATH = re.compile(r"\$`([^`]+)`\$")
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")
_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def stage(out: Path) -> None:
    """Copy the sources, make the rest. Raises SystemExit for a link to a file that is not there."""
    from site_pages import PAGES, TABLES

    shutil.rmtree(out, ignore_errors=True)
    for source, place in sources():
        target = out / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            text = rewritten(source.read_text(encoding="utf-8"), source, place)
            text = _MARK.sub(lambda mark: TABLES[mark[1]](), text)
            target.write_text(with_formulas(text), encoding="utf-8")
        else:
            shutil.copyfile(source, target)
    for name, make in PAGES.items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(with_formulas(make()), encoding="utf-8")


def sources() -> Iterator[tuple[Path, Path]]:
    """(file, its place in the site) of all that is copied."""
    for name, place in SOURCES.items():
        top = REPOSITORY / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.suffix in KEPT and path.is_file() and path not in TOOLS:
                yield path, Path(place) / path.relative_to(top) if top.is_dir() else Path(place)


def rewritten(text: str, source: Path, place: Path) -> str:
    """Links between files of the repository as links between pages of the site; code blocks stay as they are."""

    def moved(match: re.Match[str]) -> str:
        target = (source.parent / match[1]).resolve()
        for name, top in SOURCES.items():
            root = REPOSITORY / name
            if target.exists() and (target == root or root in target.parents):
                new = Path(top) / target.relative_to(root) if root.is_dir() else Path(top)
                new = new / "README.md" if target.is_dir() else new
                return os.path.relpath(new, place.parent)
        raise SystemExit(f"{source}: the link {match[1]} leads to no page of the site")

    return "".join(part if is_code else _LINK.sub(moved, part) for part, is_code in parts(text))


def parts(text: str) -> Iterator[tuple[str, bool]]:
    """(part, whether it is a fenced block) of a page, in order."""
    end = 0
    for fence in _FENCE.finditer(text):
        yield text[end : fence.start()], False
        yield fence[0] + "\n" * text.startswith("\n", fence.end()), True
        end = fence.end() + text.startswith("\n", fence.end())
    yield text[end:], False


def with_formulas(text: str) -> str:
    """LaTeX as MathML, which browsers show by themselves."""
    from latex2mathml.converter import convert

    def block(fence: re.Match[str]) -> str:
        if fence[3] != "math":
            return fence[0]
        return f'<div class="formula">{_plain(convert(fence[4].strip(), display="block"))}</div>'

    text = _FENCE.sub(block, text)
    return "".join(
        # In a span, since a line that begins with <math> would be taken for a block of its own.
        part if is_code else _INLINE_MATH.sub(lambda found: f"<span>{_plain(convert(found[1]))}</span>", part)
        for part, is_code in parts(text)
    )


def _plain(mathml: str) -> str:
    """Without signs that Markdown would take for its own."""
    return mathml.replace("*", "&#x2A;").replace("_", "&#x5F;").replace("`", "&#x60;")


def build(work: Path) -> subprocess.CompletedProcess[str]:
    """The site into `work`/site; what was said is in the result, whose code is not 0 after any warning."""
    sys.path.insert(0, str(REPOSITORY / "docs"))
    stage(work / "docs")
    for name in ("zensical.toml", "griffe_notes.py"):
        shutil.copyfile(REPOSITORY / "docs" / name, work / name)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run(command, cwd=work, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def main() -> int:
    done = build(REPOSITORY / "build")
    print(done.stdout)
    if done.returncode == 0:
        print(f"site: {REPOSITORY / 'build' / 'site' / 'index.html'}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
