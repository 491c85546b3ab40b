"""A plain page that lists the OpenAPI description; nothing is loaded from anywhere, so it works offline."""

from __future__ import annotations

from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
section { border-top: 1px solid #ccc; padding: .5rem 0; } h2 { margin: 2rem 0 .5rem; }
h3 { font: 600 1rem ui-monospace, monospace; margin: .5rem 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; } td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
code { font-family: ui-monospace, monospace; }
"""


def docs_page(openapi: dict[str, Any]) -> str:
    """HTML: each path with what it takes and answers, by tags."""
    by_tag: dict[str, list[str]] = {}
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            tag = operation.get("tags", ["other"])[0]
            by_tag.setdefault(tag, []).append(_operation(path, method, operation, openapi))
    parts = [f"<h2>{escape(tag)}</h2>{''.join(sections)}" for tag, sections in by_tag.items()]
    info = openapi["info"]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}: interface</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])}</p>"
        f'<p>For programs: <a href="/openapi.json">openapi.json</a></p>{"".join(parts)}</body></html>'
    )


def _operation(path: str, method: str, operation: dict[str, Any], openapi: dict[str, Any]) -> str:
    rows = [
        (p["name"], f"{p['in']}{'' if p.get('required') else ', optional'}", p.get("description", ""))
        for p in operation.get("parameters", [])
    ]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolved(content["schema"], openapi)
        needed = schema.get("required", [])
        rows += [
            (name, f"{kind}{'' if name in needed else ', optional'}", value.get("description", ""))
            for name, value in schema.get("properties", {}).items()
        ]
    taken = "".join(f"<tr><td><code>{escape(n)}</code><td>{escape(w)}<td>{escape(d)}</tr>" for n, w, d in rows)
    answers = "".join(
        f"<tr><td>{escape(status)}<td>{escape(answer.get('description', ''))}</tr>"
        for status, answer in sorted(operation["responses"].items())
    )
    return (
        f"<section><h3>{method.upper()} {escape(path)}</h3><p>{escape(operation.get('description', ''))}</p>"
        f"<table>{taken}</table><table>{answers}</table></section>"
    )


def _resolved(schema: dict[str, Any], openapi: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = openapi["components"]["schemas"][reference] if reference else schema
    return found
