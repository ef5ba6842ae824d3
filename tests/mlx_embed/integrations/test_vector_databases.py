"""Qdrant and Milvus as they are, run in this process: what they find, and with which scores, is what the model says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel, MultiVectorEncoder, SparseEncoder, SparseVectors
from mlx_embed.cli import main
from mlx_embed.integrations.vector_formats import to_milvus, to_qdrant
from tests.conftest import DATA
from tests.multi_vector import make as make_multi_vector
from tests.sparse import make as make_sparse

TEXTS = ["the wing flow", "heat", "code of heat", "a query of the wing"]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> SparseEncoder:
    folder = make_sparse(tmp_path_factory.mktemp("s") / "model", "queries looked up")
    return SparseEncoder.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> MultiVectorEncoder:
    folder = make_multi_vector(tmp_path_factory.mktemp("l") / "model", "sentence-transformers")
    return MultiVectorEncoder.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def qdrant() -> Any:
    return pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")


@pytest.fixture
def milvus(tmp_path: Path) -> Any:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    client = pytest.importorskip("pymilvus", reason="pymilvus is not installed").MilvusClient(str(tmp_path / "m.db"))
    yield client
    client.close()


def best(scores: np.ndarray, names: Any) -> list[tuple[Any, float]]:
    return [(names[place], pytest.approx(float(scores[place]), abs=TOLERANCE)) for place in np.argsort(-scores)]


def test_qdrant(qdrant: Any, sparse: SparseEncoder, late: MultiVectorEncoder) -> None:
    models, client = qdrant.models, qdrant.QdrantClient(":memory:")
    how = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    tokens = models.VectorParams(size=late.dimension, distance=models.Distance.DOT, multivector_config=how)
    client.create_collection(
        "texts", vectors_config={"tokens": tokens}, sparse_vectors_config={"weights": models.SparseVectorParams()}
    )
    weights, vectors = sparse.encode_document(TEXTS), late.encode_document(TEXTS)
    rows = zip(to_qdrant(weights), to_qdrant(vectors), strict=True)
    client.upsert(
        "texts",
        [
            models.PointStruct(id=place, vector={"weights": models.SparseVector(**row), "tokens": own})
            for place, (row, own) in enumerate(rows)
        ],
    )
    query = sparse.encode_query("heat of the wing")
    found = client.query_points("texts", query=models.SparseVector(**to_qdrant(query)), using="weights").points
    assert [(point.id, point.score) for point in found] == best(sparse.similarity(query, weights)[0], range(4))
    queries = late.encode_query(["heat of the wing"])
    for given in (to_qdrant(queries)[0], to_qdrant(queries[0])):
        found = client.query_points("texts", query=given, using="tokens").points
        assert [(point.id, point.score) for point in found] == best(late.similarity(queries, vectors)[0], range(4))


@pytest.mark.filterwarnings("ignore")
def test_qdrant_of_a_file(qdrant: Any, sparse: SparseEncoder, tmp_path: Path) -> None:
    """What `encode --sparse` writes as Parquet goes in row by row."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    out = str(tmp_path / "out.parquet")
    folder = str(sparse.checkpoint.folder)
    assert main(["encode", str(tmp_path / "texts.txt"), "--sparse", "--model", folder, "-o", out]) == 0
    models, client = qdrant.models, qdrant.QdrantClient(":memory:")
    client.create_collection("texts", sparse_vectors_config={"weights": models.SparseVectorParams()}, vectors_config={})
    points = [
        models.PointStruct(id=place, vector={"weights": models.SparseVector(**row)})
        for place, row in enumerate(parquet.read_table(out).to_pylist())
    ]
    client.upsert("texts", points)
    query = sparse.encode_query("heat of the wing")
    found = client.query_points("texts", query=models.SparseVector(**to_qdrant(query)), using="weights").points
    expected = sparse.similarity(query, sparse.encode_document(TEXTS))[0]
    assert [(point.id, point.score) for point in found] == best(expected, range(4))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["sparse", "hybrid"])
def test_langchains_qdrant(mode: str, qdrant: Any, sparse: SparseEncoder) -> None:
    store = pytest.importorskip("langchain_qdrant", reason="langchain-qdrant is not installed")
    from mlx_embed.integrations.langchain import MLXEmbeddings
    from mlx_embed.integrations.langchain_qdrant import MLXSparseEmbeddings

    dense = MLXEmbeddings(EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu"))
    made = store.QdrantVectorStore.from_texts(
        TEXTS,
        dense,
        sparse_embedding=MLXSparseEmbeddings(sparse),
        retrieval_mode=store.RetrievalMode(mode),
        location=":memory:",
    )
    found = made.similarity_search_with_score("heat of the wing", k=4)
    if mode == "sparse":
        scores = sparse.similarity(sparse.encode_query("heat of the wing"), sparse.encode_document(TEXTS))[0]
        assert [(document.page_content, score) for document, score in found] == best(scores, TEXTS)
    assert {document.page_content for document, _ in found} == set(TEXTS)


def test_milvus(milvus: Any, sparse: SparseEncoder) -> None:
    from pymilvus import DataType

    schema = milvus.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("weights", DataType.SPARSE_FLOAT_VECTOR)
    index = milvus.prepare_index_params()
    index.add_index("weights", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    milvus.create_collection("texts", schema=schema, index_params=index)
    weights, query = sparse.encode_document(TEXTS), sparse.encode_query("heat of the wing")
    assert isinstance(weights, SparseVectors)
    milvus.insert("texts", [{"id": place, "weights": row} for place, row in enumerate(to_milvus(weights))])
    [found] = milvus.search("texts", data=[to_milvus(query)], anns_field="weights", limit=4)
    expected = best(sparse.similarity(query, weights)[0], range(4))
    assert [(entry["id"], entry["distance"]) for entry in found] == expected
    kept = milvus.query("texts", filter="id >= 0", output_fields=["weights"])
    assert [entry["weights"] for entry in kept] == [pytest.approx(row) for row in to_milvus(weights)]


@pytest.mark.filterwarnings("ignore")
def test_langchains_milvus(tmp_path: Path, sparse: SparseEncoder) -> None:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    milvus = pytest.importorskip("langchain_milvus", reason="langchain-milvus is not installed").Milvus
    from mlx_embed.integrations.langchain_milvus import MLXSparseEmbeddings

    made = milvus.from_texts(
        TEXTS,
        MLXSparseEmbeddings(sparse),
        connection_args={"uri": str(tmp_path / "m.db")},
        # By default it leaves out a fifth of the smallest weights, which milvus-lite does not know.
        index_params={"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP", "params": {"drop_ratio_build": 0.0}},
        search_params={"metric_type": "IP", "params": {}},
        vector_field="weights",
    )
    found = made.similarity_search_with_score("heat of the wing", k=4)
    scores = sparse.similarity(sparse.encode_query("heat of the wing"), sparse.encode_document(TEXTS))[0]
    assert [(document.page_content, score) for document, score in found] == best(scores, TEXTS)
