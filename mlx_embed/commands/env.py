"""Print what this machine has, which kernels it will use, and what to improve."""

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """It has no options."""


def run(options: argparse.Namespace) -> int:
    """Print it."""
    from mlx_embed.measure.environment import environment

    rows = environment()
    width = max(map(len, rows))
    print("\n".join(f"{name.ljust(width)}  {value}" for name, value in rows.items()))
    return 0
