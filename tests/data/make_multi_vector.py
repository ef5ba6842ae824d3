"""Make multi_vector.npz: golden scores of models of a vector a token, of sentence-transformers and of PyLate.

python tests/data/make_multi_vector.py, once where sentence-transformers 6.2 is installed, and once where PyLate 1.6 is;
each leaves the other's as they are.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.multi_vector import CASES, TEXTS, make

FILE = Path(__file__).parent / "multi_vector.npz"


def of_sentence_transformers() -> dict[str, np.ndarray]:
    """The scores of queries and documents, and of texts that are neither."""
    from sentence_transformers import MultiVectorEncoder

    golden = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as work:
            model = MultiVectorEncoder(str(make(Path(work), name)), device="cpu")
            queries, documents, texts = (
                getattr(model, method)(TEXTS) for method in ("encode_query", "encode_document", "encode")
            )
            golden[name] = model.similarity(queries, documents).numpy()
            golden[f"{name}: encode"] = model.similarity(texts[:3], texts[:3]).numpy()
            golden[f"{name}: lengths"] = np.array([[len(text) for text in found] for found in (queries, documents)])
    return golden


def of_pylate() -> dict[str, np.ndarray]:
    """The scores of queries and documents of what PyLate saves."""
    from pylate import models, scores

    golden = {}
    for name in CASES:
        if name.startswith("pylate"):
            with tempfile.TemporaryDirectory() as work:
                model = models.ColBERT(str(make(Path(work), name)), device="cpu")
                found = [model.encode(TEXTS, is_query=is_query, convert_to_numpy=False) for is_query in (True, False)]
                rows = [[float(scores.colbert_scores(a[None], b[None])) for b in found[1]] for a in found[0]]
                golden[f"{name}: PyLate"] = np.array(rows, dtype=np.float32)
    return golden


def main() -> None:
    golden = dict(np.load(FILE)) if FILE.exists() else {}
    try:
        import pylate  # noqa: F401
    except ImportError:
        golden |= of_sentence_transformers()
    else:
        golden |= of_pylate()
    np.savez_compressed(FILE, **{name: golden[name] for name in sorted(golden)})


if __name__ == "__main__":
    main()
