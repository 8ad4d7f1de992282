"""Links of the documentation lead somewhere, and the index leads to every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = [*(ROOT / name for name in TOP), *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def links_of(page: Path) -> list[str]:
    """Return the targets of a page's links, those of other sites and those in code left out."""
    return [target for target in _LINK.findall(_CODE.sub("``", page.read_text())) if "://" not in target]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that headings of a page get: lower case, blanks as hyphens, no punctuation (GitHub's way)."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Each relative link names a file of the repository, and its fragment a heading there."""
    for target in links_of(page):
        path, _, fragment = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert ROOT in found.parents, target
        if fragment:
            assert fragment in anchors_of(found), target


def test_the_index_has_every_page() -> None:
    """docs/README.md links to each page beneath docs."""
    linked = {(DOCS / target.partition("#")[0]).resolve() for target in links_of(DOCS / "README.md")}
    assert {page for page in DOCS.rglob("*.md") if page != DOCS / "README.md"} - linked == set()


def test_how_to_guides_are_short() -> None:
    """A guide that is longer than a screen or two is two guides, or belongs to the reference."""
    long = {page.name: page.read_text().count("\n") for page in (DOCS / "how-to").glob("*.md")}
    assert {name: lines for name, lines in long.items() if lines > 90} == {}
