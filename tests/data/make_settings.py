"""Make settings.npz: golden vectors and scores of what config.json and the files beside it can say.

    python tests/data/make_settings.py

The checkpoints are those of make_checkpoints.py, changed as the tests that use the file change them.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from sentence_transformers import CrossEncoder

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.mlx_embed import test_cross_encoder_scores as scores
from tests.mlx_embed.architectures import cases
from tests.mlx_embed.architectures import test_settings as configs
from tests.mlx_embed.checkpoint import test_golden_settings as files
from tests.mlx_embed.checkpoint.test_modules import oracle

HERE = Path(__file__).parent


def main() -> None:
    golden: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as work:
        for place, name in enumerate(configs.SETTINGS):
            model = cases.oracle(configs.checkpoint(name, Path(work) / f"config-{place}"))
            golden[f"config: {name}"] = model.encode(configs.TEXTS, normalize_embeddings=True)
        for place, (name, (make, calls)) in enumerate(files.SETTINGS.items()):
            model = oracle(make(Path(work) / f"files-{place}"))
            found = [getattr(model, method)(files.TEXTS, **options) for method, options in calls]
            golden[f"files: {name}"] = np.stack(found)
        for place, name in enumerate(scores.SETTINGS):
            folder = Path(work) / f"scores-{place}"
            folder.mkdir()
            model = CrossEncoder(str(scores.made(name, folder)), device="cpu")
            golden[f"scores: {name}"] = model.predict(scores.PAIRS, **scores.SETTINGS[name][4])
            if name == "plain":
                ranked = model.rank(scores.QUERY, scores.DOCUMENTS)
                golden["scores: order"] = np.array([entry["corpus_id"] for entry in ranked])
    np.savez_compressed(HERE / "settings.npz", **golden)


if __name__ == "__main__":
    main()
