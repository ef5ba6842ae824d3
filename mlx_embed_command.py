"""The program `mlx-embed`: Ctrl-C ends it without a traceback while the package is imported; then `mlx_embed.cli` runs.

It is no part of the package, since all of that would be imported first, numpy and MLX too, in some tenths of a second.
"""

import signal


def main() -> int:
    """Run the command line; returns its status."""
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in the background of a script
    if listens:
        # An exception would not do: a library that is interrupted makes an ImportError of it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mlx_embed import cli

    if listens:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return cli.main()
