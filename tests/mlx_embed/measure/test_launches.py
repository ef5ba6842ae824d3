"""Counting kernels in what cudaGraphDebugDotPrint writes: samples of its format, and the real thing where CUDA is."""

import json
from collections import Counter
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from mlx_embed import EmbeddingModel
from mlx_embed.measure.launches import count_launches, kernels_in
from tests.conftest import DATA

# One kernel, a copy, a fill, and a child graph of two kernels that is launched twice.
PLAIN = r"""digraph dot {
subgraph cluster_1 {
label="graph_1" graph[style="dashed"];
"graph_1_node_0"[style="bold" shape="octagon" label="0
_ZN3mlx4core2cu10layer_normI6__halfLi8EEEvPKT_\<\<\<128,32,0\>\>\>
"];
"graph_1_node_1"[style="solid" shape="record" label="{
MEMCPY
| {{ID | node handle} | {1 (topoId: 1) | 0x000055E7277A5C20}}
}"];
"graph_1_node_2"[style="solid" shape="octagon" label="2
attention
"];
"graph_1_node_3"[style="solid" shape="rectangle" label="3
graph_2
"];
"graph_1_node_4"[style="solid" shape="rectangle" label="4
graph_2
"];
"graph_1_node_5"[style="solid" shape="rectangle" label="5
EMPTY
"];
"graph_1_node_0" -> "graph_1_node_2";
"graph_1_node_2" -> "graph_1_node_3";
}
subgraph cluster_2 {
label="graph_2" graph[style="dashed"];
"graph_2_node_0"[style="bold" shape="octagon" label="0
graph_reduce
"];
"graph_2_node_1"[style="bold" shape="octagon" label="1
sm90_gemm\<\<\<1,128,49152\>\>\>
"];
"graph_2_node_0" -> "graph_2_node_1";
}
}
"""
VERBOSE = r"""digraph dot {
subgraph cluster_1 {
label="graph_1" graph[style="dashed"];
"graph_1_node_0"[style="bold" shape="record" label="{KERNEL
| {ID | 0 (topoId: 3) | mean_pool\<\<\<1,128,0\>\>\>}
| {{node handle | func handle} | {0x000055E7277A5C20 | 0x000055E7270A5A90}}
}"];
"graph_1_node_1"[style="solid" shape="record" label="{
MEMSET
| {{ID | node handle} | {1 (topoId: 2) | 0x000055E7277A6370}}
}"];
"graph_1_node_0" -> "graph_1_node_1" [headlabel=0];
}
}
"""


def test_kernels_are_counted_and_named() -> None:
    layer_norm = "_ZN3mlx4core2cu10layer_normI6__halfLi8EEEvPKT_"
    assert kernels_in(PLAIN) == Counter({layer_norm: 1, "attention": 1, "graph_reduce": 2, "sm90_gemm": 2})


def test_the_verbose_format() -> None:
    assert kernels_in(VERBOSE) == Counter({"mean_pool": 1})


@pytest.mark.parametrize("dot", ["", "digraph dot {\n}\n"])
def test_nothing_to_count(dot: str) -> None:
    assert kernels_in(dot) == Counter()


@pytest.mark.skipif(mx.cuda.is_available(), reason="there is CUDA")
def test_without_cuda_the_error_says_so() -> None:
    with pytest.raises(RuntimeError, match="device 'cuda' was asked for"):
        count_launches(DATA / "tiny-bert", mx.float32, ["A text."], kernels=True)


@pytest.mark.parametrize("kernels", [True, False])
def test_kernels_are_on_where_they_are_asked_for(kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that counts is played by one on the CPU: what it is told to load says whether kernels run."""

    def counting(command: list[str], *, input: str, env: dict[str, str], **_: object) -> SimpleNamespace:
        assert command[1:] == ["-m", "mlx_embed.measure.launches"]
        assert "MLX_SAVE_CUDA_GRAPHS_DOT_FILE" in env
        job = json.loads(input)
        model = EmbeddingModel.from_pretrained(job["folder"], device="cpu", dtype=job["dtype"], engine=job["engine"])
        engine: Any = model.engine
        found = {"on": len(job["texts"])} if engine.kernels else {"off": len(job["texts"])}
        return SimpleNamespace(returncode=0, stdout=f"whatever\n{json.dumps(found)}\n", stderr="")

    monkeypatch.setattr("subprocess.run", counting)
    found = count_launches(DATA / "tiny-bert", mx.float32, ["A text.", "Another."], kernels=kernels)
    assert found == Counter({"on" if kernels else "off": 2})


@pytest.mark.skipif(not mx.cuda.is_available(), reason="MLX finds no cuda device here")
def test_the_kernels_save_launches() -> None:
    texts = ["A text.", "Another one, which is longer."]
    fused, plain = (count_launches(DATA / "tiny-bert", mx.float32, texts, kernels=k) for k in (True, False))
    assert 0 < fused.total() < plain.total()
    assert any("attention" in name for name in fused)


def test_counting_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(RuntimeError, match=r"took more than 0 s, most likely to compile; MLX keeps that"):
        count_launches(DATA / "tiny-bert", mx.float32, ["A text."], kernels=True, timeout=0.01)
