"""Make bge_m3.npz: golden values of BGE-M3's three results, by transformers.

python tests/data/make_bge_m3.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bge_m3 import make, oracle


def main() -> None:
    golden = {}
    for width in (32, 20):
        with tempfile.TemporaryDirectory() as work:
            found = oracle(make(Path(work), width))
        golden |= {name: found[name] for name in ("dense", "sparse")}
        golden[f"multi, {width} wide"] = np.concatenate([text[:3] for text in found["multi"]])
    np.savez_compressed(Path(__file__).parent / "bge_m3.npz", **golden)


if __name__ == "__main__":
    main()
