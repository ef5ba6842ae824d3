"""The numbers of answers: what base64 is of, and how long vectors are."""

import json
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.serve.replies import base64_of
from tests.mlx_embed.serve.harness import serving


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8"])
def test_base64_is_of_little_endian_float32(dtype: str) -> None:
    vector = np.array([0.5, -2.0, 3.25], dtype=dtype)
    assert np.frombuffer(b64decode(base64_of(vector)), dtype="<f4").tolist() == [0.5, -2.0, 3.25]


def test_base64_of_codes_is_of_their_bytes() -> None:
    vector = np.array([-128, 0, 127], dtype=np.int8)
    assert b64decode(base64_of(vector)) == vector.tobytes()


@pytest.fixture
def plain(checkpoint: Path) -> EmbeddingModel:
    """A model whose vectors are not of length 1."""
    path = checkpoint / "modules.json"
    modules = [module for module in json.loads(path.read_text()) if not module["type"].endswith("Normalize")]
    path.write_text(json.dumps(modules))
    return EmbeddingModel.from_pretrained(checkpoint, device="cpu")


def test_lengths_of_vectors(plain: EmbeddingModel) -> None:
    """As the checkpoint says, but where a client counts on 1: Ollama's always do, others where vectors are cut."""
    whole = plain.encode("the wing")
    assert abs(np.linalg.norm(whole) - 1) > 0.1
    with serving({"plain": plain}) as running:

        def vector(path: str, *place: str | int, **more: object) -> list[float]:
            body = {"model": "plain", "input": "the wing", "prompt": "the wing", "texts": ["the wing"]}
            found = running.post(path, body | more).json()
            for key in place:
                found = found[key]
            return list(found)

        openai, cohere = ("data", 0, "embedding"), ("embeddings", "float", 0)
        assert vector("/v1/embeddings", *openai) == pytest.approx(whole, abs=1e-6)
        assert vector("/v2/embed", *cohere) == pytest.approx(whole, abs=1e-6)
        unit = whole / np.linalg.norm(whole)
        assert vector("/api/embed", "embeddings", 0) == pytest.approx(unit, abs=1e-6)
        assert vector("/api/embeddings", "embedding") == pytest.approx(unit, abs=1e-6)
        cut = whole[:8] / np.linalg.norm(whole[:8])
        assert vector("/v1/embeddings", *openai, dimensions=8) == pytest.approx(cut, abs=1e-6)
        assert vector("/v2/embed", *cohere, output_dimension=8) == pytest.approx(cut, abs=1e-6)
        assert vector("/api/embed", "embeddings", 0, dimensions=8) == pytest.approx(cut, abs=1e-6)
