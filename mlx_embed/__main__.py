"""`python -m mlx_embed` is the command `mlx-embed`, also where the folder of commands is not on the PATH."""

import sys

from mlx_embed.cli import main

if __name__ == "__main__":
    sys.exit(main())
