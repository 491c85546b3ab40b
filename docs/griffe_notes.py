"""Docstrings in, the same with each `name: what it is` as an item of a list out, for the page on Python."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


def broken(text: str) -> str:
    """A line for every `name: `, also where one follows another on a line."""
    return re.sub(r"(?<=[.;)]) (?=[a-z_]\w*(?:, [a-z_]\w*)*: )", "\n", text)


def as_list(text: str) -> str:
    """Paragraphs that begin with `name: ` become lists; what `Raises` begins is a paragraph of its own."""
    paragraphs: list[str] = []
    for paragraph in re.split(r"\n\s*\n", broken(text)):
        notes = re.split(r"\n(?=[a-z_][a-zA-Z0-9_]*(?:, [a-z_][a-zA-Z0-9_]*)*: |Raises )", paragraph)
        if not any(re.match(r"[a-z_][\w, ]*: ", note) for note in notes):
            paragraphs.append(paragraph)
            continue
        for note in notes:
            named = re.match(r"([a-z_]\w*(?:, [a-z_]\w*)*): ", note)
            body = " ".join(note.split())
            paragraphs.append(f"- `{named[1]}`: {body[len(named[0]) :]}" if named else body)
    return "\n\n".join(paragraphs)


class Notes(Extension):
    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring and "Args:" not in obj.docstring.value:
            obj.docstring.value = as_list(obj.docstring.value)
