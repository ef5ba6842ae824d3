"""KeyBERT with the real library: the keywords that it finds by sentence-transformers' model of the same folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from tests.conftest import DATA
from tests.mlx_embed.integrations.conftest import theirs

pytest.importorskip("keybert", reason="keybert is not installed")

from keybert import KeyBERT

from mlx_embed.integrations.keybert import MLXEmbedder

DOCUMENTS = [
    "the boundary layer of the wing makes heat, and the flow of heat makes a boundary",
    "a query of code finds the index of a note, which is a text of code",
]


@pytest.mark.parametrize(
    "options", [{}, {"use_mmr": True}, {"keyphrase_ngram_range": (1, 2)}, {"seed_keywords": ["heat"]}]
)
def test_live_keywords(options: dict[str, Any], prompted: Path) -> None:
    expected = KeyBERT(theirs(prompted)).extract_keywords(DOCUMENTS, **options)
    found = KeyBERT(MLXEmbedder(prompted)).extract_keywords(DOCUMENTS, **options)
    assert [[word for word, _ in words] for words in found] == [[word for word, _ in words] for words in expected]
    assert np.allclose(
        [[s for _, s in words] for words in found], [[s for _, s in words] for words in expected], atol=1e-4
    )


def test_options_and_the_bar(tiny_bert: EmbeddingModel, capsys: pytest.CaptureFixture[str]) -> None:
    embedder = MLXEmbedder(tiny_bert, encode_options={"truncate_dim": 8})
    assert embedder.embedding_model is tiny_bert
    words = np.array(["heat", "wing"], dtype=object)
    assert np.array_equal(embedder.embed(words), tiny_bert.encode(["heat", "wing"], truncate_dim=8))
    assert capsys.readouterr().err == ""
    embedder.embed(words, verbose=True)
    assert "2/2" in capsys.readouterr().err
    assert MLXEmbedder(DATA / "tiny-bert").embed(["heat"]).shape == (1, 32)
