"""How many cores this process may use."""

import os
from pathlib import Path


def usable_cores() -> int:
    """The cores that this process may use, by its affinity and its control group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    root = Path("/sys/fs/cgroup")
    for quota, period in _quotas(root):
        if quota > 0 and period > 0:
            cores = min(cores, max(1, -(-quota // period)))
    return max(cores, 1)


def _quotas(root: Path) -> list[tuple[int, int]]:
    """(quota, period) of this process's control groups: version 2's own group and its parents, or version 1's."""
    found = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        inside = Path(place.lstrip("/"))
        for folder in (base / inside, *(base / parent for parent in inside.parents)):
            try:
                if controllers:
                    texts = [(folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]
                else:
                    texts = (folder / "cpu.max").read_text().split()
                found.append((int(texts[0]), int(texts[1])))
            except (OSError, ValueError):  # no such file, or "max"
                continue
    return found
