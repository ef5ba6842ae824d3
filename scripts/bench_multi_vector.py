"""Late interaction: MultiVectorEncoder here and in sentence-transformers, on one model and the same texts.

    python scripts/bench_multi_vector.py FILE MODEL

FILE has a text a line; MODEL is a folder of a BERT's encoder with its tokenizer, to which a random projection to 128
dimensions is added in Stanford's layout. The first texts are queries too, of 32 tokens. Each side encodes and scores in
turns; what is printed is the best of each.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from sentence_transformers import MultiVectorEncoder

import mlx_embed


def save(model: Path, folder: Path) -> None:
    """The encoder, with a random projection beside it."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        if (model / name).exists():
            shutil.copy(model / name, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    tensors = {f"bert.{name}": array for name, array in load_file(model / "model.safetensors").items()}
    projection = np.random.default_rng(0).standard_normal((128, config["hidden_size"]), dtype=np.float32)
    save_file(tensors | {"linear.weight": projection}, folder / "model.safetensors", {"format": "pt"})
    (folder / "artifact.metadata").write_text(json.dumps({"query_maxlen": 32, "doc_maxlen": 220}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = options.file.read_text(encoding="utf-8").splitlines()[: options.texts]
    queries = texts[: options.queries]
    with tempfile.TemporaryDirectory() as folder:
        save(options.model, Path(folder))
        ours = mlx_embed.MultiVectorEncoder.from_pretrained(folder, device="cpu")
        theirs = MultiVectorEncoder(folder, device="cpu")
    asked, found = ours.encode_query(queries), ours.encode_document(texts)
    torch_asked, torch_found = theirs.encode_query(queries), theirs.encode_document(texts)
    works: dict[str, dict[str, Callable[[], object]]] = {
        f"{len(texts)} documents": {
            "mlx_embed": lambda: ours.encode_document(texts),
            "sentence-transformers": lambda: theirs.encode_document(texts),
        },
        f"{len(queries)} queries": {
            "mlx_embed": lambda: ours.encode_query(queries),
            "sentence-transformers": lambda: theirs.encode_query(queries),
        },
        "all scores": {
            "mlx_embed": lambda: ours.similarity(asked, found),
            "sentence-transformers": lambda: theirs.similarity(torch_asked, torch_found),
        },
    }
    for what, sides in works.items():
        best = dict.fromkeys(sides, float("inf"))
        for _ in range(options.rounds):
            for name, work in sides.items():
                start = time.perf_counter()
                work()
                best[name] = min(best[name], time.perf_counter() - start)
        shown = ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in best.items())
        sys.stdout.write(f"{what}: {shown}\n")
    scores = theirs.similarity(torch_asked, torch_found).numpy()
    sys.stdout.write(f"largest difference of a score {np.abs(ours.similarity(asked, found) - scores).max():.1e}\n")


if __name__ == "__main__":
    main()
