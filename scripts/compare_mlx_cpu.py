"""Compare MLX's accelerator with its CPU stream; the same as `mlx-embed compare`."""

import sys

from mlx_embed import cli

if __name__ == "__main__":
    sys.exit(cli.main(["compare", *sys.argv[1:]]))
