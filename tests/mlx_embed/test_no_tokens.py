"""Texts that have no token, not even a special one, in every kind of model; live against sentence-transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import CrossEncoder, EmbeddingModel, MultiVectorEncoder, SparseEncoder
from mlx_embed.batching import packed_batches
from tests import multi_vector, oracles, sparse
from tests.checkpoints import NORMALIZE, dense, generative, pooling, reranker, with_modules
from tests.mlx_embed.architectures.cases import WAYS

TEXTS = ["", "the wing", "  ", "heat of the flow", ""]
BLANK = [0, 2, 4]
MODES = ("mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "cls", "max")


def without_special_tokens(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    return folder


def embedder(folder: Path, stack: list[Any], base: str = "bert") -> Path:
    return without_special_tokens(with_modules(folder, stack, base=base))


@pytest.mark.parametrize("mode", [*MODES[:4], "dense", "without prompt"])
def test_live(mode: str, tmp_path: Path) -> None:
    """In a batch its means, and the last token, are zeros; what follows them has that for an input."""
    library = oracles.sentence_transformers()
    stack = {
        "dense": [pooling("mean"), dense(32, 24), NORMALIZE],
        "without prompt": [pooling("mean", include_prompt=False), dense(32, 24)],
    }.get(mode, [pooling(mode)])
    folder = embedder(tmp_path, stack)
    options = {"prompt": "the wing "} if mode == "without prompt" else {}
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS, **options)
    found = EmbeddingModel.from_pretrained(folder, device="cpu").encode(TEXTS, **options)
    assert np.abs(found - expected).max() <= 1e-5
    assert found[1].any()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("base", ["bert", "deberta-v2", "modernbert"])
def test_it_is_zeros_and_changes_no_other(base: str, way: str, tmp_path: Path) -> None:
    model = EmbeddingModel.from_pretrained(
        embedder(tmp_path, [pooling(*MODES), NORMALIZE], base), device="cpu", **WAYS[way]
    )
    found = model.encode(TEXTS)
    assert not found[BLANK].any()
    others = model.encode([TEXTS[1], TEXTS[3]])
    assert np.abs(found[[1, 3]] - others).max() <= 1e-5
    assert np.abs(np.linalg.norm(others, axis=1) - 1).max() <= 1e-5
    for options in ({"batch_size": 1}, {"batch_tokens": 2}, {"long_text": "mean_of_chunks"}):
        assert np.abs(model.encode(TEXTS, **options) - found).max() <= 1e-5
    # A batch of no tokens at all.
    assert not model.encode("").any()
    assert not model.encode(["", " "]).any()
    assert model.token_counts(TEXTS).tolist() == [0, 2, 0, 4, 0]


@pytest.mark.parametrize("mode", ["mean", "lasttoken"])
def test_no_token_behind_a_prompt_that_is_not_pooled(mode: str, tmp_path: Path) -> None:
    model = EmbeddingModel.from_pretrained(
        embedder(tmp_path, [pooling(mode, include_prompt=False), NORMALIZE]), device="cpu"
    )
    found = model.encode(TEXTS, prompt="the wing ")
    assert found.any(axis=1).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("name", ["bert", "sum", "queries looked up"])
def test_sparse(name: str, tmp_path: Path) -> None:
    """It has no weights, which is what sentence-transformers gives in a batch."""
    folder = sparse.make(tmp_path, name)
    for place in [folder, *folder.iterdir()]:
        if (place / "tokenizer.json").exists():
            without_special_tokens(place)
    model = SparseEncoder.from_pretrained(folder, device="cpu")
    for method in ("encode_query", "encode_document"):
        found: Any = getattr(model, method)(TEXTS)
        assert [len(vector.indices) > 0 for vector in found] == [False, True, False, True, False]
        assert np.abs(found.dense()[[1, 3]] - getattr(model, method)([TEXTS[1], TEXTS[3]]).dense()).max() <= 1e-5
        assert not len(getattr(model, method)("").indices)


def test_a_vector_a_token(tmp_path: Path) -> None:
    model = MultiVectorEncoder.from_pretrained(
        without_special_tokens(multi_vector.make(tmp_path, "no expansion")), device="cpu"
    )
    found: Any = model.encode_document(TEXTS)
    assert [len(vectors) for vectors in found] == [0, 2, 0, 4, 0]
    assert np.asarray(model.encode_document("")).shape == (0, 16)
    assert model.similarity(model.encode_query(["heat"]), found)[0, BLANK].tolist() == [-np.inf] * 3


@pytest.mark.parametrize("causal", [False, True])
def test_a_pair_without_tokens_has_no_score(causal: bool, tmp_path: Path) -> None:
    folder = generative("llama, own output", tmp_path) if causal else reranker("bert", 1, tmp_path)
    # Of no class that would put special tokens there.
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    model = CrossEncoder.from_pretrained(without_special_tokens(folder), device="cpu")
    assert np.isfinite(model.predict([("", "wing"), ("wing", "")])).all()
    with pytest.raises(ValueError, match=r"pairs\[1\] has no token in either text"):
        model.predict([("a", "wing"), ("", " "), ("", "")])


@pytest.mark.parametrize("bucketed", [False, True])
def test_batches_of_no_tokens(bucketed: bool) -> None:
    """A batch has a token, if of none of its texts."""
    (batch,) = packed_batches([[], []], 100, bucketed=bucketed)
    assert (len(batch.texts), batch.tokens.tolist(), batch.cu_seqlens[:3].tolist()) == (2, [], [0, 0, 0])
    assert len(batch.input_ids) == batch.cu_seqlens[-1] >= 1
