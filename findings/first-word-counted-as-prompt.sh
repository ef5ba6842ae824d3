#!/usr/bin/env bash
# Version:   sentence-transformers 6.2.0 with transformers 5.24.0, torch 2.13.0 and tokenizers 0.23.3.
# Guess:     Pooling's include_prompt=False leaves the prompt's tokens out of the mean and keeps all of the text's.
# Behaviour: the prompt is tokenized alone, and as many tokens are left out of each text. A prompt ends with a space, as
#            "query: " does. Alone, that space is one more token of a byte-level BPE tokenizer (RoBERTa's, ModernBERT's,
#            Qwen's); before a text it belongs to the first word. So the first word of every text is left out as well.
#            WordPiece has no token for the space and is counted rightly.
# Why:       queries lose most: two that differ in their first word only are nearly one vector, and all that are one
#            word long have the end token's vector, or zeros where the tokenizer adds no end token.
# Seen:
#   WordPiece, end token: "wing flow" is the mean of: wing flow </s>
#   WordPiece, end token: "wing" is the mean of: wing </s>
#   byte-level BPE, end token: "wing flow" is the mean of: Ġflow </s>
#   byte-level BPE, end token: "wing" is the mean of: </s>
#   byte-level BPE, no end token: "wing flow" is the mean of: Ġflow
#   byte-level BPE, no end token: "wing" is the mean of: nothing, all zeros
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 sentence-transformers==6.2.0 tokenizers==0.23.3

cat > "$work/prompt.py" <<'PY'
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast
from transformers.utils import logging

logging.disable_progress_bar()
PROMPT, CORPUS = "query: ", ["query: wing flow heat air", "heat wing air flow"] * 10
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]


def tokenizer(byte_level: bool, ends: bool) -> PreTrainedTokenizerFast:
    rest = {"vocab_size": 1000, "special_tokens": SPECIAL, "show_progress": False}
    if byte_level:
        fast = Tokenizer(models.BPE())
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        fast.train_from_iterator(CORPUS, trainers.BpeTrainer(initial_alphabet=alphabet, **rest))
    else:
        fast = Tokenizer(models.WordPiece(unk_token="<unk>"))
        fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        fast.train_from_iterator(CORPUS, trainers.WordPieceTrainer(**rest))
    if ends:
        fast.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    names = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=fast, **names)


def model(folder: Path, words: PreTrainedTokenizerFast) -> SentenceTransformer:
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3,
    )
    words.save_pretrained(folder)
    ModernBertModel(config).save_pretrained(folder)
    pooling = Pooling(32, "mean", include_prompt=False)
    return SentenceTransformer(modules=[Transformer(str(folder)), pooling], device="cpu")


def pooled(of: SentenceTransformer, text: str) -> str:
    """Returns the last tokens of prompt and text whose mean is the text's vector."""
    vector = of.encode(text, prompt=PROMPT, convert_to_tensor=True)
    states = of.encode(text, prompt=PROMPT, output_value="token_embeddings")
    tokens = of.tokenizer.convert_ids_to_tokens(of.tokenizer(PROMPT + text)["input_ids"])
    if not vector.any():
        return "nothing, all zeros"
    starts = (start for start in range(len(tokens)) if torch.allclose(states[start:].mean(0), vector, atol=1e-5))
    return " ".join(tokens[next(starts) :])


EXPECTED = {
    (False, True): ["wing flow </s>", "wing </s>"],
    (True, True): ["Ġflow </s>", "</s>"],
    (True, False): ["Ġflow", "nothing, all zeros"],
}
for (byte_level, ends), expected in EXPECTED.items():
    name = f"{'byte-level BPE' if byte_level else 'WordPiece'}, {'end token' if ends else 'no end token'}"
    of = model(Path(sys.argv[1], name), tokenizer(byte_level, ends))
    seen = [pooled(of, text) for text in ("wing flow", "wing")]
    for text, tokens in zip(("wing flow", "wing"), seen):
        print(f'{name}: "{text}" is the mean of: {tokens}')
    if seen != expected:
        sys.exit("The prompt's tokens are now counted in another way.")
PY
"$work/venv/bin/python" "$work/prompt.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
