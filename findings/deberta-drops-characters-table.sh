#!/usr/bin/env bash
# Version:   transformers 5.24.0 (beside 4.57.6), with sentencepiece 0.2.1.
# Guess:     the tokens of a DeBERTa v2 or v3 are those that SentencePiece makes with the folder's spm.model.
# Behaviour: version 4 takes the model's table of characters (nmt_nfkc) over, and version 5 leaves it out, although the
#            class documents an argument precompiled_charsmap. Full-width digits and ligatures become unknown, and a
#            no-break space no longer parts words. No error, no warning. Of a T5 both versions keep the table.
# Why:       texts out of web pages and PDFs are full of such characters, and the models were trained with the table.
#            The rerankers built on DeBERTa v3 see other tokens than they learned, in just these texts.
# Seen:
#   transformers 4.57.6
#      deberta-v2 'the wing 12' -> ▁ t h e ▁wing ▁ 1 2 (as SentencePiece)
#      deberta-v2 'the\xa0wing \uff11\uff12' -> ▁ t h e ▁wing ▁ 1 2 (as SentencePiece)
#      deberta-v2 '\ufb01ne' -> ▁f in e (as SentencePiece)
#      t5 'the wing 12' -> ▁ t h e ▁wing ▁ 1 2 (as SentencePiece)
#      t5 'the\xa0wing \uff11\uff12' -> ▁ t h e ▁wing ▁ 1 2 (as SentencePiece)
#      t5 '\ufb01ne' -> ▁f in e (as SentencePiece)
#   transformers 5.24.0
#      deberta-v2 'the wing 12' -> ▁ t h e ▁wing ▁ 1 2 (as SentencePiece)
#      deberta-v2 'the\xa0wing \uff11\uff12' -> ▁ t h e [UNK] wing ▁ [UNK] (other)
#      deberta-v2 '\ufb01ne' -> ▁ [UNK] n e (other)
#      t5 'the wing 12' -> ▁ t h e ▁wing ▁ 1 2 (as SentencePiece)
#      t5 'the\xa0wing \uff11\uff12' -> ▁ t h e ▁wing ▁ 1 2 (as SentencePiece)
#      t5 '\ufb01ne' -> ▁f in e (as SentencePiece)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "$1" >&2; exit 1; }
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=warning

python3 -m venv "$work/4"
"$work/4/bin/pip" install --quiet transformers==4.57.6 tokenizers==0.22.2 sentencepiece==0.2.1 protobuf==6.33.2
python3 -m venv "$work/5"
"$work/5/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3 sentencepiece==0.2.1 protobuf==6.33.2

cat > "$work/make.py" <<'PY'
import json
import sys
from pathlib import Path

import sentencepiece

texts = ["the wing 12", "air flow 3", "fine wing", "a b", "the fine air 45"] * 20
for kind, name in (("deberta-v2", "spm"), ("t5", "spiece")):
    folder = Path(sys.argv[1], kind)
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(folder / name), vocab_size=40, hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc", pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]",
        bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]", user_defined_symbols=["[MASK]"], minloglevel=2,
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[SEP]"} | ({"extra_ids": 0} if kind == "t5" else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
PY
cat > "$work/tokens.py" <<'PY'
import sys
from pathlib import Path

import sentencepiece
from transformers import AutoTokenizer

for kind, name in (("deberta-v2", "spm"), ("t5", "spiece")):
    folder = Path(sys.argv[1], kind)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.model"))
    for text in ("the wing 12", "the\u00a0wing \uff11\uff12", "\ufb01ne"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        same = "as SentencePiece" if ids == model.encode(text) else "other"
        print("  ", kind, ascii(text), "->", *tokenizer.convert_ids_to_tokens(ids), f"({same})")
PY

"$work/5/bin/python" "$work/make.py" "$work"
four=$("$work/4/bin/python" "$work/tokens.py" "$work" 2>/dev/null) || fail "transformers 4 no longer loads the folders."
five=$("$work/5/bin/python" "$work/tokens.py" "$work" 2>"$work/said") || fail "transformers 5 no longer loads the folders."
printf 'transformers 4.57.6\n%s\ntransformers 5.24.0\n%s\n' "$four" "$five"
[[ $four != *"(other)"* ]] || fail "transformers 4 no longer agrees with SentencePiece."
[[ $(grep -c "deberta-v2 .*(other)" <<< "$five") == 2 ]] || fail "transformers 5 now has the table in DeBERTa."
[[ $(grep -c "as SentencePiece" <<< "$five") == 4 ]] || fail "transformers 5 no longer agrees on plain text or in T5."
if grep -v "PyTorch was not found" "$work/said" >&2; then fail "transformers 5 now warns."; fi
