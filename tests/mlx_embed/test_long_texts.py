"""encode(long_text=...): truncation, the mean of chunks against chunks embedded one by one, and the error."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import BGEM3, EmbeddingModel, MultiVectorEncoder, SparseEncoder
from mlx_embed.tokenizer import Tokenizer, TruncationWarning
from tests import bge_m3, multi_vector, sparse
from tests.checkpoints import STACKS, with_modules
from tests.conftest import DATA

TOLERANCE = 1e-5
WORDS = ["the", "wing", "flow", "heat", "boundary", "layer", "code", "note"]  # a token each
MAX_WORDS = 62


def words(count: int) -> list[str]:
    return np.random.default_rng().choice(WORDS, size=count).tolist()


def by_hand(model: EmbeddingModel, text: list[str], overlap: int, prompt: str = "") -> tuple[np.ndarray, int]:
    """The mean of the chunks' vectors, cut at words."""
    room = MAX_WORDS - len(prompt.split())
    starts = [0]
    while starts[-1] + room < len(text):
        starts.append(starts[-1] + room - overlap)
    chunks = [text[start : start + room] for start in starts]
    vectors = model.encode([" ".join(chunk) for chunk in chunks], prompt=prompt)
    return np.average(vectors, axis=0, weights=[len(chunk) or 1 for chunk in chunks]), len(chunks)


@pytest.mark.parametrize("prompt", ["", "query note "])
@pytest.mark.parametrize("overlap", [0, 5, 59])
def test_mean_of_chunks(tiny_bert: EmbeddingModel, overlap: int, prompt: str) -> None:
    texts = [words(n) for n in (3, 60, 61, 62, 63, 130, 0, 1, 400)]
    found, info = tiny_bert.encode(
        [" ".join(text) for text in texts],
        long_text="mean_of_chunks",
        chunk_overlap=overlap,
        prompt=prompt,
        return_info=True,
    )
    for row, text in enumerate(texts):
        expected, chunks = by_hand(tiny_bert, text, overlap, prompt)
        assert info.chunks[row] == chunks
        assert np.abs(found[row] - expected / np.linalg.norm(expected)).max() <= TOLERANCE
    assert not info.truncated.any()
    assert info.token_counts[0] == 5 + len(prompt.split())
    assert info.chunks[0] == 1


def test_vectors_that_are_not_normalised_stay_so(tmp_path: Path) -> None:
    model = EmbeddingModel.from_pretrained(with_modules(tmp_path, STACKS["mean"]), device="cpu")
    text = words(200)
    found = model.encode(" ".join(text), long_text="mean_of_chunks", chunk_overlap=7)
    expected, _ = by_hand(model, text, 7)
    assert np.abs(found - expected).max() <= 1e-4 * np.linalg.norm(expected)
    unit = model.encode(" ".join(text), long_text="mean_of_chunks", chunk_overlap=7, normalize_embeddings=True)
    assert np.isclose(np.linalg.norm(unit), 1, atol=1e-6)


def test_short_texts_are_the_same_bits(tiny: EmbeddingModel) -> None:
    texts = ["the wing", "", "heat", "a query of code"]
    assert np.array_equal(tiny.encode(texts), tiny.encode(texts, long_text="mean_of_chunks"))


def test_the_end_of_a_long_text_counts(tiny: EmbeddingModel) -> None:
    texts = [" ".join(["heat"] * 200 + [word] * 100) for word in ("code", "wing")]
    whole = tiny.encode(texts, long_text="mean_of_chunks")
    cut = tiny.encode(texts, long_text="truncate")
    assert np.abs(cut[0] - cut[1]).max() <= TOLERANCE
    assert np.abs(whole[0] - whole[1]).max() > 100 * TOLERANCE


def test_default_overlap_and_progress(tiny_bert: EmbeddingModel, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["the wing " * 100, "note"]
    default = tiny_bert.encode(texts, long_text="mean_of_chunks", show_progress_bar=True)
    assert "2/2" in capsys.readouterr().err
    assert np.array_equal(default, tiny_bert.encode(texts, long_text="mean_of_chunks", chunk_overlap=62 // 8))


def test_nothing_is_said_to_be_cut(recwarn: pytest.WarningsRecorder) -> None:
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu")
    model.encode(["the wing " * 100], long_text="mean_of_chunks")
    assert not [warning for warning in recwarn if warning.category is TruncationWarning]


def test_error_names_the_text(tiny_bert: EmbeddingModel) -> None:
    texts = ["note"] * 3000 + [" ".join(words(63))]
    with pytest.raises(ValueError, match=r"texts\[3000\] has 65 tokens, and the model takes 64"):
        tiny_bert.encode(texts, long_text="error")
    fits = [" ".join(words(62))]
    assert np.array_equal(tiny_bert.encode(fits, long_text="error"), tiny_bert.encode(fits))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"long_text": "skip"}, "long_text 'skip' is not one of truncate, mean_of_chunks, error"),
        ({"long_text": "mean_of_chunks", "chunk_overlap": 62}, r"chunk_overlap 62 is not within 0\.\.61"),
        ({"long_text": "mean_of_chunks", "chunk_overlap": -1}, "chunk_overlap -1"),
        ({"chunk_overlap": 3}, "chunk_overlap is of long_text \"mean_of_chunks\", and it is 'truncate'"),
        (
            {"long_text": "mean_of_chunks", "prompt": "the wing " * 40},
            "has 81 tokens .* no room .* of 64;",
        ),
    ],
)
def test_bad_options(tiny_bert: EmbeddingModel, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_bert.encode(["a"], **options)


@pytest.mark.parametrize("kind", [SparseEncoder, MultiVectorEncoder, BGEM3])
def test_of_what_is_cut_anyway_other_kinds_of_models_read_the_beginning(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is BGEM3:
        bge_m3.make(tmp_path)
    else:
        sparse.make(tmp_path, "bert") if kind is SparseEncoder else multi_vector.make(tmp_path, "sentence-transformers")
    model = kind.from_pretrained(tmp_path, device="cpu")
    read: list[int] = []

    def made(self: Tokenizer, contents: list[str]) -> Any:
        read.append(sum(map(len, contents)))
        return whole(self, contents)

    whole = Tokenizer._made
    monkeypatch.setattr(Tokenizer, "_made", made)
    with pytest.warns(TruncationWarning, match=r"the longest has \d+ or more"):
        found = model.encode(["the wing " * 10_000])
    assert max(read) < 10_000
    expected = model.encode(["the wing " * 100])
    one, other = (x.multi_vector[0] if kind is BGEM3 else x[0] for x in (found, expected))
    if kind is SparseEncoder:
        one, other = one.values, other.values
    assert np.array_equal(one, other)
