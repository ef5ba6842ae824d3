"""A whole encoder by the emulated Metal kernels, beside MLX's own ops: that each is given what it takes."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import use_kernels
from custom_kernels.choice import op
from mlx_embed.checkpoint import read_checkpoint, weights
from tests.conftest import DATA
from tests.custom_kernels.conftest import starts
from tests.metal.emulation import emulated_metal, unavailable
from tests.metal.primitives import kernels_on_metal

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
LENGTHS = [5, 1, 17, 3, 9, 2, 4, 11]


def first_that_takes(self: op.Op, variant: Any, load: op.Load) -> op.Kernel:
    """The kernels of which only some are for a shape, before the others."""
    ways = [*self.others.get("metal", {}).values(), self.kernels.get("metal"), self.builtin(variant)]

    def run(*arguments: Any, **options: Any) -> mx.array:
        for way in ways:
            if way is not None:
                try:
                    return way(*arguments, **options)
                except NotImplementedError:
                    continue
        raise AssertionError

    return run


@pytest.mark.parametrize("folder", [DATA / "decoders" / "qwen3"], ids=lambda folder: folder.name)
def test_an_encoder(folder: Path) -> None:
    """Of all folders in `encoders` and `decoders` one, since to compile the kernels of all takes minutes."""
    checkpoint = read_checkpoint(folder, folder.name, "embedding", cache_dir=None, local_files_only=True)
    encoder = weights.load_encoder(checkpoint, mx.float32)
    ids = mx.array(np.random.default_rng(1).integers(3, 20, sum(LENGTHS)).astype(np.int32))
    with use_kernels(False):
        expected = np.array(encoder(ids, starts(LENGTHS), max(LENGTHS)))
    with kernels_on_metal(), emulated_metal(3) as sources, pytest.MonkeyPatch.context() as patch:
        patch.setattr(op.Op, "_fastest", first_that_takes)
        found = np.array(encoder(ids, starts(LENGTHS), max(LENGTHS)))
    assert len(sources) >= 10
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
