"""The choice between kernel and MLX's own ops where the user's machine decides: Metal, played by functions.

The tests of tune.py have the clock; here the wiring is real, from the public op to the file, and the seconds are told.
"""

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import attention, embedding_norm, layer_norm, mean_pool, use_kernels
from custom_kernels.choice import op, tune
from custom_kernels.choice.op import Arguments, Load
from custom_kernels.choice.serving import serving
from custom_kernels.ops.attention import reference_attention
from custom_kernels.ops.layer_norm import LAYER_NORM, reference_layer_norm
from tests.custom_kernels.conftest import OP, Machine, random, rotation, starts

PADDED = "built-in, heads padded to 64"


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


@pytest.mark.parametrize("winner", ["kernel", "rotating kernel"])
def test_a_second_kernel_is_timed_too(mac: Machine, winner: str) -> None:
    mac.monkeypatch.delitem(OP["rope"].kernels, "metal")
    lengths, turn = [4, 7], rotation([4, 7], 32)

    def attend_rotated() -> None:
        attention(random(11, 192), starts(lengths), 2, 0.2, None, turn, max_seqlen=7)

    with serving():
        attend_rotated()
    assert not mac.timed, "while somebody waits"
    mac.seconds[winner] = 1e-4
    attend_rotated()
    mac.kernels.clear()
    attend_rotated()
    assert mac.kernels == ["attention" if winner == "kernel" else "rotating attention"]


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
    monkeypatch.setattr("custom_kernels.choice.machine.mlx_version", lambda: "99.0")
    attend()
    assert mac.timed == ["attention"], "another version of MLX"


def test_nothing_is_made_for_times_that_are_known(mac: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Load | None] = []

    def sample(variant: Any, load: Load | None) -> Arguments:
        made.append(load)
        return LAYER_NORM.sample(variant, load)

    monkeypatch.setattr("custom_kernels.ops.layer_norm.LAYER_NORM", replace(LAYER_NORM, sample=sample))
    normalise()
    assert None in made, "to be compared"
    assert Load.of(6) in made, "to be timed"
    mac.restart()
    made.clear()
    normalise()
    assert not made


@pytest.mark.parametrize("few", [True, False])
def test_a_kernel_is_checked_with_few_texts_and_with_many(mac: Machine, few: bool) -> None:
    """MLX makes another kernel of an array of fewer than 8 elements: either may be wrong."""
    reference = OP["mean_pool"].reference

    def kernel(hidden: mx.array, cu_seqlens: mx.array, *rest: Any) -> mx.array:
        return reference(hidden, cu_seqlens, *rest) * (2 if (cu_seqlens.size < 8) == few else 1)

    mac.ship("mean_pool", kernel)
    with pytest.warns(RuntimeWarning, match="metal kernel of mean_pool is switched off"):
        mean_pool(random(9, 8), starts([9]))


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
        if len(x) > 1000:
            raise RuntimeError("out of memory")
        return reference_layer_norm(x, *rest)

    monkeypatch.setattr(tune, "measure", mac.by_the_clock)
    mac.ship("layer_norm", fails_on_many)
    with pytest.warns(UserWarning, match="kernel does not compute layer_norm here: out of memory"):
        normalise(1200)
    mac.kernels.clear()
    normalise(1200)
    assert not mac.kernels


@pytest.mark.parametrize("how", ["environment", "argument", "backend", "cuda"])
def test_nothing_is_timed_where_nothing_is_chosen(mac: Machine, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mac.seconds["kernel"] = 1e-6
    x, w = random(6, 32), random(32)
    switch: AbstractContextManager[None] = nullcontext()
    if how == "environment":
        monkeypatch.setenv("MLX_EMBED_KERNELS", "reference")
    elif how == "argument":
        switch = use_kernels(False)
    elif how == "cuda":
        monkeypatch.setattr(op, "default_backend", lambda: "cuda")
        monkeypatch.setitem(LAYER_NORM.kernels, "cuda", lambda *arguments: reference_layer_norm(*arguments))
    with switch:
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


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_run_of_a_chain_needs_the_one_before(dtype: str) -> None:
    """Or it could run at the same time. What it computes stays the same, whatever came before, NaN included."""
    variant = next(v for v, _ in LAYER_NORM.typical(None) if v.x == getattr(mx, dtype))
    (run,) = LAYER_NORM.runs({"way": LAYER_NORM.reference}, variant, Load.of(2)).values()
    first = run(None)
    for value in (0, -3, mx.nan, mx.inf):
        assert (run(mx.full((3, 5), value, dtype=first.dtype)) == first).all()
    events: list[dict[str, Any]] = []
    mx.export_function(events.append, run, first)
    (given,) = (name for event in events if event["type"] == "inputs" for name, *_ in event["inputs"])
    read = {name for event in events if event["type"] == "primitive" for name, *_ in event["inputs"]}
    assert given in read


def test_nothing_is_found_out_while_somebody_waits(mac: Machine) -> None:
    """What was found out before holds, and what was not is computed without."""
    mac.seconds["kernel"] = 1e-4
    normalise()
    assert mac.timed == ["layer_norm"]
    mac.kernels.clear()
    with serving():
        normalise()
        assert mac.kernels == ["layer_norm"], "found out before"
        normalise(5000)
        assert mac.kernels == ["layer_norm"] * 2, "not timed, but known to be right"
        normalise(residual=True)
        attend()
    assert mac.kernels == ["layer_norm"] * 2, "not known to be right"
    assert mac.timed == ["layer_norm"]
    normalise(residual=True)
    assert mac.timed == ["layer_norm"] * 2


def test_a_process_serves_with_what_another_found_right(mac: Machine) -> None:
    mac.seconds["kernel"] = 1e-4
    normalise()
    mac.restart()
    mac.kernels.clear()
    with serving():
        normalise()
    assert mac.kernels == ["layer_norm"]
    assert not mac.timed
