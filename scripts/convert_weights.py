"""Write a Hugging Face or sentence-transformers checkpoint as an MLX checkpoint; the same as `mlx-embed convert`."""

import sys

from mlx_embed import cli

if __name__ == "__main__":
    sys.exit(cli.main(["convert", *sys.argv[1:]]))
