#!/usr/bin/env bash
# Version:   tokenizers 0.23.3.
# Guess:     truncating a pair of texts costs at most what encoding them costs: nobody asked for what is cut off.
# Behaviour: with both texts too long, encode also makes every combination of the parts of one with the parts of the
#            other, thousands of encodings of the limit's length, and keeps them in `overflowing`. Twice as long texts
#            take four times the time and memory. The combinations are documented; that all of them are made at once, and
#            cannot be left out with "longest_first", is not. One long text gives parts in proportion, and costs little.
# Why:       rerankers and NLI models encode pairs with truncation, and transformers' tokenizers do it by this call,
#            throwing the overflow away. Two documents of 20,000 words, cut to 512, took two gigabytes and 1.5 s.
# Seen:
#   two texts of 1000 words
#      not cut:                      0 overflowing,    2 ms,    1 MB more
#      to 128, the second short:     8 overflowing,    1 ms,    0 MB more
#      to 128:                     271 overflowing,   23 ms,   23 MB more
#   two texts of 2000 words
#      not cut:                      0 overflowing,    3 ms,    0 MB more
#      to 128, the second short:    16 overflowing,    1 ms,    0 MB more
#      to 128:                    1055 overflowing,   85 ms,   73 MB more
#   two texts of 4000 words
#      not cut:                      0 overflowing,    3 ms,    0 MB more
#      to 128, the second short:    32 overflowing,    2 ms,    0 MB more
#      to 128:                    4159 overflowing,  341 ms,  294 MB more
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tokenizers==0.23.3

cat > "$work/pairs.py" <<'PY'
import resource
import sys
import time

from tokenizers import Tokenizer, models, pre_tokenizers, processors

tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "wing": 3, "flow": 4}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
)


def megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # the most so far


def measured(limit: int | None, first: str, second: str) -> tuple[int, str]:
    tokenizer.enable_truncation(limit) if limit else tokenizer.no_truncation()
    start, before = time.perf_counter(), megabytes()
    found = tokenizer.encode(first, second)
    seconds = time.perf_counter() - start
    if limit and len(found.ids) != limit:
        sys.exit("The pair is no longer cut to the limit.")
    parts = len(found.overflowing)
    return parts, f"{parts:5} overflowing, {1000 * seconds:4.0f} ms, {megabytes() - before:4} MB more"


pairs, singles = [], []
for words in (1000, 2000, 4000):
    long, other = "wing " * words, "flow " * words
    print(f"two texts of {words} words")
    print("   not cut:                 ", measured(None, long, other)[1])
    parts, line = measured(128, long, "flow")
    print("   to 128, the second short:", line)
    singles.append(parts)
    parts, line = measured(128, long, other)
    print("   to 128:                  ", line)
    pairs.append(parts)
if singles[2] > 5 * singles[0]:
    sys.exit("With one long text the parts no longer grow in proportion.")
if pairs[2] < 10 * pairs[0]:
    sys.exit("With two long texts the parts no longer grow with the square.")
PY
"$work/venv/bin/python" "$work/pairs.py"
