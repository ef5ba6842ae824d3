#!/usr/bin/env bash
# Version:   langchain-experimental 0.4.2 with langchain-core 1.8.3 and numpy 2.4.6.
# Guess:     SemanticChunker ends a chunk where the subject changes, by each of its four ways to set the threshold; and
#            add_start_index=True gives each chunk its place in the text.
# Behaviour: breakpoint_threshold_type="gradient" ends it one sentence early: the slope of the distances is greatest where
#            they begin to rise, which is before the change. The last sentence of each subject opens the chunk of the next. A
#            place is the sum of the lengths so far, without the spaces between chunks, so that the second chunk is off by
#            1, the third by 2 and so on, by any of the ways.
# Why:       the way is offered for texts of one domain, where subjects lie close together. Each chunk but the first is about
#            two things, and its vector with it. By the places a highlight starts before the chunk, further and further.
#            Nothing was found about either.
# Seen (24 sentences, 8 on each of three subjects; the first sentence of each chunk, its place and where it is):
#   percentile:    sentences 0 8 16; places 0 207 428; are 0 208 430
#   interquartile: sentences 0 8 16; places 0 207 428; are 0 208 430
#   gradient:      sentences 0 7 15; places 0 181 400; are 0 182 402
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet langchain-experimental==0.4.2 langchain-core==1.8.3 numpy==2.4.6

cat > "$work/split.py" <<'PY'
import sys
import warnings

from langchain_core.embeddings import Embeddings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from langchain_experimental.text_splitter import SemanticChunker

SUBJECTS = ["cats", "ships", "roses"]


class Counts(Embeddings):
    """A text's vector counts how often each subject is named."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(text.count(subject)) for subject in SUBJECTS] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


text = " ".join(f"Sentence {at} is about {SUBJECTS[at // 8]}." for at in range(24))
for way in ("percentile", "interquartile", "gradient"):
    chunker = SemanticChunker(Counts(), breakpoint_threshold_type=way, add_start_index=True)
    chunks = chunker.create_documents([text])
    first = [int(chunk.page_content.split()[1]) for chunk in chunks]
    places = [chunk.metadata["start_index"] for chunk in chunks]
    are = [text.index(chunk.page_content) for chunk in chunks]
    words = "; ".join(
        f"{name} {' '.join(map(str, numbers))}"
        for name, numbers in (("sentences", first), ("places", places), ("are", are))
    )
    print(f"{way + ':':14} {words}")
    if first != ([0, 7, 15] if way == "gradient" else [0, 8, 16]):
        sys.exit(f"{way}: the chunks begin elsewhere.")
    if places == are:
        sys.exit("The places are right now.")
PY
"$work/venv/bin/python" "$work/split.py"
