"""What each of several processes on one machine has for itself: a GPU, and a share of the cores."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from custom_kernels.cpu.cores import usable_cores
from mlx_embed.arguments import positive_number
from mlx_embed.engine.device import is_cpu, resolve_device


def environments_of(workers: int | None, device: Any = None) -> list[Mapping[str, str]]:
    """The variables of so many processes; None is one for each GPU, or one where `device` is not a GPU.

    Raises:
        ValueError: no positive number.
    """
    gpus = [] if is_cpu(resolve_device(device)) else visible_gpus()
    count = max(len(gpus), 1) if workers is None else positive_number("workers", workers, "processes")
    threads = share_of_threads(count)
    return [
        {**threads, "CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else threads for number in range(count)
    ]


def share_of_threads(count: int) -> dict[str, str]:
    """The variables of one of `count` processes that compute and tokenize at once on this machine's cores."""
    threads = str(max(1, usable_cores() // count))
    return {"MLX_EMBED_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}


def visible_gpus() -> list[str]:
    """NVIDIA's GPUs as CUDA_VISIBLE_DEVICES names them, those of that variable where it is set; none without CUDA.

    They are found without using one: a process that does has memory on it until it ends.
    """
    if not mx.cuda.is_available():
        return []
    if (wanted := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in wanted.split(",") if name.strip()]
    there = [path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    return [str(number) for number in range(len(there))]
