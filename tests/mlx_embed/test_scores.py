"""Logits to scores: within one unit in the last place of float32 of the right number, and monotone."""

import numpy as np
import pytest

from mlx_embed.scores import SCORES, activation_name
from tests.conftest import DATA


def units(found: np.ndarray, expected: np.ndarray) -> int:
    """How many float32 numbers lie between two arrays, at most."""
    found, expected = np.float32(found), np.float32(expected)
    assert np.isfinite(found).all()
    assert (np.signbit(found) == np.signbit(expected))[expected != 0].all()
    places = [np.abs(x).view(np.int32).astype(np.int64) for x in (found, expected)]
    return int(np.abs(places[0] - places[1]).max())


@pytest.mark.parametrize(
    ("name", "given", "golden"),
    [("Sigmoid", "x", "sigmoid"), ("Softmax", "rows", "softmax"), ("LogSoftmax", "rows", "log_softmax")],
)
def test_golden(name: str, given: str, golden: str) -> None:
    """Against numbers computed with 300 bits."""
    with np.load(DATA / "odd/scores.npz") as file:
        logits, expected = file[given].astype(np.float64), file[golden]
    assert units(SCORES[name](logits), expected) <= 1


def test_log_sigmoid_is_the_logarithm() -> None:
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed")
    mpmath.mp.prec = 300
    with np.load(DATA / "odd/scores.npz") as file:
        logits = file["x"].astype(np.float64)
    expected = [float(-mpmath.log(1 + mpmath.exp(-mpmath.mpf(x)))) for x in logits]
    assert units(SCORES["LogSigmoid"](logits), np.array(expected)) <= 1


@pytest.mark.parametrize("name", sorted(SCORES))
def test_live_against_torch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch oracles are not installed")
    rows = np.concatenate([np.random.default_rng().normal(0, scale, (50, 3)) for scale in (1, 10, 300)])
    function = getattr(torch.nn, name)(**({"dim": 1} if name.endswith("Softmax") else {}))
    expected = function(torch.from_numpy(rows)).numpy()
    assert np.allclose(SCORES[name](rows), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["Sigmoid", "LogSigmoid", "Tanh", "Identity", "ReLU"])
def test_a_larger_logit_has_no_smaller_score(name: str) -> None:
    logits = np.concatenate([np.linspace(-120, 120, 100_001), np.linspace(-1e-3, 1e-3, 10_001), [-1e4, 1e4]])
    scores = SCORES[name](np.sort(np.float32(logits)).astype(np.float64)).astype(np.float32)
    assert (np.diff(scores) >= 0).all()


def test_labels_of_any_size() -> None:
    rows = np.array([[1e4, -1e4, 0], [-1e30, -1e30, -1e30], [3e38, 0, -3e38]])
    assert np.allclose(SCORES["Softmax"](rows), [[1, 0, 0], [1 / 3] * 3, [1, 0, 0]])
    assert SCORES["LogSoftmax"](rows)[0].tolist() == [0, -2e4, -1e4]
    assert SCORES["LogSoftmax"](np.zeros((0, 3))).shape == (0, 3)
    # The others add 1e-20 to a sum of 1: what is left of it is the whole of the logarithm.
    largest = SCORES["LogSoftmax"](np.array([[0, np.log(1e-20)]]))[0, 0]
    assert largest == pytest.approx(-1e-20, rel=1e-9)


class Sigmoid:
    """Named as torch's class is."""


@pytest.mark.parametrize(
    ("given", "labels", "expected"),
    [("Tanh", 1, "Tanh"), (Sigmoid(), 1, "Sigmoid"), ("Softmax", 2, "Softmax"), ("LogSigmoid", 1, "LogSigmoid")],
)
def test_names(given: object, labels: int, expected: str) -> None:
    assert activation_name(given, labels) == expected


@pytest.mark.parametrize(("given", "labels"), [("Softmax", 1), ("LogSoftmax", 1), ("sigmoid", 2), (np.tanh, 2), (3, 1)])
def test_what_is_no_activation(given: object, labels: int) -> None:
    with pytest.raises(ValueError, match=r"is not one of GELU, Identity, .*which a model of \w+ labels? can have"):
        activation_name(given, labels)


class GELU:
    """As torch's."""

    def __init__(self, approximate: str) -> None:
        self.approximate = approximate


class Softmax:
    """As torch's."""

    def __init__(self, dim: int | None) -> None:
        self.dim = dim


def test_an_object_that_is_set_to_compute_something_else() -> None:
    for as_here in (GELU("none"), Softmax(None), Softmax(-1), Softmax(1)):
        assert activation_name(as_here, 2) == type(as_here).__name__
    with pytest.raises(ValueError, match="activation GELU with approximate='tanh'; mlx_embed has approximate='none'"):
        activation_name(GELU("tanh"), 1)
    with pytest.raises(ValueError, match="activation Softmax with dim=0; mlx_embed has dim=-1"):
        activation_name(Softmax(0), 2)
