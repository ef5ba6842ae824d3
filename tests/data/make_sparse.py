"""Make sparse.npz: golden vectors of sparse models, of sentence-transformers.

python tests/data/make_sparse.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.mlx_embed.test_sparse_encoder import oracle
from tests.sparse import CASES, METHODS, TEXTS, make


def main() -> None:
    golden = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as work:
            model = oracle(make(Path(work), name))
            for method in METHODS:
                golden[f"{name}: {method}"] = getattr(model, method)(TEXTS).to_dense().numpy()
    np.savez_compressed(Path(__file__).parent / "sparse.npz", **golden)


if __name__ == "__main__":
    main()
