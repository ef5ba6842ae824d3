#!/usr/bin/env bash
# Version:   semantic-text-splitter 0.33.1 and semchunk 4.1.1, with tokenizers 0.23.3.
# Guess:     a splitter that is given a tokenizer and a size makes chunks of at most that many tokens, and a larger size
#            makes chunks that are somewhat larger.
# Behaviour: both count by encoding, and where the tokenizer's file says that texts are truncated, no text has more tokens
#            than its limit. From a size of that limit on the whole document "fits", and comes back as one chunk, of any
#            length. Below the limit all is right. semantic-text-splitter takes the padding of such a file off its
#            count, and semchunk the special tokens; of the truncation neither says anything.
# Why:       tokenizer.json of all-MiniLM-L6-v2 truncates at 128, and the model itself takes 256 tokens: who splits by
#            either number gets a document in one piece, of which the model reads the beginning.
# Seen:
#   semantic-text-splitter, no truncation:    64 -> 16 chunks, 127 -> 8 chunks, 128 -> 8 chunks, 256 -> 4 chunks
#   semantic-text-splitter, truncates at 128: 64 -> 16 chunks, 127 -> 8 chunks, 128 -> 1 chunk, 256 -> 1 chunk
#   semchunk, no truncation:                  64 -> 16 chunks, 127 -> 8 chunks, 128 -> 8 chunks, 256 -> 4 chunks
#   semchunk, truncates at 128:               64 -> 16 chunks, 127 -> 8 chunks, 128 -> 1 chunk, 256 -> 1 chunk
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet semantic-text-splitter==0.33.1 semchunk==4.1.1 tokenizers==0.23.3

cat > "$work/count.py" <<'PY'
import sys

import semchunk
from semantic_text_splitter import TextSplitter
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

WORDS, LIMIT = 1000, 128
SIZES = (64, LIMIT - 1, LIMIT, 2 * LIMIT)
tokenizer = Tokenizer(WordLevel({"[UNK]": 0} | {f"w{number}": number + 1 for number in range(WORDS)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = WhitespaceSplit()
text = " ".join(f"w{number}" for number in range(WORDS))
splitters = {
    "semantic-text-splitter": lambda size: TextSplitter.from_huggingface_tokenizer(tokenizer, size).chunks(text),
    "semchunk": lambda size: semchunk.chunkerify(tokenizer, size)(text),
}
for name, split in splitters.items():
    for truncated in (False, True):
        if truncated:
            tokenizer.enable_truncation(LIMIT)
        else:
            tokenizer.no_truncation()
        counts = [len(split(size)) for size in SIZES]
        says = f"{name}, truncates at {LIMIT}:" if truncated else f"{name}, no truncation:"
        shown = (f"{size} -> {count} chunk{'s' * (count > 1)}" for size, count in zip(SIZES, counts))
        print(f"{says:41} {', '.join(shown)}")
        right = [-(-WORDS // size) for size in SIZES]
        if counts != (right[:2] + [1, 1] if truncated else right):
            sys.exit(f"{name} counts in another way now.")
PY
"$work/venv/bin/python" "$work/count.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
