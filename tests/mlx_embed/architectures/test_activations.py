"""hidden_act under all of transformers' names, as a function and in models."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import activate, cpu
from mlx_embed import UnsupportedModelError
from mlx_embed.architectures.ops import activation, graph, native
from mlx_embed.architectures.ops.activations import FORMULAS
from tests.checkpoints import edit
from tests.conftest import DATA
from tests.mlx_embed.architectures.cases import TOLERANCE, WAYS, difference, encode, make, oracle

with np.load(DATA / "odd/activations.npz") as _file:
    EXPECTED = {name: _file[name] for name in _file.files if name != "meta"}
X = EXPECTED.pop("x")
# Where config.json has the name.
KEYS = {"bert": "hidden_act", "distilbert": "activation", "modernbert": "hidden_activation", "gte": "hidden_act"}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("engine", ["graph", "native"])
def test_functions(engine: str, name: str) -> None:
    """The identity as a linear layer, which also the kernels take."""
    act, expected = activation(name), EXPECTED[name]
    if act in FORMULAS:
        found = FORMULAS[act](mx.array(X), graph) if engine == "graph" else FORMULAS[act](X, native)
    elif engine == "graph":
        found = activate(mx.array(X[None]), act)[0]
    elif not cpu.available():
        pytest.skip("the native kernels are not built")
    else:
        found = cpu.linear(X[:, None], cpu.Linear(np.ones((1, 1), np.float32)), act)[:, 0]
    found = np.array(found)
    assert found.dtype == np.float32
    assert (np.abs(found - expected) <= 1e-6 * (1 + np.abs(expected))).all()


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("act", ["gelu_fast", "swish", *FORMULAS])
def test_models(act: str, name: str, tmp_path: Path) -> None:
    """Each way against transformers; the three ways a feed-forward is built are all among the models."""
    folder = edit(make(name, tmp_path), **{KEYS[name]: act})
    texts = ["the wing flow of heat", "", "code " * 40]
    expected = oracle(folder).encode(texts, normalize_embeddings=True)
    for options in WAYS.values():
        assert difference(encode(folder, texts, **options), expected) <= TOLERANCE


@pytest.mark.parametrize("act", ["prelu", "xielu", "GELU", "gelu_tanh", "swiglu", ""])
def test_names_that_are_refused(act: str, checkpoint: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"'{act}'; mlx_embed has gelu, gelu_10, .*, tanh: transf"):
        encode(edit(checkpoint, hidden_act=act), ["x"])


def test_aliases_in_decoders(tmp_path: Path) -> None:
    """A decoder has one activation; here it is under its other names."""
    texts = ["the wing"]
    for name, key, act in (("qwen3", "hidden_act", "swish"), ("gemma3_text", "hidden_activation", "gelu_new")):
        folder = make(name, tmp_path / name)
        expected = encode(folder, texts)
        assert (encode(edit(folder, **{key: act}), texts) == expected).all()
        with pytest.raises(UnsupportedModelError, match="'mish'"):
            encode(edit(folder, **{key: "mish"}), texts)
