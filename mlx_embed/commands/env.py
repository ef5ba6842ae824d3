"""Print what this machine has, which kernels it will use, and what to improve."""

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """It has no options."""


def run(options: argparse.Namespace) -> int:
    """Print it, advice last."""
    from mlx_embed.measure.environment import environment
    from mlx_embed.measure.text import aligned

    found = environment()
    print(aligned(list(row) for row in found.rows.items()))
    print()
    backends = list(next(iter(found.ops.values())))
    print(aligned([["kernels", *backends], *([op, *kernels.values()] for op, kernels in found.ops.items())]))
    print()
    print("\n".join(["To improve:", *found.advice] if found.advice else ["There is nothing to improve."]))
    return 0
