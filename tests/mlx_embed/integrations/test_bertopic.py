"""BERTopic with the real library: the topics that it finds by sentence-transformers' model of the same folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from tests.mlx_embed.integrations.conftest import theirs

pytest.importorskip("bertopic", reason="bertopic is not installed")

from bertopic import BERTopic
from bertopic.representation import KeyBERTInspired
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from mlx_embed.integrations.bertopic import MLXEmbedder

WORDS = ["heat", "wing", "flow", "boundary", "layer", "code", "index", "note", "query", "text", "speed", "search"]
DOCUMENTS = [f"the {a} of the {b} {c}" for a in WORDS for b, c in zip(WORDS[1:], WORDS[:-1], strict=True)]


def topics(model: Any) -> tuple[list[int], dict[int, list[tuple[str, float]]]]:
    """Deterministic reduction and clusters, and words chosen by their vectors."""
    topic_model = BERTopic(
        embedding_model=model,
        umap_model=PCA(n_components=3, random_state=0),
        hdbscan_model=KMeans(n_clusters=4, random_state=0, n_init=1),
        representation_model=KeyBERTInspired(random_state=0),
    )
    return topic_model.fit_transform(DOCUMENTS)[0], topic_model.get_topics()


def test_live_topics(prompted: Path) -> None:
    expected, words = topics(theirs(prompted))
    found, own_words = topics(MLXEmbedder(prompted))
    assert list(found) == list(expected)
    assert {topic: [word for word, _ in row] for topic, row in own_words.items()} == {
        topic: [word for word, _ in row] for topic, row in words.items()
    }


def test_words_and_documents(tiny_bert: EmbeddingModel, capsys: pytest.CaptureFixture[str]) -> None:
    embedder = MLXEmbedder(tiny_bert, encode_options={"truncate_dim": 8})
    for embed in (embedder.embed, embedder.embed_words, embedder.embed_documents):
        assert np.array_equal(embed(WORDS), tiny_bert.encode(WORDS, truncate_dim=8))
    assert capsys.readouterr().err == ""
    embedder.embed(WORDS, verbose=True)
    assert f"{len(WORDS)}/{len(WORDS)}" in capsys.readouterr().err
