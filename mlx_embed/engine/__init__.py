"""How a model is computed: an engine, chosen once, when the model is loaded.

A model is a tokenizer, an engine and a head. The engine has the encoder and its weights; it cuts token ids into batches
that suit it, and runs them through the encoder and a head, on the device and the thread that it needs:

    head = engine.head(function, parameters)
    for batch, rows in engine.run(engine.batches(ids, engine.budget(None)), head):
        vectors[batch.texts] = rows

`engine.gather` does just that on the engine's own thread. There are two: `native` runs the CPU kernels, and `graph`
MLX's lazy graphs, with this package's GPU kernels or without.
"""

from mlx_embed.engine.choice import ENGINES, EngineChoice, choose, default_dtype, load, native_dtype
from mlx_embed.engine.contract import Engine, Head, HeadFunction, Rows

__all__ = [
    "ENGINES",
    "Engine",
    "EngineChoice",
    "Head",
    "HeadFunction",
    "Rows",
    "choose",
    "default_dtype",
    "load",
    "native_dtype",
]
