#!/usr/bin/env bash
# Version:   chonkie 1.7.0 with sentence-transformers 6.2.0, transformers 5.24.0 and tokenizers 0.23.3.
# Guess:     LateChunker computes the whole text once, and gives each chunk the mean of its tokens in that context.
# Behaviour: with a byte-level BPE tokenizer, as ModernBERT's, its default model, it does so with up to three sentences.
#            From four on each chunk gets the vector of encode(chunk), computed alone, and its token_count becomes 1.
#            Nothing says so.
# Cause:     a chunk ends with the space after its sentence, which is a token there, and in the text a part of the next
#            word. So the chunks have more tokens than the text with its two special ones, and LateChunker takes that
#            for a model that gives no vectors of tokens.
# Why:       the context of the whole document is all that late chunking is for. The chunks are right, the vectors have
#            the right shape, and a comparison with ordinary chunks finds that late chunking brings nothing.
# Seen:
#   2 sentences, 24 tokens, in chunks 12+12
#      cosine with the mean in context 1.00 to 1.00, with the chunk's vector alone 0.71 to 0.85
#   3 sentences, 36 tokens, in chunks 12+12+12
#      cosine with the mean in context 1.00 to 1.00, with the chunk's vector alone 0.72 to 0.92
#   4 sentences, 46 tokens, in chunks 1+1+1+1
#      cosine with the mean in context 0.77 to 0.86, with the chunk's vector alone 1.00 to 1.00
#   6 sentences, 66 tokens, in chunks 1+1+1+1+1+1
#      cosine with the mean in context 0.57 to 0.85, with the chunk's vector alone 1.00 to 1.00
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 sentence-transformers==6.2.0 chonkie==1.7.0 \
  tokenizers==0.23.3 numpy==2.4.6

cat > "$work/late.py" <<'PY'
import sys
import warnings

import numpy as np
import torch
from chonkie import LateChunker
from chonkie.embeddings import SentenceTransformerEmbeddings
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

warnings.simplefilter("ignore")
sentences = [
    "The wing was tested in a tunnel of two metres.",
    "It was made of wood and covered with thin steel.",
    "The flow became turbulent at a third of its length.",
    "Heat was carried away faster behind that point.",
    "A second wing with a rough surface was built later.",
    "Both agree with the theory of thin layers.",
]
special = ["[PAD]", "[CLS]", "[SEP]"]
split = Tokenizer(models.BPE())
split.pre_tokenizer, split.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
split.train_from_iterator(
    [" ".join(sentences)], trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
)
split.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
)
folder = sys.argv[1]
PreTrainedTokenizerFast(
    tokenizer_object=split, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
).save_pretrained(folder)
torch.manual_seed(0)
config = BertConfig(
    vocab_size=split.get_vocab_size(), hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=128, initializer_range=0.3,
)
BertModel(config).save_pretrained(folder)
model = SentenceTransformer(modules=[Transformer(folder), Pooling(64)], device="cpu")
chunker = LateChunker(SentenceTransformerEmbeddings(model), chunk_size=16)


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


for count in (2, 3, 4, 6):
    text = " ".join(sentences[:count])
    places = model.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    tokens = np.array(model.encode(text, output_value="token_embeddings"))
    late, alone, chunks = [], [], chunker.chunk(text)
    for chunk in chunks:
        inside = [chunk.start_index <= (start + end) / 2 < chunk.end_index and end > start for start, end in places]
        late.append(cosine(chunk.embedding, tokens[inside].mean(axis=0)))
        alone.append(cosine(chunk.embedding, model.encode(chunk.text)))
    print(f"{count} sentences, {len(places)} tokens, in chunks", "+".join(str(chunk.token_count) for chunk in chunks))
    print(f"   cosine with the mean in context {min(late):.2f} to {max(late):.2f}", end=", ")
    print(f"with the chunk's vector alone {min(alone):.2f} to {max(alone):.2f}")
    if [chunk.text.strip() for chunk in chunks] != sentences[:count]:
        sys.exit("The chunks are no longer the sentences.")
    if count < 4 and (min(late) < 0.99 or max(alone) > 0.95):
        sys.exit("The vectors of few chunks are no longer late.")
    if count >= 4 and (min(alone) < 0.999 or min(late) > 0.95):
        sys.exit("The vectors of many chunks are late now.")
PY
"$work/venv/bin/python" "$work/late.py" "$work/model" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
