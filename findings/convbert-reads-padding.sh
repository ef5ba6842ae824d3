#!/usr/bin/env bash
# Version:   sentence-transformers 6.2.0 with transformers 5.24.0, torch 2.13.0 and numpy 2.4.6.
# Guess:     a text's vector does not depend on the texts beside it in a batch, but for rounding: padding is masked.
# Behaviour: so it is for a BERT. ConvBERT's convolutions, in each layer, read the states of the padding behind a text,
#            which are not zeros, where the end of a batch's longest text is followed by zeros. The mask goes to the
#            attention alone. sentence-transformers' own module CNN, behind any model, does the same.
# Why:       encode() sorts texts by length and fills batches, so that a document that is indexed among others gets another
#            vector than the same text as a query, and another one with each batch size. ConvBERT is at the base of
#            embedding models for Turkish. For MobileBERT, whose first layer reads neighbours, it is known (issues 7070 and
#            9860, closed as won't fix); nothing was found about ConvBERT and CNN.
# Seen:
#   BertModel:         cosine 1.000 to 1.000 of alone and beside a longer text; neighbours the same: 10.0 of 10, if every second text is beside one, 10.0
#   ConvBertModel:     cosine 0.984 to 0.998 of alone and beside a longer text; neighbours the same: 8.6 of 10, if every second text is beside one, 7.6
#   BertModel and CNN: cosine 0.991 to 0.999 of alone and beside a longer text; neighbours the same: 9.2 of 10, if every second text is beside one, 9.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet sentence-transformers==6.2.0 torch==2.13.0 transformers==5.24.0 numpy==2.4.6

cat > "$work/padding.py" <<'PY'
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import CNN, Pooling
from transformers import BertConfig, BertModel, BertTokenizerFast, ConvBertConfig, ConvBertModel

logging.disable()
warnings.simplefilter("error", UserWarning)
folder = Path(sys.argv[1])
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{at}" for at in range(500))]
(folder / "vocab.txt").write_text("\n".join(words))
tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
for kind, config, model in (("bert", BertConfig, BertModel), ("convbert", ConvBertConfig, ConvBertModel)):
    torch.manual_seed(0)
    size = {"vocab_size": 505, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    size |= {"intermediate_size": 128, "initializer_range": 0.1} | ({"embedding_size": 64} if kind == "convbert" else {})
    model(config(**size)).save_pretrained(folder / kind)
    tokenizer.save_pretrained(folder / kind)
random = np.random.default_rng(0)
texts = [" ".join(f"w{word}" for word in random.integers(0, 500, random.integers(4, 12))) for _ in range(300)]
longer = " ".join(f"w{word}" for word in random.integers(0, 500, 30))


def nearest(vectors: np.ndarray) -> np.ndarray:
    """Returns the ten nearest other rows of each row."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    return scores.argsort(axis=1)[:, -10:]


modules = {
    "BertModel": ("bert", []),
    "ConvBertModel": ("convbert", []),
    "BertModel and CNN": ("bert", [CNN(64, 64, kernel_sizes=[1, 3, 5])]),
}
for name, (kind, more) in modules.items():
    torch.manual_seed(0)
    width = more[0].get_embedding_dimension() if more else 64
    model = SentenceTransformer(modules=[Transformer(str(folder / kind)), *more, Pooling(width)], device="cpu").eval()
    alone, beside = (
        np.stack([model.encode([text, *others], normalize_embeddings=True)[0] for text in texts])
        for others in ([], [longer])
    )
    cosines = (alone * beside).sum(axis=1)
    kept = np.mean([len({*a} & {*b}) for a, b in zip(nearest(alone), nearest(beside), strict=True)])
    mixed = np.where(np.arange(300)[:, None] % 2, alone, beside)
    mixed = np.mean([len({*a} & {*b}) for a, b in zip(nearest(alone), nearest(mixed), strict=True)])
    print(f"{name + ':':18} cosine {cosines.min():.3f} to {cosines.max():.3f} of alone and beside a longer text;", end=" ")
    print(f"neighbours the same: {kept:.1f} of 10, if every second text is beside one, {mixed:.1f}")
    if (name == "BertModel") != bool(cosines.min() > 0.9999 and kept > 9.9):
        sys.exit(f"{name} behaves otherwise now.")
PY
"$work/venv/bin/python" "$work/padding.py" "$work" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
