"""The kernel launches of one forward pass on CUDA, counted exactly: in the CUDA graphs that MLX writes out.

MLX reads MLX_SAVE_CUDA_GRAPHS_DOT_FILE once, so a process of its own does the counting: this module, run as a script,
with {"folder", "dtype", "texts", "engine"} as JSON on stdin and {kernel name: launches} on stdout.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx

from custom_kernels.arrays import spelled
from custom_kernels.cuda.ahead import under_way
from mlx_embed.embedding_model import EmbeddingModel

PREFIX = "MLX_SAVE_CUDA_GRAPHS_DOT_FILE"
# The nodes of cudaGraphDebugDotPrint without flags: a kernel is an octagon and has its name on the label's second
# line; a child graph, such as cuBLAS's or cuDNN's, is a rectangle with the name of a cluster. With the verbose flag a
# kernel is a record.
_GRAPH = re.compile(r'^\s*label="(graph_\d+)"', re.MULTILINE)
_NODE = re.compile(r'^\s*"graph_\d+_node_\d+"\s*\[[^\]"]*"[^"]*"\s*shape="(\w+)"\s*label="([^"]*)"', re.MULTILINE)
_VERBOSE = re.compile(r"\{KERNEL\s*\|\s*\{ID \| [^|]* \| ([^}]*)\}")

# Seconds for kernels that are being compiled, in whose place MLX's own run until they are there.
COMPILING = 60.0


def count_launches(
    folder: Path, dtype: mx.Dtype, texts: Sequence[str], *, kernels: bool, timeout: float | None = None
) -> Counter[str]:
    """The launches of each kernel in one forward pass over `texts` as one batch, on CUDA, after two to warm up.

    Args:
        folder: the checkpoint's.
        dtype: to compute in.
        texts: at least one.
        kernels: False for MLX's own ops alone.
        timeout: seconds to wait.

    Raises:
        RuntimeError: the process fails, writes no graphs, or takes longer.
    """
    engine = "graph" if kernels else "reference"
    job = {"folder": str(folder), "dtype": spelled(dtype), "texts": list(texts), "engine": engine}
    with tempfile.TemporaryDirectory() as dumps:
        environment = os.environ | {PREFIX: str(Path(dumps) / "graph"), "MLX_USE_CUDA_GRAPHS": "1"}
        try:
            run = subprocess.run(
                [sys.executable, "-m", "mlx_embed.measure.launches"],
                input=json.dumps(job),
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as expired:
            waited = f"The process that counts launches took more than {expired.timeout:.0f} s"
            raise RuntimeError(f"{waited}, most likely to compile; MLX keeps that for the next run.") from None
    if run.returncode:
        raise RuntimeError(f"The process that counts launches failed: {run.stderr.strip()[-500:]}")
    return Counter(json.loads(run.stdout.splitlines()[-1]))


def kernels_in(dot: str) -> Counter[str]:
    """The launches of each kernel in one graph that cudaGraphDebugDotPrint has written, child graphs included."""
    _, *parts = _GRAPH.split(dot)
    graphs = {name: _NODE.findall(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}
    children = {_second_line(label) for nodes in graphs.values() for shape, label in nodes if shape == "rectangle"}
    found: Counter[str] = Counter()

    def add(graph: str) -> None:
        for shape, label in graphs[graph]:
            if shape == "octagon":
                found[_name(_second_line(label))] += 1
            elif shape == "record" and (verbose := _VERBOSE.match(label)):
                found[_name(verbose[1])] += 1
            elif shape == "rectangle" and _second_line(label) in graphs:
                add(_second_line(label))

    for graph in graphs:
        if graph not in children:
            add(graph)
    return found


def _second_line(label: str) -> str:
    return "".join(label.splitlines()[1:2]).strip()


def _name(text: str) -> str:
    """Without the launch's sizes."""
    return text.split("\\<")[0].strip()


def _main() -> None:
    job, prefix = json.load(sys.stdin), Path(os.environ[PREFIX])
    model = EmbeddingModel.from_pretrained(job["folder"], device="cuda", dtype=job["dtype"], engine=job["engine"])
    engine, head = model.engine, model.head()
    batch = next(engine.batches(model.tokenizer(job["texts"]).ids, 2**30))

    def dumps() -> set[Path]:
        return set(prefix.parent.glob(f"{prefix.name}_*.dot"))

    list(engine.run([batch], head))
    under_way(COMPILING)
    list(engine.run([batch], head))
    before = dumps()
    list(engine.run([batch], head))
    found: Counter[str] = Counter()
    for path in dumps() - before:
        found += kernels_in(path.read_text())
    if not found:
        raise RuntimeError("MLX wrote no CUDA graph of the forward pass.")
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
