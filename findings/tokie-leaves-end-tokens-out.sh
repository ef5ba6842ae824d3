#!/usr/bin/env bash
# Version:   tokie 0.1.4 with tokenizers 0.23.3.
# Guess:     tokie gives the tokens of each tokenizer.json that tokenizers gives: its page calls it a drop-in
#            replacement, all of whose tokens are right, for BERT, XLM-RoBERTa, GPT-2, Llama, Qwen and more.
# Behaviour: a text's own tokens are right, and so are BERT's [CLS] and [SEP]. But it leaves out XLM-RoBERTa's end token
#            and puts a start token between the texts of a pair; of RoBERTa it leaves out all, and of a decoder the end
#            token, though add_special_tokens is True.
# Why:       decoders that embed texts (Qwen3-Embedding) are pooled at that end token; rerankers and embedders of the
#            XLM-RoBERTa family (bge-reranker, bge-m3, multilingual-e5) were trained with it. There is no error: what
#            comes out is one or two tokens shorter.
# Seen (a text, then a pair; "." stands for a text):
#   bert:        tokenizers: [CLS] . [SEP]; [CLS] . [SEP] . [SEP]
#                tokie:      [CLS] . [SEP]; [CLS] . [SEP] . [SEP]
#   roberta:     tokenizers: <s> . </s>; <s> . </s> </s> . </s>
#                tokie:      .; . .
#   xlm_roberta: tokenizers: <s> . </s>; <s> . </s> </s> . </s>
#                tokie:      <s> .; <s> . <s> .
#   decoder:     tokenizers: . <end>; . <end> . <end>
#                tokie:      .; . .
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tokie==0.1.4 tokenizers==0.23.3

cat > "$work/ends.py" <<'PY'
import sys

import tokie
from tokenizers import Tokenizer, models, pre_tokenizers, processors

TEXT = "a wing in a flow of air lifts"
LETTERS = sorted({*TEXT} - {" "})
SPECIALS = ("[CLS]", "[SEP]", "<s>", "</s>", "<end>")


def template(single: str, pair: str, **tokens: int) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=[*tokens.items()])


def byte_level(specials: list[str]) -> Tokenizer:
    pieces = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def bert() -> Tokenizer:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    both = {"[CLS]": 2, "[SEP]": 3}
    tokenizer.post_processor = template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", **both)
    return tokenizer


def roberta() -> Tokenizer:
    tokenizer = byte_level(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def xlm_roberta() -> Tokenizer:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *LETTERS]
    tokenizer = Tokenizer(models.Unigram([(piece, 0.0 if piece[0] == "<" else -2.0) for piece in pieces], 3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = template("<s> $A </s>", "<s> $A </s> </s> $B </s>", **{"<s>": 0, "</s>": 2})
    return tokenizer


def decoder() -> Tokenizer:
    tokenizer = byte_level(["<end>"])
    end = template("$A <end>", "$A <end> $B <end>", **{"<end>": 0})
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), end])
    return tokenizer


def shown(numbers: list[int], text: list[int], tokenizer: Tokenizer) -> str:
    """The special tokens by name, and a point for each whole text between them."""
    parts = []
    while numbers:
        if numbers[: len(text)] == text:
            parts, numbers = [*parts, "."], numbers[len(text) :]
        else:
            parts, numbers = [*parts, tokenizer.id_to_token(numbers[0])], numbers[1:]
    return " ".join(parts)


seen = {}
for make in (bert, roberta, xlm_roberta, decoder):
    path = f"{sys.argv[1]}/{make.__name__}.json"
    theirs = make()
    theirs.add_special_tokens([token for token in SPECIALS if theirs.token_to_id(token) is not None])
    theirs.save(path)
    given = tokie.Tokenizer.from_json(path)
    text = theirs.encode(TEXT, add_special_tokens=False).ids
    wanted = [shown(theirs.encode(*texts).ids, text, theirs) for texts in ((TEXT,), (TEXT, TEXT))]
    single = list(given.encode(TEXT, add_special_tokens=True).ids)
    pair = list(given.encode_pair(TEXT, TEXT, add_special_tokens=True).ids)
    got = [shown(numbers, text, theirs) for numbers in (single, pair)]
    seen[make.__name__] = wanted, got
    print(f"{make.__name__ + ':':12} tokenizers: {'; '.join(wanted)}\n{'':12} tokie:      {'; '.join(got)}")
bare, start = [".", ". ."], ["<s> .", "<s> . <s> ."]
if seen["bert"][0] != seen["bert"][1]:
    sys.exit("BERT's special tokens are no longer there.")
if [seen[name][1] for name in ("roberta", "xlm_roberta", "decoder")] != [bare, start, bare]:
    sys.exit("Other special tokens are put around texts now.")
PY
"$work/venv/bin/python" "$work/ends.py" "$work" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
