#!/usr/bin/env bash
# Version:   tokenizers 0.23.1 and 0.23.2, beside 0.22.2 and 0.23.3.
# Guess:     a release that only makes truncation faster cuts a pair of texts as the one before did.
# Behaviour: "longest_first" takes tokens from the longer text. Since 0.23.1 each text is tokenized no further than to the
#            limit, so that two long texts count as equally long, and of those the first is cut: of 40 and 35 words to 7,
#            the longer text keeps 3 and the shorter 4, where before and since it keeps 4. Where the limit leaves an even
#            number nothing is seen. So a reranker's ids, and scores, of long pairs depend on the release, silently. That
#            `overflowing` lacks most of what was cut off is known (tokenizers #2091); that other tokens are kept was not
#            found there.
# Why:       a cross-encoder's scores of long passages, golden files and caches of ids changed with a minor release and
#            back with the next; transformers 5.17 takes any of the four.
# Seen:
#   0.22.2: of 40 and 35 words 4 and 3 are kept, of 35 and 40 3 and 4; of one text of 40 words 5 parts overflow
#   0.23.1: of 40 and 35 words 3 and 4 are kept, of 35 and 40 3 and 4; of one text of 40 words 0 parts overflow
#   0.23.2: of 40 and 35 words 3 and 4 are kept, of 35 and 40 3 and 4; of one text of 40 words 0 parts overflow
#   0.23.3: of 40 and 35 words 4 and 3 are kept, of 35 and 40 3 and 4; of one text of 40 words 5 parts overflow
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/pair.py" <<'PY'
import sys

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers

tokenizer = Tokenizer(models.WordLevel({"wing": 0, "flow": 1}, unk_token="wing"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()


def kept(first: int, second: int) -> tuple[int, int]:
    ids = tokenizer.encode("wing " * first, "flow " * second).ids
    return ids.count(0), ids.count(1)


tokenizer.enable_truncation(7)
longer_first, longer_last, parts = kept(40, 35), kept(35, 40), len(tokenizer.encode("wing " * 40).overflowing)
print(
    f"{tokenizers.__version__}: of 40 and 35 words {longer_first[0]} and {longer_first[1]} are kept, "
    f"of 35 and 40 {longer_last[0]} and {longer_last[1]}; of one text of 40 words {parts} parts overflow"
)
exits_early = tokenizers.__version__ in ("0.23.1", "0.23.2")
if (longer_first, longer_last, parts) != (((3, 4), (3, 4), 0) if exits_early else ((4, 3), (3, 4), 5)):
    sys.exit("This release no longer cuts so.")
PY
for version in 0.22.2 0.23.1 0.23.2 0.23.3; do
  python3 -m venv --clear "$work/venv"
  "$work/venv/bin/pip" install --quiet "tokenizers==$version"
  "$work/venv/bin/python" "$work/pair.py"
done
