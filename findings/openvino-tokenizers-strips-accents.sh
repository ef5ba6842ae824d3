#!/usr/bin/env bash
# Version:   openvino-tokenizers 2026.4.1.0 with openvino 2026.4.1, transformers 5.24.0, tokenizers 0.23.3 and
#            numpy 2.4.6.
# Guess:     convert_tokenizer makes a model whose ids are those of the tokenizer, or says what it cannot convert.
# Behaviour: of a BERT tokenizer that lower-cases, accents are stripped whatever its strip_accents says: the converter
#            strips them where one of the two is set, so that "strip_accents": false counts for nothing. Each word with
#            an accent becomes another word, or pieces. Nothing is said. With any other pair of the two it is right.
# Why:       uncased models for languages in which accents make words - German, Spanish, Vietnamese - are trained with
#            lowercase and "strip_accents": false, german-nlp-group/electra-base-german-uncased among them. OpenVINO's
#            embedding and rerank pipelines and optimum-intel's exports tokenize by this converter: "schön" (beautiful)
#            has the vector of "schon" (already), and English, on which a conversion is tried, is right. llama.cpp had
#            the like until June (#24371); nothing was found about it here.
# Seen (what transformers | OpenVINO make of "schön", "müsste" and "über"):
#   lowercase, strip_accents null:  schon | schon, musste | musste, uber | uber
#   lowercase, strip_accents true:  schon | schon, musste | musste, uber | uber
#   lowercase, strip_accents false: schön | schon, müsste | musste, über | uber
#   cased,     strip_accents null:  schön | schön, müsste | müsste, über | über
#   cased,     strip_accents true:  schon | schon, musste | musste, uber | uber
#   cased,     strip_accents false: schön | schön, müsste | müsste, über | über
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet openvino-tokenizers==2026.4.1.0 openvino==2026.4.1 transformers==5.24.0 \
  tokenizers==0.23.3 numpy==2.4.6

cat > "$work/accents.py" <<'PY'
import itertools
import sys

import openvino
from openvino_tokenizers import convert_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
VOCABULARY = [*SPECIAL, "schön", "schon", "müsste", "musste", "über", "uber"]
NUMBERS = {word: number for number, word in enumerate(VOCABULARY)}
TEXTS = ["schön", "müsste", "über"]


def tokenizer(lowercase: bool, strip: bool | None) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordPiece(NUMBERS, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(word, NUMBERS[word]) for word in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


wrong = []
for lowercase, strip in itertools.product((True, False), (None, True, False)):
    original = tokenizer(lowercase, strip)
    converted = openvino.Core().compile_model(convert_tokenizer(original), "CPU")
    pairs = [(original(text)["input_ids"], converted([text])["input_ids"][0].tolist()) for text in TEXTS]
    label = f"{'lowercase' if lowercase else 'cased'},"
    value = {None: "null", True: "true", False: "false"}[strip]
    words = (" | ".join("".join(VOCABULARY[one] for one in ids[1:-1]) for ids in pair) for pair in pairs)
    print(f"{label:10} strip_accents {value + ':':6}", ", ".join(words))
    wrong += [(lowercase, strip) for one, other in pairs if one != other]
if {*wrong} - {(True, False)}:
    sys.exit("Other settings are converted wrongly, too.")
if not wrong:
    sys.exit("strip_accents of false is converted now.")
PY
"$work/venv/bin/python" "$work/accents.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
