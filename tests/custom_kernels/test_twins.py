"""Every op of OPS by each way that this machine has to compute it, beside its reference."""

import inspect
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

import custom_kernels
from custom_kernels import cpu, twins
from custom_kernels.arrays import as_float32, is_float
from custom_kernels.backends import KERNEL_BACKENDS
from custom_kernels.choice.op import TOLERANCE, Load, Op
from custom_kernels.ops import OPS, short_encoder
from tests.custom_kernels.conftest import exact
from tests.metal.emulation import emulated_metal, unavailable

HOPPER = mx.cuda.is_available() and mx.device_info(mx.gpu)["architecture"] == "sm_90"
# Variants for the op that says nothing of typical ones; its kernel is for 16 bits.
SHORT = [
    short_encoder.Variant(dtype, 96, 64, 2, 3, 1e-5, "gelu", biased, 32)
    for dtype, biased in ((mx.float16, None), (mx.bfloat16, mx.float32))
]


def variants(op: Op) -> list[Any]:
    """What is typical on any back end, each once."""
    found = [variant for backend in (None, *KERNEL_BACKENDS) for variant, _ in op.typical(backend)]
    return list(dict.fromkeys(found)) or SHORT


# Products of as many rows as a GPU's kernels want are slow on a CPU.
GPU = any(getattr(mx, backend).is_available() for backend in KERNEL_BACKENDS)
FEW = {} if GPU else {"linear": Load.of(128), "gated_linear": Load.of(64), "output_norm": Load.of(128)}

CASES = [pytest.param(op, variant, id=f"{op.name}-{i}") for op in OPS for i, variant in enumerate(variants(op))]


def ways(op: Op, variant: Any) -> dict[str, Any]:
    """What this machine can run: MLX's own ways, and its GPU's kernels."""
    found: dict[str, Any] = dict(op.builtins(variant))
    for backend in KERNEL_BACKENDS:
        if getattr(mx, backend).is_available():
            kernel = op.kernels.get(backend)
            found |= {**({} if kernel is None else {backend: kernel}), **op.others.get(backend, {})}
    return found


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_kernel_takes_what_the_op_hands_it(op: Op) -> None:
    """Also those of other machines, where a kernel that does not would be switched off."""
    for variant in variants(op)[:1]:
        arguments, options = op.sample(variant, Load.of(16))
        for kernel in (*op.kernels.values(), *(way for ways in op.others.values() for way in ways.values())):
            inspect.signature(kernel).bind(*arguments, **options)


@pytest.mark.parametrize(("op", "variant"), CASES)
def test_every_way_equals_the_reference(op: Op, variant: Any) -> None:
    arguments, options = op.sample(variant, FEW.get(op.name))
    with mx.stream(mx.cpu):
        expected = op.reference(*tree_map(as_float32, arguments), **options)
        mx.eval(expected)
    dtypes: list[mx.Dtype] = []
    tree_map(lambda x: dtypes.append(x.dtype) if is_float(x) else None, arguments)
    bound = max((TOLERANCE[dtype] for dtype in dtypes), default=0.0) * float(mx.abs(expected).max())
    if set(dtypes) <= {mx.float32} and not mx.cuda.is_available():
        bound = 1e-5 * float(mx.abs(expected).max())
    for name, way in ways(op, variant).items():
        try:
            found = way(*arguments, **options)
        except NotImplementedError:
            assert name not in op.builtins(variant), "a built-in way takes everything"
            wanted = HOPPER and op.name in ("linear", "gated_linear", "output_norm")
            wanted &= op.name != "output_norm" or variant.dtype != mx.float32
            wanted &= getattr(variant, "rows", None) is None  # few rows are for Metal
            assert not wanted or variant.outputs == 768, variant
            continue
        assert found.shape == expected.shape, name
        assert np.abs(exact(found) - exact(expected)).max() <= bound, name


@pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
def test_each_kernel_has_something_to_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Mac runs all of them, and each takes some of the variants, as their sources alone tell."""
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    taken = set()
    with emulated_metal(run=False):
        for op in OPS:
            for variant in variants(op):
                for name, kernel in ways(op, variant).items():
                    if name not in op.builtins(variant) and (op.name, name) not in taken:
                        arguments, options = op.sample(variant, Load.of(16))
                        with suppress(NotImplementedError):
                            kernel(*arguments, **options)
                            taken.add((op.name, name))
    others = {(op.name, name) for op in OPS for name in op.others.get("metal", {})}
    assert len(others) >= 1
    assert taken == {(op.name, "metal") for op in OPS if "metal" in op.kernels} | others


@pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")
@pytest.mark.parametrize(("op", "variant"), [case for case in CASES if twins.native(case.values[0])])
def test_the_native_twin_equals_the_reference(op: Op, variant: Any) -> None:
    native = twins.native(op)
    assert native is not None
    arguments, options = op.sample(variant, FEW.get(op.name))
    whole = tree_map(as_float32, arguments)
    with mx.stream(mx.cpu):
        expected = np.array(op.reference(*whole, **options))
    found = native(*twins.as_native(whole), **options)
    assert isinstance(found, np.ndarray)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


def test_ops_are_found_by_their_names() -> None:
    """One guess: the file, the public function, and the function of every back end that has one."""
    names = [op.name for op in OPS]
    files = (path.stem for path in Path(custom_kernels.ops.__file__).parent.glob("*.py"))
    assert sorted(names) == sorted(set(files) - {"__init__"}), "OPS is the list of them all"
    for op in OPS:
        module = getattr(custom_kernels.ops, op.name)
        assert getattr(module, op.name.upper()) is op
        assert getattr(custom_kernels, op.name) is getattr(module, op.name)
        for backend in KERNEL_BACKENDS:
            assert op.kernels.get(backend) is getattr(getattr(custom_kernels, backend), op.name, None)
    assert {op.name for op in OPS if twins.native(op)} == set(names) - {"activate", "gated_linear", "short_encoder"}


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_a_way_that_differs_would_be_seen(op: Op) -> None:
    """The reference turned a little does not pass the check that kernels have to pass."""
    variant = variants(op)[0]
    reference = op.reference

    def turned(*arguments: Any, **options: Any) -> mx.array:
        found = reference(*arguments, **options)
        return mx.concatenate([found[:-1], found[-1:] * 2 + 1])

    assert op._fault(reference, variant) is None
    assert op._fault(turned, variant)
