#!/usr/bin/env bash
# Version:   transformers 5.24.0 (beside 4.57.6), with sentencepiece 0.2.1.
# Guess:     BertTokenizer(vocab_file="vocab.txt") has the words of that file, as it had in version 4; an argument that a
#            class no longer knows raises an error.
# Behaviour: version 5 takes vocab_file and leaves it, for a file that does not exist too. The tokenizer knows its special
#            tokens and nothing else: every word is unknown. No error, no warning. It is so with BERT, XLM-RoBERTa, T5,
#            ALBERT and DeBERTa. BertTokenizer("vocab.txt"), without the name, and from_pretrained read the file.
# Why:       models of chemistry, law or a single language come with a vocabulary of their own, and are loaded by that
#            argument in their code. Each text becomes unknown words in a row: texts of as many words have one vector,
#            which has the right shape. What is saved from there stays so.
# Seen:
#   transformers 4.57.6
#      Bert, vocab_file=       the wing flow
#      XLMRoberta, vocab_file= ▁ t h e ▁ w i n g ▁ f l o w
#      T5, vocab_file=         ▁ t h e ▁ w i n g ▁ f l o w
#      Albert, vocab_file=     ▁ t h e ▁ w i n g ▁ f l o w
#      DebertaV2, vocab_file=  ▁ t h e ▁ w i n g ▁ f l o w
#      Bert, no name:          the wing flow
#   transformers 5.24.0
#      Bert, vocab_file=       [UNK] [UNK] [UNK]
#      XLMRoberta, vocab_file= <unk> <unk> <unk>
#      T5, vocab_file=         ▁ <unk> ▁ <unk> ▁ <unk>
#      Albert, vocab_file=     <unk> <unk> <unk>
#      DebertaV2, vocab_file=  [UNK] [UNK] [UNK]
#      Bert, no name:          the wing flow
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "$1" >&2; exit 1; }
export HF_HUB_OFFLINE=1

python3 -m venv "$work/4"
"$work/4/bin/pip" install --quiet transformers==4.57.6 tokenizers==0.22.2 sentencepiece==0.2.1 protobuf==6.33.2
python3 -m venv "$work/5"
"$work/5/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3 sentencepiece==0.2.1 protobuf==6.33.2

printf '%s\n' "[PAD]" "[UNK]" "[CLS]" "[SEP]" "[MASK]" the wing flow > "$work/vocab.txt"
cat > "$work/words.py" <<'PY'
import sys
from pathlib import Path

import sentencepiece
import transformers

folder = Path(sys.argv[1])
words, pieces = folder / "vocab.txt", folder / "spm.model"
if not pieces.exists():
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the wing flow", "wing the flow"] * 20), model_prefix=str(folder / "spm"),
        vocab_size=30, hard_vocab_limit=False, minloglevel=2,
    )
print(f"transformers {transformers.__version__}")
for kind in ("Bert", "XLMRoberta", "T5", "Albert", "DebertaV2"):
    make = getattr(transformers, f"{kind}Tokenizer")
    tokenizer = make(vocab_file=str(words if kind == "Bert" else pieces))
    ids = tokenizer("the wing flow", add_special_tokens=False)["input_ids"]
    print(f"   {kind + ', vocab_file=':23}", *tokenizer.convert_ids_to_tokens(ids))
tokenizer = transformers.BertTokenizer(str(words))
print("   Bert, no name:         ", *tokenizer.tokenize("the wing flow"))
PY
four=$("$work/4/bin/python" "$work/words.py" "$work" 2>/dev/null) || fail "transformers 4 no longer reads the files."
five=$("$work/5/bin/python" "$work/words.py" "$work" 2>"$work/said") || { tail -n 5 "$work/said" >&2; exit 1; }
printf '%s\n%s\n' "$four" "$five"
[[ $four != *"unk>"* && $four != *"[UNK]"* ]] || fail "transformers 4 no longer knows the words."
[[ $(grep -c "vocab_file=.*\(unk>\|\[UNK\]\)" <<< "$five") == 5 ]] || fail "transformers 5 reads a vocab_file now."
[[ $five == *"no name:          the wing flow"* ]] || fail "transformers 5 no longer reads a vocabulary without the name."
if grep -v "PyTorch was not found" "$work/said" >&2; then fail "transformers 5 now warns."; fi
