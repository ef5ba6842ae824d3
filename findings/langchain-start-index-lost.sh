#!/usr/bin/env bash
# Version:   langchain-text-splitters 1.1.3.
# Guess:     add_start_index says where each piece lies in the text, whatever chunk_size counts.
# Behaviour: it searches for the piece from the end of the last one less chunk_overlap characters. When the length is in
#            tokens, as from_huggingface_tokenizer and from_tiktoken_encoder set it, the overlap is longer than that in
#            characters: the search starts behind the piece and gives -1, for every second piece.
# Why:       the place is kept to cite, highlight or join what was found. -1 is a valid index in Python: text[-1:] is one
#            character, with no error. Without an overlap, or in characters, all is right.
# Seen:
#   overlap 0 words: 10 pieces, 0 at -1
#   overlap 10 words: 12 pieces, 6 at -1
#   overlap 20 words: 15 pieces, 7 at -1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet langchain-text-splitters==1.1.3

cat > "$work/places.py" <<'PY'
import sys

from langchain_text_splitters import RecursiveCharacterTextSplitter


def words(text: str) -> int:
    return len(text.split())


def pieces(text: str, overlap: int) -> list[tuple[int, str]]:
    splitter = RecursiveCharacterTextSplitter(
        chunk_size=60, chunk_overlap=overlap, length_function=words, add_start_index=True
    )
    return [(piece.metadata["start_index"], piece.page_content) for piece in splitter.create_documents([text])]


text = " ".join(f"w{i}" for i in range(600))
lost = {}
for overlap in (0, 10, 20):
    found = pieces(text, overlap)
    lost[overlap] = sum(start == -1 for start, _ in found)
    print(f"overlap {overlap} words: {len(found)} pieces, {lost[overlap]} at -1")
    if any(start != text.index(piece) for start, piece in found if start != -1):
        sys.exit("Other places are wrong too.")
if lost[0] or not lost[10] or not lost[20]:
    sys.exit("The places of pieces that overlap are no longer lost.")
PY
"$work/venv/bin/python" "$work/places.py"
