"""The source that MLX generates for the Metal kernels."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import mlx
import mlx.core as mx
import pytest

import custom_kernels
from custom_kernels import metal
from custom_kernels.choice.op import FEW
from custom_kernels.metal.attention import rotating_attention
from custom_kernels.metal.launch import MATRICES, RUNS, kernel_source, shared_source
from custom_kernels.parameters import Linear, Rotation
from tests.custom_kernels.conftest import OP, starts
from tests.metal import clang
from tests.metal.emulation import emulated_metal, unavailable
from tests.metal.launches import DTYPES, generated_sources
from tests.metal.primitives import launches

GENERATE = """
import sys
import mlx.core as mx
from custom_kernels.metal import layer_norm

build = mx.fast.metal_kernel
def verbose(**options):
    kernel = build(**options)
    return lambda **call: kernel(verbose=True, **call)
mx.fast.metal_kernel = verbose
x = mx.zeros((4, int(sys.argv[1])), dtype=mx.float16)
w = mx.ones((x.shape[1],), dtype=mx.float16)
def norm(x, w):
    return layer_norm(x, w, w, 1e-5, x if sys.argv[2] == "1" else None)
mx.export_function(lambda *_: None, norm, x, w)
"""


def generated_metal(width: int, residual: bool) -> str:
    """The Metal source that MLX makes of the kernel, printed without a Mac."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", GENERATE, str(width), str(int(residual))]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout


@pytest.mark.skipif(mx.cuda.is_available(), reason="MLX's CUDA build makes no Metal source")
@pytest.mark.parametrize(("width", "reads", "residual"), [(384, 4, False), (768, 4, True), (8192, 16, True)])
def test_generated_metal_source(width: int, reads: int, residual: bool) -> None:
    source = generated_metal(width, residual)
    assert source.isascii()
    body = kernel_source("layer_norm")
    assert body in source, "the shipped body is what is compiled"
    for parameter in (
        "const device float16_t* x [[buffer(0)]]",
        "const device float16_t* residual [[buffer(1)]]",
        "const device float16_t* weight [[buffer(2)]]",
        "const device float16_t* bias [[buffer(3)]]",
        "const constant float* eps [[buffer(4)]]",
        "device float16_t* out [[buffer(5)]]",
        "uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]]",
        "uint3 thread_position_in_threadgroup [[thread_position_in_threadgroup]]",
        "uint thread_index_in_simdgroup [[thread_index_in_simdgroup]]",
        "uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]]",
        "uint simdgroups_per_threadgroup [[simdgroups_per_threadgroup]]",
        "template <typename T, int WIDTH, int READS, bool HAS_RESIDUAL, bool HAS_BIAS>",
        f"<float16_t, {width}, {reads}, {int(residual)}, 1>",
    ):
        assert parameter in source
    assert body.count("{") == body.count("}")
    assert source.count("threadgroup_barrier") == 2


@pytest.mark.parametrize("backend", ["metal", "cuda"])
def test_sources_are_ascii(backend: str) -> None:
    """MLX and NVRTC are given them as such."""
    folder = Path(custom_kernels.__file__).parent / backend
    files = [path for path in folder.rglob("*") if path.suffix in (".metal", ".cu", ".cuh")]
    assert len(files) >= 6
    for path in files:
        assert path.read_bytes().isascii(), path


@pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
@pytest.mark.parametrize("dtype", DTYPES)
def test_sources_are_of_all_kernels_and_their_names_are_words(dtype: mx.Dtype) -> None:
    """What is no word, such as the minus sign of a template's number, does not compile as a function's name."""
    names = generated_sources(dtype)
    assert {name for name in names if not re.fullmatch(r"\w+", name)} == set()
    assert {kernel for kernel in metal.__all__ if not any(f"kernel_{kernel}_" in name for name in names)} == set()


@pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
def test_sources_are_of_each_form_of_a_kernel() -> None:
    """Each choice that a template has is made both ways, and each number that stands for a form is there."""
    forms: dict[tuple[str, str], set[str]] = {}
    for name, source in generated_sources(mx.float16).items():
        kernel = max((one for one in metal.__all__ if name.startswith(f"custom_kernel_{one}_")), key=len)
        if template := re.search(r"^template <([^<>]*)>\s*\[\[kernel\]\]", source, re.M):
            values = re.findall(r"decltype\(\w+<(.*)>\)", source)[0].split(", ")
            for parameter, value in zip(template[1].split(", "), values, strict=True):
                forms.setdefault((kernel, parameter), set()).add(value)
    choices = {key: values for key, values in forms.items() if key[1].startswith("bool")}
    assert choices.pop(("rms_norm", "bool HALF")) == {"1"}, "of float16"
    assert len(choices) >= 12
    assert {key: values for key, values in choices.items() if values != {"0", "1"}} == {}
    assert forms["activate", "int GATE"] == {"0", "1", "2"}
    assert forms["activate", "int ACTIVATION"] == {"0", "1", "2", "3"}
    assert forms["embedding_norm", "int LOOKUPS"] == {"1", "2", "3"}


@pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
@pytest.mark.skipif(clang.unavailable() is not None, reason=clang.unavailable() or "")
@pytest.mark.parametrize("dtype", DTYPES)
def test_clang_takes_the_sources_as_they_are_and_keeps_nothing_on_the_stack(dtype: mx.Dtype) -> None:
    sources = generated_sources(dtype)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(sources, pool.map(clang.faults, sources.values()), strict=True))
    assert {name: fault for name, fault in found.items() if fault} == {}


@pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
def test_nothing_is_launched_for_what_an_op_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch takes something that is there already in the place of an array that is absent, and makes none."""
    x, weight, angles = mx.zeros((9, 96)), mx.zeros((96,)), mx.zeros((9, 16))
    few, layer = mx.zeros((9, 64)), Linear(mx.zeros((8, 64)))
    ids, places = mx.zeros((9,), dtype=mx.int32), starts([5, 4])
    turn = Rotation(ids, angles, angles)
    mx.eval(x, weight, angles, few, layer.weight, ids)
    ops: dict[str, Callable[[mx.array], mx.array]] = {
        "activate": partial(metal.activate, act="relu"),
        "attention": lambda x: metal.attention(x, places, 1, 0.2, max_seqlen=5),
        "attention and rope": lambda x: metal.attention(x, places, 1, 0.2, None, turn, max_seqlen=5),
        "rotating attention": lambda x: rotating_attention(x, places, 1, 0.2, None, turn, max_seqlen=5),
        "embedding_norm": lambda x: metal.embedding_norm([(x, ids)], None, None, 1e-5),
        "layer_norm": lambda x: metal.layer_norm(x, weight, None, 1e-5),
        "linear": lambda x: metal.linear(few, layer, None),
        "max_sim": lambda x: metal.max_sim(x, places, x, places),
        "mean_pool": lambda x: metal.mean_pool(x, places),
        "position_ids": lambda x: metal.position_ids(places, 9),
        "rms_norm": lambda x: metal.rms_norm(x, weight, 1e-5),
        "top_k_scores": lambda x: metal.top_k_scores(x, x, 3),
    }
    # The sort that follows is of MLX's ops.
    monkeypatch.setattr(sys.modules["custom_kernels.metal.top_k_scores"], "best", lambda scores, places, k: scores)
    found = {name: launches(op, x) for name, op in ops.items()}
    more = {name: count for name, count in found.items() if count != {"CustomKernel": 1}}
    # A split is a look at either part.
    assert more == {"attention and rope": {"CustomKernel": 2}, "top_k_scores": {"CustomKernel": 1, "Split": 1}}


def mlx_headers() -> str:
    """What MLX puts before a kernel's source, which its wheels carry."""
    root, text, seen = Path(next(iter(mlx.__path__))) / "include", "", ["mlx/backend/metal/kernels/utils.h"]
    for name in seen:
        header = (root / name).read_text(encoding="utf-8")
        seen += [found for found in re.findall(r'#include "(.*?)"', header) if found not in seen]
        text += re.sub(r"//.*", "", header)
    return text


@pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
def test_names_are_not_those_of_what_stands_before() -> None:
    """A macro of MLX's would replace a name of ours, and a function or type of its would be declared twice."""
    theirs = mlx_headers()
    assert "struct Limits" in theirs
    assert len(theirs) > 20_000
    sources = "".join(re.sub(r"//.*", "", source) for source in generated_sources(mx.float16).values())
    words = set(re.findall(r"\b[A-Za-z_]\w*\b", sources))
    macros = set(re.findall(r"#define\s+(\w+)", theirs))
    assert {"instantiate_kernel", "MTL_CONST"} <= macros
    assert words & macros == set()
    shared = MATRICES + RUNS + shared_source("activations") + shared_source("normalise")
    ours = set(re.findall(r"^(?:struct|METAL_FUNC \w+) (\w+)", shared, re.M))
    assert ours == {"Elements", "run_at", "activation", "normalise"}
    assert ours & set(re.findall(r"\w+", theirs)) == set()


@pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
@pytest.mark.parametrize(
    ("op", "array"),
    [
        ("attention", "cu_seqlens"),
        ("embedding_norm", "ids0"),
        ("linear_max", "cu_seqlens"),
        ("max_sim", "document_starts"),
        ("max_sim", "query_starts"),
        ("mean_pool", "cu_seqlens"),
        ("position_ids", "cu_seqlens"),
        ("rope", "positions"),
        ("top_k_scores", "scales"),
    ],
)
def test_what_is_checked_are_both_kernels_that_a_short_array_makes(op: str, array: str) -> None:
    variants = [variant for variant, _ in OP[op].typical("metal")]
    with emulated_metal(run=False) as sources:
        for load in (None, FEW):
            arguments, options = OP[op].sample(variants[-1], load)
            OP[op].kernels["metal"](*arguments, **options)
    spaces = {space for source in sources for space in re.findall(rf"const (\w+) \w+\* {array} ", source)}
    assert spaces == {"device", "constant"}
