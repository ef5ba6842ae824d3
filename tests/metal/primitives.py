"""What MLX would launch on a Mac, counted in the graph that it traces for an export: which runs nothing."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import pytest

from custom_kernels.choice import op
from custom_kernels.ops import linear

# These only say how the same elements are looked at.
VIEWS = {"Broadcast", "Reshape", "Transpose", "ExpandDims", "Squeeze", "Flatten", "Unflatten", "Slice", "Depends"}


@contextmanager
def kernels_on_metal() -> Iterator[None]:
    """Every op that has a Metal kernel for what it is given is computed by it, unchecked."""

    def fastest(self: op.Op, variant: Any, load: op.Load) -> op.Kernel:
        return self.kernels.get("metal", self.builtin(variant))

    with pytest.MonkeyPatch.context() as patch:
        for module in (op, linear):
            patch.setattr(module, "default_backend", lambda: "metal")
        patch.setattr(op, "_chosen", {})
        patch.setattr(op.Op, "_fastest", fastest)
        yield


def launches(function: Callable[..., mx.array], *arrays: mx.array) -> Counter[str]:
    """The primitives of the graph, but those that only look at elements in another way."""
    found: Counter[str] = Counter()

    def count(event: dict[str, Any]) -> None:
        if event["type"] == "primitive" and event["name"] not in VIEWS:
            found[event["name"]] += 1

    mx.export_function(count, function, *arrays)
    return found
