#!/usr/bin/env python3
"""Resident memory of a process on the CPU that loads a model and encodes 64 texts of 7 to 84 words, by dtype.

    python scripts/bench_memory.py MODEL

Each dtype has a process of its own. Linux only: it reads /proc/self/status.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHILD = """
import sys
from mlx_embed import EmbeddingModel

def megabytes(name):
    (line,) = [line for line in open("/proc/self/status") if line.startswith(name + ":")]
    return int(line.split()[1]) / 1000

model = EmbeddingModel.from_pretrained(sys.argv[1], device="cpu", dtype=sys.argv[2])
loaded = megabytes("VmRSS")
model.encode(["the wing stalls and the flow separates " * (1 + n % 12) for n in range(64)])
print(f"{loaded:7.0f} loaded {megabytes('VmRSS'):7.0f} after encoding {megabytes('VmHWM'):7.0f} at most, MB")
"""


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for dtype in ("float32", "bfloat16", "int8"):
        print(f"{dtype:10}", end="", flush=True)
        subprocess.run([sys.executable, "-c", CHILD, sys.argv[1], dtype], env=environment, check=True)


if __name__ == "__main__":
    main()
