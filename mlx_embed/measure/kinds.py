"""The comparison of the ways to compute a sparse or a late-interaction model: vectors and latency."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from custom_kernels import cpu
from custom_kernels.arrays import spelled
from mlx_embed.engine.device import accelerator
from mlx_embed.kinds import SPARSE, cosines, rows
from mlx_embed.measure.timing import interleaved
from mlx_embed.multi_vector_encoder import MultiVectorEncoder
from mlx_embed.sparse_encoder import SparseEncoder

# Documents that are encoded at a time, beside one query.
BATCHES = (1, 10, 50)
# By dtype, the lowest cosine to MLX's own ops in float32 that passes; int8 changes some weights of tokens a lot.
LEAST = {"float32": 0.99999, "float16": 0.999, "bfloat16": 0.99, "int8": 0.9}
BASE = "MLX's own ops"


@dataclass(frozen=True)
class SideReport:
    """One way to compute.

    Attributes:
        name: of the engine and what it computes in.
        dtype: that.
        min_cosine: the lowest of a text's rows with those of MLX's own ops.
        seconds: the median, by what is encoded.
    """

    name: str
    dtype: str
    min_cosine: float
    seconds: Mapping[str, float]

    @property
    def agrees(self) -> bool:
        """Whether it computes the same."""
        return self.min_cosine >= LEAST[self.dtype]


@dataclass(frozen=True)
class KindReport:
    """What `compare_kind` found: the sides, MLX's own ops first."""

    model: str
    kind: str
    sides: tuple[SideReport, ...]

    @property
    def failures(self) -> list[str]:
        """What does not agree."""
        return [
            f"{side.name}: the lowest cosine is {side.min_cosine:.6f}, below {LEAST[side.dtype]}"
            for side in self.sides
            if not side.agrees
        ]

    def as_text(self) -> str:
        """The report as lines."""
        lines = [f"{self.model}, a {self.kind}", ""]
        width = max(len(side.name) for side in self.sides)
        heads = list(self.sides[0].seconds)
        lines.append(f"{'':{width}}  lowest cosine  " + "  ".join(f"{head:>14}" for head in heads))
        for side in self.sides:
            times = "  ".join(f"{side.seconds[head] * 1e3:>11.1f} ms" for head in heads)
            lines.append(f"{side.name:{width}}  {side.min_cosine:>13.6f}  {times}")
        lines += ["", *(f"FAILED: {failure}" for failure in self.failures)]
        lines.append("Verdict: " + ("the ways disagree." if self.failures else "all ways agree."))
        return "\n".join(lines)

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(asdict(self) | {"failures": self.failures}, indent=2)


def compare_kind(kind: str, model: str | Path, texts: Sequence[str], dtype: str | None = None) -> KindReport:
    """Compare vectors of the texts, and time a query and documents, each way in turn.

    Args:
        kind: SPARSE or MULTI_VECTOR.
        model: a folder or a repository id.
        texts: repeated in turn where a batch needs more.
        dtype: of the accelerator's side.

    Raises:
        ValueError: no texts.
        MLXEmbedError: the model cannot be loaded.
    """
    if not texts:
        raise ValueError("compare needs at least one text.")
    sides = _load(kind, model, dtype)
    base = rows(kind, sides[BASE], texts)
    seconds: dict[str, dict[str, float]] = {name: {} for name in sides}
    for count in (0, *BATCHES):
        head = "a query" if not count else f"{count} document{'s' * (count > 1)}"
        works = {
            name: partial(side.encode_query if not count else side.encode_document, _some(texts, count or 1))
            for name, side in sides.items()
        }
        for name, timing in interleaved(works).items():
            seconds[name][head] = timing.seconds
    found = [
        SideReport(name, spelled(side.engine.dtype), _least(base, rows(kind, side, texts)), seconds[name])
        for name, side in sides.items()
    ]
    named = "sparse model" if kind == SPARSE else "late-interaction model"
    return KindReport(sides[BASE].name, named, tuple(found))


def _least(base: list[Any], other: list[Any]) -> float:
    return float(np.concatenate([cosines(a, b) for a, b in zip(base, other, strict=True)]).min())


def _load(kind: str, model: str | Path, dtype: str | None) -> dict[str, Any]:
    made: Any = SparseEncoder if kind == SPARSE else MultiVectorEncoder
    sides = {BASE: made.from_pretrained(model, device="cpu", engine="reference")}
    if cpu.available():
        for narrow in ("float32", "bfloat16", "int8"):
            if cpu.product(narrow):
                side = made.from_pretrained(model, device="cpu", dtype=narrow, engine="native")
                sides[f"native kernels, {narrow}"] = side
    if here := accelerator():
        sides[here] = made.from_pretrained(model, device="gpu", dtype=dtype)
    return sides


def _some(texts: Sequence[str], count: int) -> list[str]:
    return list(islice(cycle(texts), count))
