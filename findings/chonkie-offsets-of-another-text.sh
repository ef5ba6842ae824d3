#!/usr/bin/env bash
# Version:   chonkie 1.7.0 with tokenizers 0.23.3.
# Guess:     a token chunker cuts the text: chunk.text is a piece of it, from start_index to end_index.
# Behaviour: with a BERT tokenizer TokenChunker gives what the tokens decode to: lower-case, without accents, with
#            spaces around each mark, and "[UNK]" for what the vocabulary lacks. The places are running sums of the
#            lengths of those decoded texts; they point elsewhere in the document, further off with each chunk, and past
#            its end. RecursiveChunker does the same to a sentence that is longer than a chunk. A byte-level tokenizer
#            decodes to the text itself, and all is right.
# Why:       the natural tokenizer to count with is the embedding model's own, and most of those are BERT's. The
#            chunk's text is what is stored, shown and given to a language model, and the places are its citation.
# Seen:
#   "the boeing - 737 ' s wing isn ' t dry" at 0..37, there: "The Boeing-737's wing isn't dry: see "
#   ': see pp. 12 - 14, [UNK]. 3' at 37..64, there: 'pp. 12-14, Fig. 3.5! New Yo'
#   '. 5! new york, ny. in [UNK].' at 64..92, there: 'rk, NY. In Málaga.'
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet chonkie==1.7.0 tokenizers==0.23.3

cat > "$work/offsets.py" <<'PY'
import sys

from chonkie import RecursiveChunker, TokenChunker
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

text = "The Boeing-737's wing isn't dry: see pp. 12-14, Fig. 3.5! New York, NY. In Málaga."
words = "[UNK] the boeing - 737 ' s wing isn t dry : see pp . 12 14 , 3 5 ! new york ny in".split()
bert = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
bert.normalizer = normalizers.BertNormalizer()
bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
bert.decoder = decoders.WordPiece()
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
byte_level = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
byte_level.decoder = decoders.ByteLevel()

chunks = TokenChunker(tokenizer=bert, chunk_size=11, chunk_overlap=0).chunk(text)
for chunk in chunks:
    at = f"at {chunk.start_index}..{chunk.end_index},"
    print(repr(chunk.text), at, "there:", repr(text[chunk.start_index : chunk.end_index]))
recursive = RecursiveChunker(tokenizer=bert, chunk_size=11).chunk(text)
whole = TokenChunker(tokenizer=byte_level, chunk_size=20, chunk_overlap=0).chunk(text.replace("á", "a"))
if any(chunk.text in text for chunk in chunks) or chunks[-1].end_index <= len(text):
    sys.exit("TokenChunker now gives pieces of the text.")
if all(chunk.text == text[chunk.start_index : chunk.end_index] for chunk in recursive):
    sys.exit("RecursiveChunker now gives pieces of the text.")
if any(chunk.text != text.replace("á", "a")[chunk.start_index : chunk.end_index] for chunk in whole):
    sys.exit("A byte-level tokenizer no longer gives pieces of the text.")
PY
"$work/venv/bin/python" "$work/offsets.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
