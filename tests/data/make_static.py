"""Make static.npz: golden vectors of static models, of sentence-transformers and of model2vec.

    python tests/data/make_static.py

Needs model2vec 0.10 beside the oracles.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.mlx_embed.test_static import oracle
from tests.static import CASES, TEXTS, make


def main() -> None:
    golden = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as work:
            golden[name] = np.asarray(oracle(make(Path(work), name)).encode(TEXTS), dtype=np.float32)
    np.savez_compressed(Path(__file__).parent / "static.npz", **golden)


if __name__ == "__main__":
    main()
