"""The choice between kernel and MLX's own ops where the user's machine decides: Metal, played by functions.

The tests of tune.py have the clock; here the wiring is real, from the public op to the file, and the seconds are told.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import attention, backends, embedding_norm, layer_norm, mean_pool, metal, tune, use_kernels
from custom_kernels.attention import reference_attention
from custom_kernels.embedding import reference_embedding_norm
from custom_kernels.layer_norm import reference_layer_norm
from custom_kernels.pool import reference_mean_pool
from mlx_embed import EmbeddingModel, cli
from mlx_embed.engine import device
from mlx_embed.measure import tuning
from tests.conftest import DATA, forget_kernels

PADDED = "built-in, heads padded to 64"
REFERENCES: dict[str, Callable[..., mx.array]] = {
    "layer_norm": reference_layer_norm,
    "embedding_norm": reference_embedding_norm,
    "attention": reference_attention,
    "mean_pool": reference_mean_pool,
}


class Machine:
    """A Mac on which candidates take the seconds that a test says, 1 ms if it says nothing.

    It has no kernel of position_ids, which references are made of.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.seconds: dict[str, float] = {}
        self.timed: list[str] = []
        self.kernels: list[str] = []  # what ran, at other than a sample's shapes
        for op in REFERENCES:
            self.ship(op, REFERENCES[op])
        monkeypatch.delattr(metal, "position_ids")
        self.restart()
        self.by_the_clock = tune.measure
        monkeypatch.setattr(tune, "measure", self.measure)

    def ship(self, op: str, kernel: Callable[..., mx.array]) -> None:
        """Let `kernel` be the Metal kernel of `op`."""

        def called(*arguments: Any, **options: Any) -> mx.array:
            self.kernels.append(op)
            return kernel(*arguments, **options)

        self.monkeypatch.setattr(metal, op, called)

    def restart(self) -> None:
        """What a process remembers is forgotten."""
        forget_kernels(self.monkeypatch)
        self.timed.clear()

    def measure(self, op: str, candidates: Mapping[str, Callable[[], mx.array]], **_: Any) -> dict[str, float]:
        self.timed.append(op)
        for run in candidates.values():
            mx.eval(run())
        return {name: self.seconds.get(name, 1e-3) for name in candidates}


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    monkeypatch.setattr(backends, "default_backend", lambda: "metal")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MLX_EMBED_KERNELS", raising=False)
    machine = Machine(monkeypatch)
    with mx.stream(mx.cpu):  # exact, whatever GPU the machine really has
        yield machine
    use_kernels(None)


def random(*shape: int) -> mx.array:
    return mx.array(np.random.default_rng().normal(size=shape).astype(np.float32))


def attend(lengths: tuple[int, ...] = (4, 7), compiled: bool = False, heads: int = 2, head_dim: int = 32) -> None:
    """Attention of texts of these lengths, which must be right."""
    qkv = random(sum(lengths), 3 * heads * head_dim)
    cu_seqlens = mx.array(np.cumsum([0, *lengths]).astype(np.int32))

    def op(qkv: mx.array) -> mx.array:
        return attention(qkv, cu_seqlens, heads, 0.2, max_seqlen=max(lengths))

    found = (mx.compile(op) if compiled else op)(qkv)
    expected = reference_attention(qkv, cu_seqlens, heads, 0.2, max_seqlen=max(lengths))
    assert np.allclose(np.array(found), np.array(expected), atol=1e-5)


