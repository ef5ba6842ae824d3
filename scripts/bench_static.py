"""Static models: mlx_embed, model2vec and sentence-transformers' StaticEmbedding on one table and the same texts.

    python scripts/bench_static.py FILE

FILE has a text a line. The table is random, 30,000 x 256, and the tokenizer WordPiece of the words of the texts. Each
side encodes all texts, in turns; what is printed is the best of each. Needs model2vec and sentence-transformers.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from model2vec import StaticModel
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

import mlx_embed

ROWS, WIDTH = 30_000, 256


def tokenizer(texts: list[str]) -> Tokenizer:
    """WordPiece of the commonest words and all characters, filled up with words that no text has."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=ROWS, special_tokens=["[PAD]", "[UNK]"]))
    vocabulary = made.get_vocab()
    for number in range(len(vocabulary), ROWS):
        vocabulary[f"unused{number}"] = number
    made.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=20_000)
    arguments = parser.parse_args()
    lines = [line for line in arguments.file.read_text(encoding="utf-8").splitlines() if line.strip()]
    texts = (lines * -(-arguments.texts // len(lines)))[: arguments.texts]
    made = tokenizer(lines)
    table = np.random.default_rng(0).standard_normal((ROWS, WIDTH), dtype=np.float32)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        StaticModel(table, made, normalize=True).save_pretrained(folder / "model2vec")
        peer = StaticModel.from_pretrained(folder / "model2vec")
        SentenceTransformer(modules=[StaticEmbedding(made, table)], device="cpu").save(str(folder / "st"))
        torch = SentenceTransformer(str(folder / "st"), device="cpu")
        ours = mlx_embed.EmbeddingModel.from_pretrained(folder / "model2vec")
        theirs = mlx_embed.EmbeddingModel.from_pretrained(folder / "st")
        ids = ours.tokenizer(texts).ids
    lengths = Counter(map(len, ids))
    tokens = sum(length * count for length, count in lengths.items())
    run_ids = ours.engine
    sides: dict[str, Callable[[], object]] = {
        "model2vec": lambda: peer.encode(texts),
        "mlx_embed, model2vec's folder": lambda: ours.encode(texts),
        "sentence-transformers": lambda: torch.encode(texts),
        "mlx_embed, sentence-transformers' folder": lambda: theirs.encode(texts),
        "mlx_embed without the tokenizer": lambda: run_ids.gather(
            run_ids.batches(ids, run_ids.budget(None)), ours.head(), lambda count: None
        ).result(),
        "the tokenizers library alone": lambda: made.encode_batch_fast(texts, add_special_tokens=False),
    }
    difference = np.abs(np.asarray(peer.encode(texts[:500])) - ours.encode(texts[:500])).max()
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            best[name] = min(best[name], time.perf_counter() - start)
    sys.stdout.write(f"{len(texts)} texts, {tokens} tokens; largest difference from model2vec {difference:.1e}\n")
    for name, seconds in best.items():
        rate = f"{len(texts) / seconds:,.0f} texts/s, {seconds / tokens * 1e9:.0f} ns a token"
        sys.stdout.write(f"{name}: {seconds * 1e3:.1f} ms, {rate}\n")


if __name__ == "__main__":
    main()
