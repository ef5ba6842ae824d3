"""The commands of `mlx-embed`, one a file: the first line of its docstring is its help; see `Command`."""

import argparse
from typing import Protocol


class Command(Protocol):
    """What a file of this folder defines."""

    __doc__: str | None

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Give the parser the command's options."""
        ...

    def run(self, options: argparse.Namespace) -> int:
        """Do it, and give the exit status: 0, or 1 where a check failed.

        What only this command needs is imported here, not at the top of the file. An error that a person can mend is
        raised, and `mlx_embed.cli` makes it a sentence on stderr.
        """
        ...
