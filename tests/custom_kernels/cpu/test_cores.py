"""How many threads the kernels use, and on which instructions: by the environment, the affinity and control groups."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from custom_kernels import cpu
from custom_kernels.cpu import cores

SCRIPT = "from custom_kernels import cpu; print(cpu.num_threads(), cpu.instruction_set())"


@pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")
def test_the_environment() -> None:
    """It is read once a process."""
    root = Path(cores.__file__).parents[2]
    told = {"PYTHONPATH": str(root), "MLX_EMBED_NUM_THREADS": "3", "MLX_EMBED_CPU_ISA": "baseline"}
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | told, cwd=root)
    threads, instructions = run.stdout.split(maxsplit=1)
    assert threads == "3"
    assert instructions.strip() in ("baseline", "NEON"), "what every machine of this kind has"


def machine(
    files: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch, *, allowed: int = 8, there: int = 16
) -> int:
    """The usable cores of a machine with these files, where this process may run on so many of the cores there."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(cores, "Path", lambda path: folder / path[1:] if path.startswith("/") else Path(path))
    monkeypatch.setattr(os, "cpu_count", lambda: there)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    return cores.usable_cores()


V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "150000 100000"}, 2),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "10000 100000"}, 1),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "1600000 100000"}, 8),
        (
            {
                "proc/self/cgroup": "0::/a/b/c\n",
                "sys/fs/cgroup/a/b/c/cpu.max": "600000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
                "sys/fs/cgroup/a/cpu.max": "300000 100000",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/d\n",
                f"{V1}/d/cpu.cfs_quota_us": "500000\n",
                f"{V1}/d/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/d\n",
                f"{V1}/d/cpu.cfs_quota_us": "-1\n",
                f"{V1}/d/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_control_groups(files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine(files, tmp_path, monkeypatch) == expected


def test_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine({}, tmp_path, monkeypatch, allowed=5) == 5
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores.usable_cores() == 16
