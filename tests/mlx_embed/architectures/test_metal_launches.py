"""How many launches a layer takes on a Mac, counted in its graph: kernels are not run."""

from functools import partial

import mlx.core as mx
import pytest

from mlx_embed.architectures import bert
from tests.custom_kernels.conftest import starts
from tests.metal.emulation import unavailable
from tests.metal.primitives import kernels_on_metal, launches

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


def bert_layers(layers: int) -> bert.Model:
    return bert.Model(bert.Config(50, 384, layers, 12, 1536, 64))


@pytest.mark.parametrize("tokens", [2, 9, 64])
def test_a_layer_of_few_tokens_takes_seven_launches(tokens: int) -> None:
    """The fused projection, attention, its output, a norm, up, down, and a norm; each is one kernel."""
    ids, cu_seqlens = mx.zeros((tokens,), dtype=mx.int32), starts([tokens])
    found = []
    with kernels_on_metal():
        for layers in (1, 3):
            model = bert_layers(layers)
            model.set_dtype(mx.float16)
            mx.eval(model.parameters())
            found.append(launches(partial(model, cu_seqlens=cu_seqlens, max_seqlen=tokens), ids))
    assert found[1] - found[0] == {"CustomKernel": 2 * 7}, found
