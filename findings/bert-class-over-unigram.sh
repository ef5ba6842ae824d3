#!/usr/bin/env bash
# Version:   transformers 5.24.0 (beside 4.57.6).
# Guess:     tokenizer.json holds a whole tokenizer, so its pieces come out, whatever class tokenizer_config.json names.
# Behaviour: version 5 takes the vocabulary and makes nearly all else anew by the class. With "BertTokenizerFast" over a
#            Unigram vocabulary it looks for whole words among the pieces, without their word marks, and finds none:
#            nearly all text becomes the unknown token. No error, no warning. Version 4 takes the file as it is.
# Why:       multilingual embedding models distilled from BERT into XLM-RoBERTa have been published with exactly this
#            pair of files, since it did no harm. Now all texts of as many words get one and the same vector.
# Seen:
#   transformers 4.57.6
#      wing flows -> <s> ▁wing ▁flow s </s>
#      air flow -> <s> ▁air ▁flow </s>
#   transformers 5.24.0
#      wing flows -> <s> <unk> <unk> </s>
#      air flow -> <s> <unk> <unk> </s>
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "$1" >&2; exit 1; }
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=warning

python3 -m venv "$work/4"
"$work/4/bin/pip" install --quiet transformers==4.57.6 tokenizers==0.22.2
python3 -m venv "$work/5"
"$work/5/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3

cat > "$work/make.py" <<'PY'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

folder = Path(sys.argv[1])
folder.mkdir()
special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
pieces = [(piece, 0.0) for piece in special] + [("▁wing", -1.0), ("▁flow", -1.0), ("▁air", -1.0), ("s", -2.0)]
tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
tokenizer.normalizer = normalizers.NFKC()
tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
tokenizer.add_special_tokens(special)
tokenizer.post_processor = processors.TemplateProcessing(
    single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
)
tokenizer.save(str(folder / "tokenizer.json"))
settings = {"tokenizer_class": "BertTokenizerFast", "cls_token": "<s>", "sep_token": "</s>"}
settings |= {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
(folder / "tokenizer_config.json").write_text(json.dumps(settings))
(folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
PY
cat > "$work/tokens.py" <<'PY'
import sys

from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
for text in ("wing flows", "air flow"):
    print("  ", text, "->", *tokenizer(text).tokens())
PY

"$work/5/bin/python" "$work/make.py" "$work/folder"
four=$("$work/4/bin/python" "$work/tokens.py" "$work/folder" 2>/dev/null) || fail "transformers 4 no longer loads the folder."
five=$("$work/5/bin/python" "$work/tokens.py" "$work/folder" 2>"$work/said") || fail "transformers 5 no longer loads the folder."
printf 'transformers 4.57.6\n%s\ntransformers 5.24.0\n%s\n' "$four" "$five"
[[ $four == *"<s> ▁wing ▁flow s </s>"*"<s> ▁air ▁flow </s>"* ]] || fail "transformers 4 no longer takes the file."
[[ $five == *"<s> <unk> <unk> </s>"*"<s> <unk> <unk> </s>"* ]] || fail "transformers 5 now knows the words."
if grep -v "PyTorch was not found" "$work/said" >&2; then fail "transformers 5 now warns."; fi
