"""Memory that the machine leaves to this process, and how many processes train together."""

from __future__ import annotations

from pathlib import Path

from sampeft.launcher import launched


def room_bytes() -> int:
    """Bytes of main memory that this process may fill, its own among them: what the machine has to give, and what the
    control groups that it runs in (a container's, a batch system's) leave."""
    import psutil  # type: ignore[import-untyped]

    free = [int(psutil.virtual_memory().available), *left_by_groups()]
    return int(psutil.Process().memory_info().rss) + min(free)


def left_by_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Of each control group of this process that limits memory: limit - use, where files that can be dropped count as
    unused. Versions 1 and 2; none where there are no such groups."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    left: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        limit_file, use_file, droppable = names
        inner = top / path.lstrip("/")
        for group in (inner, *inner.parents):
            if not group.is_relative_to(top):
                break
            try:
                limit, use = (int((group / name).read_text()) for name in (limit_file, use_file))
                stat = dict(row.split() for row in (group / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such group here, or its limit is `max`
                continue
            left.append(max(0, limit - use + int(stat.get(droppable, 0))))
    return left


def processes() -> int:
    """How many processes train together, as accelerate's launcher tells them."""
    return launched().world
