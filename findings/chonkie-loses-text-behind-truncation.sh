#!/usr/bin/env bash
# Version:   chonkie 1.7.0 with tokenizers 0.23.3.
# Guess:     the chunks of a chunker without overlap, one behind the other, are the text; a tokenizer is there to count.
# Behaviour: where the tokenizer's file says that texts are truncated, as many published ones do, TokenChunker ends at
#            that many tokens: all of the document behind them is in no chunk. RecursiveChunker loses the rest of each
#            piece that it has to cut by tokens, and where a chunk may be longer than the tokenizer's limit it takes the
#            whole text for one chunk. No error, no warning. Without the truncation all words are there.
# Why:       tokenizer.json of all-MiniLM-L6-v2 truncates at 128 and is the natural tokenizer to count with; chunks of 64
#            look as they should, and of a document of 1000 words 872 are never embedded, stored or found.
# Seen:
#   TokenChunker of 64,      no truncation:    16 chunks, 1000 of 1000 words
#   TokenChunker of 64,      truncates at 128:  2 chunks, 128 of 1000 words
#   RecursiveChunker of 64,  no truncation:    16 chunks, 1000 of 1000 words
#   RecursiveChunker of 64,  truncates at 128:  2 chunks, 128 of 1000 words
#   RecursiveChunker of 256, no truncation:     4 chunks, 1000 of 1000 words
#   RecursiveChunker of 256, truncates at 128:  1 chunks, 1000 of 1000 words
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet chonkie==1.7.0 tokenizers==0.23.3

cat > "$work/lost.py" <<'PY'
import sys

from chonkie import RecursiveChunker, TokenChunker
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

WORDS, LIMIT = 1000, 128
tokenizer = Tokenizer(WordLevel({"[UNK]": 0} | {f"w{number}": number + 1 for number in range(WORDS)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = WhitespaceSplit()
text = " ".join(f"w{number}" for number in range(WORDS))
seen = {}
for kind, size in ((TokenChunker, 64), (RecursiveChunker, 64), (RecursiveChunker, 256)):
    for truncated in (False, True):
        if truncated:
            tokenizer.enable_truncation(LIMIT)
        else:
            tokenizer.no_truncation()
        chunks = [chunk.text.split() for chunk in kind(tokenizer, chunk_size=size).chunk(text)]
        words = len({word for chunk in chunks for word in chunk})
        seen[kind, size, truncated] = len(chunks), words
        name, says = f"{kind.__name__} of {size},", f"truncates at {LIMIT}:" if truncated else "no truncation:"
        print(f"{name:24} {says:17} {len(chunks):2} chunks, {words} of {WORDS} words")
        if not truncated and words != WORDS:
            sys.exit(f"{kind.__name__} loses words without truncation.")
if seen[TokenChunker, 64, True][1] != LIMIT or seen[RecursiveChunker, 64, True][1] != LIMIT:
    sys.exit("The text behind the tokenizer's limit is in a chunk now.")
if seen[RecursiveChunker, 256, True] != (1, WORDS):
    sys.exit("RecursiveChunker counts beyond the tokenizer's limit now.")
PY
"$work/venv/bin/python" "$work/lost.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
