#!/usr/bin/env bash
# Version:   ctranslate2 4.8.5 with transformers 5.24.0, torch 2.13.0 and numpy 2.4.6.
# Guess:     the converted encoder of a RoBERTa or XLM-RoBERTa gives transformers' hidden states, whatever its padding
#            token is; no text here is padded.
# Behaviour: it does so unless the padding token's id is 0. These models count positions from one behind that id, and the
#            converter cuts the rows before off the table, but only for an id above 0: with 0 each token gets the
#            position of the token before it, and the first one the padding's row. Neither the converter nor the
#            encoder says anything. BERT and DistilBERT, which count from 0, are right.
# Cause:     the offset is taken for absent where it is 0, though a padding token of 0 asks for a shift by one.
# Why:       a RoBERTa that is trained from scratch with a word list in BERT's order has [PAD] as 0. Its vectors after
#            conversion are near enough to look like rounding or quantization, and rank otherwise.
# Seen:
#   roberta, [PAD] = 1: least cosine with transformers 1.00, neighbours kept 100%
#   roberta, [PAD] = 0: least cosine with transformers 0.92, neighbours kept 42%
#   xlm-roberta, [PAD] = 0: least cosine with transformers 0.92, neighbours kept 42%
#   bert, [PAD] = 0: least cosine with transformers 1.00, neighbours kept 100%
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ctranslate2==4.8.5 transformers==5.24.0 torch==2.13.0 numpy==2.4.6

cat > "$work/positions.py" <<'PY'
import sys
from pathlib import Path

import ctranslate2
import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModel, BertConfig, PreTrainedTokenizerFast, RobertaConfig, XLMRobertaConfig

random = np.random.default_rng(0)
# Ids from 4 on, so that none is a special token.
texts = [random.integers(4, 104, random.integers(4, 12)).tolist() for _ in range(200)]


def vectors(config: RobertaConfig, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each text's states, normalized, by transformers and by the converted model: [texts, size] each."""
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    for weights in model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.1)
    model.save_pretrained(folder)
    words = {"[PAD]": config.pad_token_id, "[UNK]": 1 - config.pad_token_id, "[CLS]": 2, "[SEP]": 3}
    words |= {f"w{number}": number for number in range(4, 104)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    special = {"bos_token": "[CLS]", "eos_token": "[SEP]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", **special).save_pretrained(folder)
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(folder / "converted"))
    encoder = ctranslate2.Encoder(str(folder / "converted"), compute_type="float32")
    with torch.no_grad():
        ours = [model(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy() for ids in texts]
    theirs = [np.array(encoder.forward_batch([ids]).last_hidden_state)[0].mean(0) for ids in texts]
    return tuple(rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (np.array(ours), np.array(theirs)))


def nearest(rows: np.ndarray) -> list[list[int]]:
    scores = rows @ rows.T
    np.fill_diagonal(scores, -2)
    return np.argsort(-scores, axis=1)[:, :5].tolist()


shape = {"vocab_size": 104, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
shape |= {"max_position_embeddings": 40, "position_embedding_type": "absolute"}
for kind, pad in ((RobertaConfig, 1), (RobertaConfig, 0), (XLMRobertaConfig, 0), (BertConfig, 0)):
    name = f"{kind.model_type}, [PAD] = {pad}"
    ours, theirs = vectors(kind(**shape, pad_token_id=pad), Path(sys.argv[1]) / name.replace(" ", ""))
    cosine = (ours * theirs).sum(axis=1).min()
    kept = np.mean([len({*left} & {*right}) for left, right in zip(nearest(ours), nearest(theirs))]) / 5
    print(f"{name}: least cosine with transformers {cosine:.2f}, neighbours kept {kept:.0%}")
    shifted = pad == 0 and kind is not BertConfig
    if (cosine < 0.98) != shifted or (kept > 0.99) == shifted:
        sys.exit(f"{name} is converted in another way now.")
PY
"$work/venv/bin/python" "$work/positions.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