def normalise(rows: int = 6, residual: bool = False) -> None:
    """LayerNorm, which must be right."""
    x, w = random(rows, 32), random(32)
    arguments = (x, w, w, 1e-5, x if residual else None)
    assert np.allclose(np.array(layer_norm(*arguments)), np.array(reference_layer_norm(*arguments)), atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("winner", ["kernel", "built-in", PADDED])
def test_the_winner_is_used(mac: Machine, winner: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mac.seconds[winner] = 1e-4
    attend(compiled=compiled)
    assert mac.timed == ["attention"]
    mac.kernels.clear()
    fused, heads = mx.fast.scaled_dot_product_attention, []

    def recorded(q: mx.array, *rest: Any, **options: Any) -> mx.array:
        heads.append(q.shape[-1])
        return fused(q, *rest, **options)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", recorded)
    attend(compiled=compiled)
    assert mac.timed == ["attention"], "timed once"
    # The last of the calls is the expectation's, and a kernel is played by the reference.
    assert heads == [64 if winner == PADDED else 32, 32]
    assert mac.kernels == (["attention"] if winner == "kernel" else [])


def test_wide_heads_are_not_padded(mac: Machine) -> None:
    mac.seconds[PADDED] = 1e-4
    attend(head_dim=64)
    (classes,) = json.loads(tune.cache_file().read_text()).values()
    assert list(classes["attention"].values()) == [{"kernel": 1e-3, "built-in": 1e-3}]


def test_each_class_of_shapes_is_timed_once(mac: Machine) -> None:
    for _ in range(2):
        attend((4, 7))
        attend((3, 5, 12))  # the same class
        attend((4, 70))  # longer
        attend((70, 70))  # equal
        attend((12,) * 90 + (11,))  # many tokens
        normalise()
        normalise(residual=True)
        normalise(5000)
        embedding_norm([(random(9, 8), mx.array([1, 2]))], random(8), None, 1e-5)
        mean_pool(random(9, 8), mx.array([0, 9]))
    assert mac.timed == ["attention"] * 4 + ["layer_norm"] * 3 + ["embedding_norm", "mean_pool"]


def test_the_next_process_times_nothing(mac: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    mac.seconds["built-in"] = 1e-4
    attend()
    mac.restart()
    mac.seconds = {}
    attend()
    assert not mac.timed
    mac.kernels.clear()
    attend()
    assert not mac.kernels, "the built-in won, and still does"
    mac.restart()
    monkeypatch.setattr(tune, "version", lambda _: "99.0")
    attend()
    assert mac.timed == ["attention"], "another version of MLX"


def test_the_fastest_kernel_does_not_win_if_it_is_wrong(mac: Machine) -> None:
    mac.seconds["kernel"] = 1e-6
    mac.ship("layer_norm", lambda x, *rest: x * 2)
    with pytest.warns(RuntimeWarning, match="metal kernel of layer_norm is switched off"):
        normalise()
    normalise()
    normalise(residual=True)
    assert mac.kernels == ["layer_norm"], "its check alone"


def test_a_wrong_built_in_does_not_win_either(mac: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    mac.seconds["built-in"] = 1e-6
    monkeypatch.setattr(mx.fast, "layer_norm", lambda x, *rest: x * 2)
    with pytest.warns(RuntimeWarning, match="metal built-in of layer_norm is switched off"):
        normalise()
    normalise()


def test_a_kernel_found_broken_later_is_switched_off_everywhere(mac: Machine) -> None:
    mac.seconds["kernel"] = 1e-6
    mac.ship("layer_norm", lambda x, w, b, eps, r: x if r is not None else reference_layer_norm(x, w, b, eps))
    normalise()
    with pytest.warns(RuntimeWarning, match="metal kernel of layer_norm is switched off"):
        normalise(residual=True)
    mac.kernels.clear()
    normalise()
    assert not mac.kernels


def test_a_kernel_that_fails_on_a_typical_input_does_not_win(mac: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_on_many(x: mx.array, *rest: Any) -> mx.array:
        if len(x) > 100:
            raise RuntimeError("out of memory")
        return reference_layer_norm(x, *rest)

    monkeypatch.setattr(tune, "measure", mac.by_the_clock)
    mac.ship("layer_norm", fails_on_many)
    with pytest.warns(UserWarning, match="kernel does not compute layer_norm here: out of memory"):
        normalise(200)
    mac.kernels.clear()
    normalise(200)
    assert not mac.kernels


@pytest.mark.parametrize("how", ["environment", "argument", "backend", "cuda"])
def test_nothing_is_timed_where_nothing_is_chosen(mac: Machine, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mac.seconds["kernel"] = 1e-6
    x, w = random(6, 32), random(32)
    if how == "environment":
        monkeypatch.setenv("MLX_EMBED_KERNELS", "reference")
    elif how == "argument":
        use_kernels(False)
    elif how == "cuda":
        monkeypatch.setattr(backends, "default_backend", lambda: "cuda")
        monkeypatch.setattr("custom_kernels.cuda.layer_norm", lambda *arguments: reference_layer_norm(*arguments))
    layer_norm(x, w, w, 1e-5, x, backend="reference" if how == "backend" else None)
    if how in ("environment", "argument"):
        attend()
    assert not mac.timed
    assert not mac.kernels
    assert not tune.cache_file().exists()


@pytest.mark.parametrize("damage", ["text", "nested", "folder", "parent", "no home"])
def test_a_bad_cache_breaks_nothing(mac: Machine, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mac.seconds["built-in"] = 1e-4
    file = tune.cache_file()
    if damage == "parent":
        file.parent.write_text("a file")
    else:
        file.parent.mkdir()
    if damage == "text":
        file.write_text("{")
    elif damage == "nested":
        file.write_text("[" * 100_000)
    elif damage == "folder":
        file.mkdir()
    elif damage == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    if damage == "no home":
        with pytest.warns(UserWarning, match="could not be timed: no home"):
            attend()
    else:
        attend()
    attend()
    assert mac.timed == ([] if damage == "no home" else ["attention"])
    if damage != "parent":
        assert {f.name for f in file.parent.iterdir()} <= {"kernels.json", "trusted"}, "no file is left behind"


@pytest.mark.parametrize("slow", ["kernel", "built-in"])
def test_a_model_takes_what_is_faster_by_the_real_clock(
    slow: str, mac: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock runs while mx.compile traces the model."""
    texts, calls = ["Some words.", "More."], []
    expected = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu").encode(texts)
    monkeypatch.setattr(tune, "measure", mac.by_the_clock)
    monkeypatch.setattr(backends, "QUICK", 0.001)

    def way(name: str) -> Callable[..., mx.array]:
        def run(*arguments: Any, **options: Any) -> mx.array:
            calls.append(name)
            found = reference_attention(*arguments, **options)
            if name == slow:
                y = mx.ones((400, 400))
                for _ in range(30):
                    y = mx.tanh(y @ y)
                found = found + 0 * y.max()
            return found

        return run

    monkeypatch.setattr(metal, "attention", way("kernel"))
    module = import_module("custom_kernels.attention")
    op = replace(module.ATTENTION, builtins=lambda variant: {"built-in": way("built-in")})
    monkeypatch.setattr(module, "ATTENTION", op)
    model = EmbeddingModel.from_pretrained(DATA / "tiny-bert", device="cpu", engine="graph")
    assert np.allclose(model.encode(texts), expected, atol=1e-5)
    last = calls[-1]
    assert last == {"kernel": "built-in", "built-in": "kernel"}[slow]
    before = len(calls)
    assert np.allclose(model.encode(texts), expected, atol=1e-5)
    assert len(calls) == before, "the graph is traced, and the choice made"


def test_tune_without_a_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "accelerator", lambda: None)
    assert cli.main(["tune"]) == 0
    assert "nothing to tune" in capsys.readouterr().out


@pytest.mark.parametrize("backend", ["metal", "cuda"])
def test_tune(mac: Machine, backend: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for op, reference in REFERENCES.items():
        monkeypatch.setattr(f"custom_kernels.cuda.{op}", reference)
    monkeypatch.setattr(device, "accelerator", lambda: backend)
    monkeypatch.setattr(tuning, "default_backend", lambda: backend)
    monkeypatch.setattr(tuning, "prepare_accelerator", lambda: None)
    monkeypatch.setattr(mx, "gpu", mx.cpu)
    wanted = [c for c in tuning.classes() if c[0].name in REFERENCES and not c[2].many][:6]
    monkeypatch.setattr(tuning, "classes", lambda: wanted)
    mac.seconds["built-in"] = 1e-4
    assert cli.main(["tune"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(wanted) + 1
    for (op, variant, load), line in zip(wanted, lines, strict=False):
        assert line.startswith(op.name)
        assert f"{variant}, {load}" in line
        assert "kernel 1,000 us" in line
    assert mac.timed == [op.name for op, _, _ in wanted]
    assert tune.cache_file().exists() == (backend == "metal")
    # What was tuned is not timed again.
    op, variant, load = wanted[0]
    mac.timed.clear()
    chosen = op.pick(None, variant, load)
    assert not mac.timed or backend == "cuda"
    assert (chosen is op.builtin(variant)) or backend == "cuda"
