"""Download public data sets and weights: show the licence, resume, check the digest, unpack."""

from __future__ import annotations

import json
from dataclasses import asdict

from sampeft.configs.fetch import Config
from sampeft.errors import UsageError, unknown_name
from sampeft.options import check_paths
from sampeft.workflows.fetch import default_folder, fetch, fetchable


def run(config: Config) -> int:
    check_paths(config)
    if config.list:
        print(json.dumps({"public": [asdict(p) for p in fetchable().values()]}) if config.json else table())
        return 0
    publics = fetchable()
    if config.name is None:
        raise UsageError(f"give the name of what to fetch: {', '.join(publics)}; --list says more")
    if config.name not in publics:
        raise unknown_name("data set or weights", config.name, publics)
    public = publics[config.name]
    result = fetch(public, config.out or default_folder(public), ask=not config.yes)
    if config.json:
        print(json.dumps(result))
        return 0
    checked = "as published" if result["verified"] else "no published one to compare with"
    print(f"{public.name}: {'fetched' if result['fetched'] else 'already there'}: {result['path']}")
    print(f"sha256 {result['sha256'] or 'not known'} ({checked})")
    if public.note:
        print(f"note: {public.note}")
    print(f"next: {result['next']}")
    return 0


def table() -> str:
    """What there is, as a Markdown table."""
    lines = [
        "| name | what | size | licence | sha256 | from | to cite |",
        "|---|---|---:|---|---|---|---|",
    ]
    for p in fetchable().values():
        size = f"{p.size_bytes / 1e6:,.0f} MB" if p.size_bytes else "not known"
        digest = f"`{p.sha256[:12]}...`" if p.sha256 else "not known"
        way = f"by hand: {p.by_hand}" if p.by_hand else "" if p.url else f"{p.way}, "
        where = f"{way}{'; ' if p.by_hand else ''}[page]({p.page})"
        lines.append(f"| `{p.name}` | {p.what} | {size} | {p.licence} | {digest} | {where} | {p.cite} |")
    return "\n".join(lines)
