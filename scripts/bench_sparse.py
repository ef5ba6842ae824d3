"""Sparse models: SparseEncoder here and in sentence-transformers, on one random model and the same texts.

    python scripts/bench_sparse.py FILE TOKENIZER

FILE has a text a line; TOKENIZER is a folder with a BERT's tokenizer. The model is BERT's masked language model of 6
layers, 768 wide. Each side encodes the texts in turns, as fast as it does; what is printed is the best of each.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SparseEncoder
from transformers import BertConfig, BertForMaskedLM

import mlx_embed


def save(folder: Path, tokenizer: Path) -> None:
    """A random model, whose bias leaves about two fifths of the vocabulary above 0."""
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(num_hidden_layers=6))
    with torch.no_grad():
        model.cls.predictions.bias -= 1.2
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    texts = options.file.read_text(encoding="utf-8").splitlines()[: options.texts]
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), options.tokenizer)
        ours = mlx_embed.SparseEncoder.from_pretrained(folder, device="cpu", max_seq_length=256)
        theirs = SparseEncoder(folder, device="cpu")
        theirs.max_seq_length = 256
        best = {"mlx_embed": float("inf"), "sentence-transformers": float("inf")}
        for _ in range(options.rounds):
            start = time.perf_counter()
            found = ours.encode(texts)
            best["mlx_embed"] = min(best["mlx_embed"], time.perf_counter() - start)
            start = time.perf_counter()
            expected = theirs.encode(texts, batch_size=16)
            best["sentence-transformers"] = min(best["sentence-transformers"], time.perf_counter() - start)
    assert isinstance(found, mlx_embed.SparseVectors)
    difference = np.abs(found.dense() - expected.to_dense().numpy()).max()
    for name, seconds in best.items():
        sys.stdout.write(f"{name}: {seconds:.2f} s, {len(texts) / seconds:.1f} texts/s\n")
    sys.stdout.write(f"largest difference {difference:.1e}\n")


if __name__ == "__main__":
    main()
