"""The documentation site builds without a warning, loads nothing from elsewhere, and tells of every command and method."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from sampeft.cli import COMMANDS
from sampeft.peft import METHODS

REPOSITORY = Path(__file__).parents[2]
_LOADED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["'](https?:[^"']+)""")


@pytest.fixture(scope="module")
def tools() -> object:
    sys.path.insert(0, str(REPOSITORY / "docs"))
    yield importlib.import_module("build_site")
    sys.path.remove(str(REPOSITORY / "docs"))


@pytest.fixture(scope="module")
def site(tools: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("zensical", "mkdocstrings_handlers.python", "latex2mathml"):
        pytest.importorskip(package, reason="the site needs the extra 'docs': pip install 'sampeft[docs]'")
    work = tmp_path_factory.mktemp("site")
    done = tools.build(work)  # type: ignore[attr-defined]
    assert done.returncode == 0, done.stdout
    return work / "site"


def test_a_broken_link_is_an_error(tools: object, tmp_path: Path) -> None:
    page = REPOSITORY / "docs" / "page.md"
    with pytest.raises(SystemExit, match=r"nowhere\.md"):
        tools.rewritten("see [this](nowhere.md)", page, Path("page.md"))  # type: ignore[attr-defined]


def test_links_follow_their_files_into_the_site(tools: object) -> None:
    source, place = REPOSITORY / "docs/adr/x.md", Path("adr/x.md")
    text = "[a](../../benchmarks/README.md) `[b](c.md)`\n\n```sh\n[d](e.md)\n```\n[f](../metrics.md#overlap)\n"
    moved = tools.rewritten(text.replace("`[b](c.md)`", ""), source, place)  # type: ignore[attr-defined]
    assert "[a](../benchmarks/README.md)" in moved
    assert "[d](e.md)" in moved  # code is not a link
    assert "[f](../metrics.md#overlap)" in moved


def test_formulas_become_mathml(tools: object) -> None:
    pytest.importorskip("latex2mathml")
    page = tools.with_formulas("a $`x_k`$ b\n\n```math\n\\frac{1}{2}\n```\n\n```sh\necho $`x`$\n```\n")  # type: ignore[attr-defined]
    assert page.count("<math") == 2
    assert "<mfrac>" in page
    assert "echo $`x`$" in page


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loaded = {
        (path.name, address)
        for path in site.rglob("*.html")
        for address in _LOADED.findall(path.read_text(encoding="utf-8"))
    }
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not loaded
    assert not re.search(r"(?:url\(|@import)\s*[\"']?https?:", styles)


def test_every_formula_was_understood(site: Path) -> None:
    for name in ("metrics.html", "methods.html"):
        page = (site / name).read_text(encoding="utf-8")
        assert page.count("<math") > 10
        outside = re.sub(r"<(math|pre|code)\b.*?</\1>", "", page, flags=re.DOTALL)
        assert not re.search(r"\$`|\\(frac|sum|mathrm)", outside)


def test_the_reference_has_every_command_method_and_option(site: Path) -> None:
    commands = (site / "reference/commands.html").read_text(encoding="utf-8")
    options = (site / "reference/options.html").read_text(encoding="utf-8")
    assert all(f'id="{command}"' in commands for command in COMMANDS)
    assert all(f'id="{method}"' in options for method in METHODS)
    assert "--training.cached_views" in commands
    assert "augmented views of each slice" in commands
    assert "<td></td>" not in commands  # a line of help is no option of its own
    assert "<td></td>\n<td><code>" not in options  # no option without a description


def test_the_python_page_has_what_it_names(site: Path, tools: object) -> None:
    pages = importlib.import_module("site_pages")
    page = (site / "reference/python.html").read_text(encoding="utf-8")
    for module, names in pages.PYTHON.items():
        for name in names:
            assert hasattr(importlib.import_module(module), name)
            assert f'id="{module}.{name}"' in page


def test_the_search_finds_words_of_a_page(site: Path) -> None:
    assert "bootstrap-t" in (site / "search.js").read_text(encoding="utf-8")
