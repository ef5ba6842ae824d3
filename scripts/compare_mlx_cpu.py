"""Compare MLX's accelerator with its CPU stream; the same as `mlx-embed compare`."""

import argparse
import sys

from mlx_embed import cli

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    cli.add_compare(parser)
    sys.exit(cli.run(parser.parse_args()))
