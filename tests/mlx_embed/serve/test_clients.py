"""The real clients, over a real socket: what they make of the answers equals `encode` and `predict`."""

from typing import Any

import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel
from mlx_embed.serve.access import Access
from tests.mlx_embed.serve.harness import Running, random_texts, serving
from tests.test_snippets import ADDRESS, PAGES, as_far_as_installed, blocks

TOLERANCE = 1e-5
TEXTS = random_texts(7, 20, seed=9)


@pytest.fixture
def openai(running: Running) -> Any:
    client = pytest.importorskip("openai")
    with client.OpenAI(base_url=running.url + "/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
def test_openai(openai: Any, encoder: EmbeddingModel, options: dict[str, str]) -> None:
    answer = openai.embeddings.create(model="tiny-bert", input=TEXTS, **options)
    assert np.abs(np.array([entry.embedding for entry in answer.data]) - encoder.encode(TEXTS)).max() <= TOLERANCE
    assert [entry.index for entry in answer.data] == list(range(7))
    assert answer.model == "org/Tiny-BERT"
    assert answer.usage.total_tokens == encoder.token_counts(TEXTS).sum()
    answer = openai.embeddings.create(
        model="default", input="wing", dimensions=8, extra_body={"input_type": "query"}, **options
    )
    expected = encoder.encode_query("wing", truncate_dim=8)
    assert np.abs(np.array(answer.data[0].embedding) - expected).max() <= TOLERANCE


def test_openai_models_and_errors(openai: Any) -> None:
    import openai as library

    assert [model.id for model in openai.models.list()] == ["org/Tiny-BERT", "tiny-reranker"]
    assert openai.models.retrieve("tiny-bert").id == "org/Tiny-BERT"
    with pytest.raises(library.NotFoundError, match="served here are org/Tiny-BERT"):
        openai.embeddings.create(model="text-embedding-3-small", input="a")
    with pytest.raises(library.BadRequestError, match=r"input\[1\] is empty") as found:
        openai.embeddings.create(model="tiny-bert", input=["a", ""])
    assert (found.value.code, found.value.param) == ("empty", "input")


def test_openai_with_a_key(encoder: EmbeddingModel) -> None:
    library = pytest.importorskip("openai")
    with serving({"tiny": encoder}, access=Access(keys=("secret",))) as running:
        with library.OpenAI(base_url=running.url + "/v1", api_key="secret") as client:
            assert len(client.embeddings.create(model="tiny", input="a").data) == 1
        with (
            library.OpenAI(base_url=running.url + "/v1", api_key="wrong") as client,
            pytest.raises(library.AuthenticationError, match="wants a key"),
        ):
            client.embeddings.create(model="tiny", input="a")


def test_langchain_openai(running: Running, encoder: EmbeddingModel) -> None:
    library = pytest.importorskip("langchain_openai")
    options: dict[str, Any] = {"base_url": running.url + "/v1", "api_key": "none", "model": "tiny-bert"}
    model = library.OpenAIEmbeddings(check_embedding_ctx_length=False, **options)
    assert np.abs(np.array(model.embed_documents(TEXTS)) - encoder.encode(TEXTS)).max() <= TOLERANCE
    assert np.abs(np.array(model.embed_query("wing")) - encoder.encode("wing")).max() <= TOLERANCE


def test_langchain_openai_as_it_is_by_default_is_told_what_to_change(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip("langchain_openai")
    import openai
    import tiktoken

    # Its vocabulary is downloaded at first use; what matters is that ids are sent.
    bytes_only = tiktoken.Encoding(
        "bytes", pat_str=r"[\s\S]", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}
    )
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda *_: bytes_only)
    monkeypatch.setattr(tiktoken, "get_encoding", lambda *_: bytes_only)
    model = library.OpenAIEmbeddings(base_url=running.url + "/v1", api_key="none", model="tiny-bert")
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        model.embed_documents(["the wing"])


@pytest.mark.parametrize("version", [1, 2])
def test_cohere(running: Running, encoder: EmbeddingModel, cross_encoder: CrossEncoder, version: int) -> None:
    library = pytest.importorskip("cohere")
    kind = library.Client if version == 1 else library.ClientV2
    client = kind(api_key="none", base_url=running.url)
    found = client.rerank(model="tiny-reranker", query="the wing", documents=TEXTS, top_n=3)
    scores = cross_encoder.predict([("the wing", text) for text in TEXTS], activation="Sigmoid")
    assert [result.index for result in found.results] == np.argsort(-scores, kind="stable")[:3].tolist()
    for result in found.results:
        assert result.relevance_score == pytest.approx(scores[result.index], abs=TOLERANCE)
    answer = client.embed(
        texts=TEXTS, model="tiny-bert", input_type="search_document", embedding_types=["float", "ubinary"]
    )
    expected = encoder.encode_document(TEXTS)
    assert np.abs(np.array(answer.embeddings.float_) - expected).max() <= TOLERANCE
    kinds = ["int8", "uint8", "binary", "ubinary"]
    codes = client.embed(texts=TEXTS, model="tiny-bert", input_type="search_document", embedding_types=kinds).embeddings
    assert np.abs(np.array(codes.int8) - expected * 127 * np.sqrt(32) / 8).max() <= 0.5 + 1e-3
    assert (np.array(codes.uint8) == np.array(codes.int8) + 128).all()
    assert (np.array(codes.binary) == np.packbits(expected > 0, axis=1).astype(int) - 128).all()
    assert (np.array(codes.ubinary) == np.packbits(expected > 0, axis=1)).all()
    if version == 1:
        answer = client.embed(texts=TEXTS, model="tiny-bert", input_type="search_document")
        assert np.abs(np.array(answer.embeddings) - expected).max() <= TOLERANCE
    with pytest.raises(library.NotFoundError, match="not found"):
        client.rerank(model="other", query="a", documents=["b"])


