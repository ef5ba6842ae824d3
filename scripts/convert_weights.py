"""Write a Hugging Face or sentence-transformers checkpoint as an MLX checkpoint; the same as `mlx-embed convert`."""

import argparse
import sys

from mlx_embed import cli

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    cli.add_convert(parser)
    sys.exit(cli.run(parser.parse_args()))
