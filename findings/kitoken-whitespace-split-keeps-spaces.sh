#!/usr/bin/env bash
# Version:   kitoken 0.11.1 and tokenizers 0.23.3.
# Guess:     kitoken gives the tokens of the `tokenizer.json` that it has loaded, or refuses a file with a step that it
#            doesn't know, as it does for CharDelimiterSplit.
# Behaviour: where the pre-tokenizer is WhitespaceSplit, each word but the first keeps its space in front. WordPiece has no
#            such entry: all words behind the first are unknown. Whitespace, BertPreTokenizer and Split at spaces are right,
#            and so is WhitespaceSplit followed by Metaspace, as XLM-RoBERTa has it.
# Why:       the file loads, and the ids are as many as the words, so that a model computes a vector: of one word and
#            several [UNK]. A limit counted in tokens is wrong as well, since [UNK] stands for a whole word. WhitespaceSplit,
#            alone or followed by Punctuation, is what one takes to train a tokenizer on texts that are split already.
#            Nothing was found about this.
# Seen (for "the size of houses."):
#   Whitespace                   tokenizers: the size of house ##s .; kitoken: the size of house ##s .
#   BertPreTokenizer             tokenizers: the size of house ##s .; kitoken: the size of house ##s .
#   Split at " "                 tokenizers: the size of house ##s ##.; kitoken: the size of house ##s ##.
#   WhitespaceSplit              tokenizers: the size of house ##s ##.; kitoken: the [UNK] [UNK] [UNK]
#   WhitespaceSplit, Punctuation tokenizers: the size of house ##s .; kitoken: the [UNK] [UNK] [UNK] .
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet kitoken==0.11.1 tokenizers==0.23.3

cat > "$work/split.py" <<'PY'
import sys

from kitoken import Kitoken
from tokenizers import Tokenizer, models, pre_tokenizers

path = f"{sys.argv[1]}/tokenizer.json"
vocabulary = {token: at for at, token in enumerate("[UNK] the size of house ##s . ##.".split())}
splitters = {
    "Whitespace": pre_tokenizers.Whitespace(),
    "BertPreTokenizer": pre_tokenizers.BertPreTokenizer(),
    'Split at " "': pre_tokenizers.Split(" ", "removed"),
    "WhitespaceSplit": pre_tokenizers.WhitespaceSplit(),
    "WhitespaceSplit, Punctuation": pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    ),
}
for name, splitter in splitters.items():
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[UNK]"])
    tokenizer.pre_tokenizer = splitter
    tokenizer.save(path)
    expected = tokenizer.encode("the size of houses.").tokens
    ids = Kitoken.from_tokenizers_file(path).encode("the size of houses.", True)
    tokens = [tokenizer.id_to_token(at) for at in ids]
    print(f"{name:28} tokenizers: {' '.join(expected)}; kitoken: {' '.join(tokens)}")
    if "[UNK]" in expected:
        sys.exit("A word is unknown to tokenizers.")
    if name.startswith("WhitespaceSplit"):
        if tokens[:4] != ["the", "[UNK]", "[UNK]", "[UNK]"]:
            sys.exit("WhitespaceSplit drops spaces now.")
    elif tokens != expected:
        sys.exit("Other pre-tokenizers differ, too.")
PY
"$work/venv/bin/python" "$work/split.py" "$work"
