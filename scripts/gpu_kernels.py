"""The sides of `bench_gpu.py` that time kernels by themselves, beside MLX's own ops and cuBLAS."""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

NORMS = [(3, 384), (64, 384), (1024, 384), (16384, 384), (131072, 384), (131072, 768)]
# Rows, inputs, outputs and activation of products in float32.
FLOATS = [
    (rows, *layer)
    for rows in (1024, 4096, 32768, 131072)
    for layer in ((384, 1152, None), (384, 1536, "gelu"), (1536, 384, None), (768, 3072, "gelu"), (3072, 768, None))
]
HEADS = 12
LENGTHS = {
    "4096 x 16": [16] * 4096,
    "1024 x 128": [128] * 1024,
    "128 x 512": [512] * 128,
    "512 ragged, 8 to 256": [int(n) for n in np.random.default_rng(0).integers(8, 257, size=512)],
    "128 ragged, 300 to 700": [int(n) for n in np.random.default_rng(0).integers(300, 701, size=128)],
    "16 ragged, 1000 to 8000": [int(n) for n in np.random.default_rng(0).integers(1000, 8001, size=16)],
    "8 x 8192": [8192] * 8,
}
Figures = dict[str, float]


def median(run: Callable[[], Any], rounds: int = 7) -> float:
    """Seconds of one run, the median of `rounds` after a quarter as many, and at least two, that do not count."""
    warm_up = max(2, rounds // 4)
    seconds = []
    for _ in range(warm_up + rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[warm_up:])


def copy_side(work: Path, options: argparse.Namespace) -> Figures:
    import torch

    source = torch.randn(2**28, device="cuda", dtype=torch.float16)
    target = torch.empty_like(source)

    def copy() -> None:
        for _ in range(10):
            target.copy_(source)
        torch.cuda.synchronize()

    return {"device copy, GB/s read and written": source.nbytes * 20 / median(copy) / 1e9}


def random(*shape: int) -> Any:
    import mlx.core as mx

    return mx.random.normal(shape).astype(mx.float16)


def kernels_side(work: Path, _: argparse.Namespace) -> Figures:
    import mlx.core as mx

    from custom_kernels import activate, attention, gelu, layer_norm

    def each(ways: dict[str, Callable[[], Any]], number: int) -> Figures:
        """Microseconds of one of `number` ops, all ways in turns: a graph is built before the clock starts."""
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(11):
            for name, build in ways.items():
                graph = build()
                mx.synchronize()
                start = time.perf_counter()
                mx.eval(graph)
                seconds[name].append(time.perf_counter() - start)
                del graph
        return {name: statistics.median(found[2:]) / number * 1e6 for name, found in seconds.items()}

    def chain(x: mx.array, op: Callable[[mx.array], mx.array], number: int = 50) -> Callable[[], mx.array]:
        def build() -> mx.array:
            y = x
            for _ in range(number):
                y = op(y)
            return y

        return build

    figures: Figures = {}
    for rows, width in NORMS:
        x, residual, weight, bias = random(rows, width), random(rows, width), random(width), random(width)
        mx.eval(x, residual, weight, bias)
        ways = {}
        for name, backend in (("built-in", "fast"), ("kernel", "cuda"), ("as chosen", None)):
            options = {"weight": weight, "bias": bias, "eps": 1e-12, "backend": backend}
            ways[name] = chain(x, partial(layer_norm, **options))
            ways[f"{name}, residual"] = chain(x, partial(layer_norm, residual=residual, **options))
        for name, took in each(ways, 50).items():
            figures[f"LayerNorm [{rows}, {width}] {name}, us"] = took
            if rows >= 131072:
                moved = x.nbytes * (3 if "residual" in name else 2)
                figures[f"LayerNorm [{rows}, {width}] {name}, GB/s"] = moved / took / 1e3
    for head_dim in (32, 64, 128):
        for name, lengths in LENGTHS.items():
            number = 60 if max(lengths) <= 512 else 10
            cu_seqlens = mx.array(np.cumsum([0, *lengths]).astype(np.int32))
            n, longest, total, scale = len(lengths), max(lengths), sum(lengths), head_dim**-0.5
            qkv = random(total, 3 * HEADS * head_dim)
            block = random(n, longest, 3, HEADS, head_dim)
            valid = mx.arange(longest) < (cu_seqlens[1:] - cu_seqlens[:-1])[:, None]
            mask = mx.where(valid, 0.0, -3e4).astype(mx.float16)[:, None, None, :]
            mx.eval(qkv, block, mask)
            mask = None if total == n * longest else mask

            def builtin(
                block: Any = block, mask: Any = mask, scale: float = scale, number: int = number
            ) -> list[mx.array]:
                """Rows of all heads beside each other in and out, as `attention` has them."""
                results = []
                for _ in range(number):
                    q, k, v = block.transpose(2, 0, 3, 1, 4)
                    heads = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
                    results.append(heads.transpose(0, 2, 1, 3).reshape(-1, HEADS * block.shape[-1]))
                return results

            def packed(
                backend: str | None, a: Any = (qkv, cu_seqlens, HEADS, scale), m: int = longest, number: int = number
            ) -> list[mx.array]:
                return [attention(*a, max_seqlen=m, backend=backend) for _ in range(number)]

            ways = {
                f"mx.fast{'' if mask is None else ' with mask'}": builtin,
                "kernel": partial(packed, "cuda"),
                "as chosen": partial(packed, None),
            }
            for way, took in each(ways, number).items():
                figures[f"attention {head_dim}, {name}: {way}, us"] = took
    x = random(131072, 1536)
    mx.eval(x)
    ways = {
        "compiled by MLX": chain(x, mx.compile(gelu), 10),
        "kernel": chain(x, partial(activate, act="gelu", backend="cuda"), 10),
    }
    for name, took in each(ways, 10).items():
        figures[f"GELU [131072, 1536] {name}, GB/s"] = x.nbytes * 2 / took / 1e3
    return figures


def layer_norm_side(work: Path, _: argparse.Namespace) -> Figures:
    """LayerNorm in float32, 384 wide, without a residual: one call with its wait, and one in a chain."""
    import mlx.core as mx

    from custom_kernels import cuda, layer_norm

    weight, bias = (random(384).astype(mx.float32) for _ in range(2))
    ways: dict[str, Callable[[mx.array], mx.array]] = {
        "mx.fast": lambda x: mx.fast.layer_norm(x, weight, bias, 1e-12),
        "mx.fast through the op": lambda x: layer_norm(x, weight, bias, 1e-12, backend="fast"),
        "kernel": lambda x: cuda.layer_norm(x, weight, bias, 1e-12),
        "as chosen": lambda x: layer_norm(x, weight, bias, 1e-12),
        "as chosen in models": lambda x: layer_norm(x, weight, bias, 1e-12, in_graph=True),
    }
    figures: Figures = {}
    for rows in (3, 1024, 8192, 16384, 32768, 65536, 98304, 131072):
        x = random(rows, 384).astype(mx.float32)
        mx.eval(x, weight, bias)
        seconds: dict[str, list[float]] = {f"{name}, {how}": [] for how in ("alone", "in a chain") for name in ways}
        for turn in range(23):
            for name, way in list(ways.items())[:: 1 if turn % 2 else -1]:
                mx.synchronize()
                start = time.perf_counter()
                for _ in range(10):
                    mx.eval(way(x))
                seconds[f"{name}, alone"].append((time.perf_counter() - start) / 10)
                y = x
                for _ in range(50):
                    y = way(y)
                start = time.perf_counter()
                mx.eval(y)
                seconds[f"{name}, in a chain"].append((time.perf_counter() - start) / 50)
        for name, found in seconds.items():
            figures[f"LayerNorm [{rows}, 384] {name}, us"] = statistics.median(found[3:]) * 1e6
    return figures


def products_side(work: Path, _: argparse.Namespace) -> Figures:
    """A layer's products with what follows them: MLX's ops and this package's other kernels, and in one launch."""
    import mlx.core as mx

    from custom_kernels import Linear, cuda, lay_out_linear
    from custom_kernels.ops.linear import builtin_linear
    from custom_kernels.ops.output_norm import builtin_output_norm

    def each(run: Callable[[], mx.array], number: int = 20) -> float:
        """Microseconds of one of `number` ops, each of which may reuse the memory of the one before."""

        def all_of_them() -> None:
            for _ in range(number):
                mx.async_eval(run())
            mx.synchronize()

        return median(all_of_them, 9) / number * 1e6

    figures: Figures = {}
    for rows, inputs, outputs, act in FLOATS:
        x, weight, bias = (random(*s).astype(mx.float32) for s in ((rows, inputs), (outputs, inputs), (outputs,)))
        weight = weight * inputs**-0.5
        mx.eval(x, weight, bias)
        plain, laid_out = Linear(weight, bias), Linear(weight, bias, lay_out_linear(weight))
        label = f"float32 [{rows}, {inputs}] to {outputs}{'' if act is None else ' and GELU'}"
        figures[f"{label}: separate, us"] = each(partial(builtin_linear, x, plain, act), 5)
        figures[f"{label}: one launch, us"] = each(partial(cuda.linear, x, laid_out, act), 5)
    for rows, width in ((4096, 384), (32768, 384), (131072, 384), (4096, 768), (32768, 768), (131072, 768)):
        x, residual, norm = random(rows, width), random(rows, width), random(width)
        for name, outputs, act in (("", 3 * width, None), (" and GELU", 4 * width, "gelu")):
            weight, bias = random(outputs, width) * width**-0.5, random(outputs)
            mx.eval(x, residual, norm, weight, bias)
            plain, laid_out = Linear(weight, bias), Linear(weight, bias, lay_out_linear(weight))
            label = f"[{rows}, {width}] to {outputs}{name}"
            figures[f"{label}: separate, us"] = each(partial(builtin_linear, x, plain, act))
            figures[f"{label}: one launch, us"] = each(partial(cuda.linear, x, laid_out, act))
        if width == 384:
            weight, bias = random(width, width) * width**-0.5, random(width)
            mx.eval(weight, bias)
            plain, laid_out = Linear(weight, bias), Linear(weight, bias, lay_out_linear(weight))
            rest, label = (residual, norm, norm, 1e-12), f"[{rows}, {width}] to {width} and LayerNorm"
            figures[f"{label}: separate, us"] = each(partial(builtin_output_norm, x, plain, *rest))
            figures[f"{label}: one launch, us"] = each(partial(cuda.output_norm, x, laid_out, *rest))
    return figures
