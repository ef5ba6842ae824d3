#!/usr/bin/env bash
# Version:   transformers 5.24.0 (beside 4.57.6).
# Guess:     a folder that version 4 wrote with "add_eos_token": true gives texts that end in </s> in version 5 too,
#            or version 5 says that it no longer can.
# Behaviour: version 5 takes the key off a Llama-class tokenizer as it loads it, without a word, and the text ends
#            without </s>. Asking for it by hand, from_pretrained(..., add_eos_token=True), brings the end back and
#            takes the start token away.
# Why:       embedding models made of decoders (e5-mistral-7b-instruct is saved like this) take the vector of the last
#            token. With the end gone, that is the vector of the last word: every vector is another one, of the
#            same shape and length, and an index made by version 4 no longer fits.
# Seen:
#   transformers 4.57.6: <s> ▁wing </s>
#   transformers 5.24.0: <s> ▁wing
#     add_eos_token=True: ▁wing </s>
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "$1" >&2; exit 1; }
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

python3 -m venv "$work/4"
"$work/4/bin/pip" install --quiet transformers==4.57.6 tokenizers==0.22.2
python3 -m venv "$work/5"
"$work/5/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3

cat > "$work/make.py" <<'PY'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors

folder = Path(sys.argv[1])
folder.mkdir()
pieces = ["<unk>", "<s>", "</s>", "▁", "w", "i", "n", "g", "▁w", "▁wi", "▁win", "▁wing"]
merges = [("▁", "w"), ("▁w", "i"), ("▁wi", "n"), ("▁win", "g")]
tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
tokenizer.post_processor = processors.TemplateProcessing(
    single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
)
tokenizer.save(str(folder / "tokenizer.json"))
settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": True}
settings |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
(folder / "tokenizer_config.json").write_text(json.dumps(settings))
(folder / "config.json").write_text(json.dumps({"model_type": "mistral"}))
PY
cat > "$work/tokens.py" <<'PY'
import sys

from transformers import AutoTokenizer

options = {"add_eos_token": True} if "asked" in sys.argv else {}
print(*AutoTokenizer.from_pretrained(sys.argv[1], **options)("wing").tokens())
PY

"$work/5/bin/python" "$work/make.py" "$work/folder"
four=$("$work/4/bin/python" "$work/tokens.py" "$work/folder" 2>/dev/null) || fail "A version no longer loads the folder."
five=$("$work/5/bin/python" "$work/tokens.py" "$work/folder" 2>/dev/null) || fail "A version no longer loads the folder."
asked=$("$work/5/bin/python" "$work/tokens.py" "$work/folder" asked 2>/dev/null) || fail "A version no longer loads the folder."
printf 'transformers 4.57.6: %s\ntransformers 5.24.0: %s\n  add_eos_token=True: %s\n' "$four" "$five" "$asked"
[[ $four == "<s> ▁wing </s>" ]] || fail "transformers 4 no longer ends the text in </s>."
[[ $five == "<s> ▁wing" ]] || fail "transformers 5 no longer drops add_eos_token as it did."
[[ $asked == "▁wing </s>" ]] || fail "add_eos_token=True no longer takes the start token away."