def test_ollama(running: Running, encoder: EmbeddingModel) -> None:
    library = pytest.importorskip("ollama")
    client = library.Client(host=running.url)
    answer = client.embed(model="tiny-bert", input=TEXTS)
    assert np.abs(np.array(answer.embeddings) - encoder.encode(TEXTS)).max() <= TOLERANCE
    assert np.abs(np.array(client.embed("tiny-bert", "wing").embeddings[0]) - encoder.encode("wing")).max() <= TOLERANCE
    old = client.embeddings(model="tiny-bert", prompt="wing").embedding
    assert np.abs(np.array(old) - encoder.encode("wing")).max() <= TOLERANCE
    assert [model.model for model in client.list().models] == ["org/Tiny-BERT", "tiny-reranker"]
    assert [model.model for model in client.ps().models] == ["org/Tiny-BERT", "tiny-reranker"]
    assert client.show("tiny-bert").capabilities == ["embedding"]
    with pytest.raises(library.ResponseError, match="'other' not found") as found:
        client.embed(model="other", input="a")
    assert found.value.status_code == 404


def test_langchain_ollama(running: Running, encoder: EmbeddingModel) -> None:
    library = pytest.importorskip("langchain_ollama")
    model = library.OllamaEmbeddings(model="tiny-bert", base_url=running.url)
    assert np.abs(np.array(model.embed_documents(TEXTS)) - encoder.encode(TEXTS)).max() <= TOLERANCE
    assert np.abs(np.array(model.embed_query("wing")) - encoder.encode("wing")).max() <= TOLERANCE


def test_inference_client(running: Running, encoder: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # which means this machine's servers too
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import HfHubHTTPError

    for url in (running.url, running.url + "/embed"):
        client = InferenceClient(url)
        found = client.feature_extraction("the wing", normalize=True, truncate=True, truncation_direction="right")
        assert np.abs(found - encoder.encode(["the wing"])).max() <= TOLERANCE
        found = client.feature_extraction("wing", prompt_name="query")
        assert np.abs(found - encoder.encode(["wing"], prompt_name="query")).max() <= TOLERANCE
    similar = InferenceClient(running.url).sentence_similarity("the wing", other_sentences=TEXTS)
    expected = encoder.similarity(encoder.encode("the wing"), encoder.encode(TEXTS))[0]
    assert np.abs(np.array(similar) - expected).max() <= TOLERANCE
    with pytest.raises(HfHubHTTPError, match="prompt_name 'x'"):
        InferenceClient(running.url).feature_extraction("wing", prompt_name="x")


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it downloads its list of prices otherwise
    return pytest.importorskip("litellm")


@pytest.mark.parametrize("prefix", ["openai/", "hosted_vllm/"])
def test_litellm_embeddings(litellm: Any, running: Running, encoder: EmbeddingModel, prefix: str) -> None:
    answer = litellm.embedding(
        model=prefix + "tiny-bert", input=TEXTS, api_base=running.url + "/v1", api_key="none", encoding_format="float"
    )
    vectors = np.array([entry["embedding"] for entry in answer.data])
    assert np.abs(vectors - encoder.encode(TEXTS)).max() <= TOLERANCE


@pytest.mark.parametrize("prefix", ["cohere/", "jina_ai/", "hosted_vllm/"])
def test_litellm_rerank(litellm: Any, running: Running, cross_encoder: CrossEncoder, prefix: str) -> None:
    base = running.url + ("/v1/rerank" if prefix in ("jina_ai/", "hosted_vllm/") else "")
    answer = litellm.rerank(
        model=prefix + "tiny-reranker", query="the wing", documents=TEXTS, top_n=3, api_base=base, api_key="none"
    )
    scores = cross_encoder.predict([("the wing", text) for text in TEXTS], activation="Sigmoid")
    assert [result["index"] for result in answer.results] == np.argsort(-scores, kind="stable")[:3].tolist()


@pytest.mark.parametrize("page", [page for page in PAGES if any(ADDRESS in code for _, code in blocks(page, "python"))])
def test_what_pages_show(page: str, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # as above
    for place, code in blocks(page, "python"):
        if ADDRESS in code:
            with as_far_as_installed():
                exec(compile(code.replace(ADDRESS, running.url.removeprefix("http://")), place, "exec"), {})
