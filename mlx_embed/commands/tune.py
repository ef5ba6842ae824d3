"""Time every way to compute each op on this machine's GPU."""

import argparse
from functools import partial


def add(parser: argparse.ArgumentParser) -> None:
    """It has no options."""


def run(options: argparse.Namespace) -> int:
    """Time and print one class of shapes after the other; on Metal the times are remembered."""
    from custom_kernels.choice.tune import cache_file
    from mlx_embed.engine.device import accelerator
    from mlx_embed.engine.worker import worker
    from mlx_embed.measure.tuning import classes, measured

    here = accelerator()
    if here is None:
        print("There is no GPU here, and so nothing to tune: the CPU's kernels are chosen by its instruction set.")
        return 0
    for shapes in classes(here):
        print(worker.run(partial(measured, *shapes)), flush=True)
    if here == "metal":
        print(f"These times choose what runs; they are in {cache_file()}.")
    else:
        print("On CUDA these times choose nothing: what runs was measured on an H100.")
    return 0
