"""The reference page of all codes, docs/reference/codes.md, made of their table. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ipc.codes import CODES, FAMILIES, Code

_HEAD = """# Codes

<!-- Made of ipc/codes.py by scripts/generate-docs: change them there. -->

Every denial and limit carries a code; `airssys help CODE` prints what is here, `airssys help --list` all titles.
A code never changes its meaning.
"""


def families() -> Iterator[tuple[str, tuple[Code, ...]]]:
    """Yield what a family of codes is about, and its codes in order."""
    for beginning, title in FAMILIES.items():
        yield title, tuple(CODES[code] for code in sorted(CODES) if code.startswith(beginning))


def codes_page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for title, codes in families():
        parts.append(f"## {title}\n")
        parts += [f"### {each.code}\n\n**{each.title}.** {each.explanation}\n\n{each.advice}\n" for each in codes]
    return "\n".join(parts)
