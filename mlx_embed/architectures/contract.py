"""What an architecture file exports: all that the rest of the package knows of it."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias

import mlx.nn as nn

Layout: TypeAlias = Literal["packed", "table"]


class EncoderConfig(Protocol):
    """The part of config.json that shapes a model, checked, under names that are the same for all architectures."""

    @property
    def vocab_size(self) -> int:
        """Rows of the word embeddings: token ids are below it."""

    @property
    def hidden_size(self) -> int:
        """Dimensions of a hidden state."""

    @property
    def num_hidden_layers(self) -> int:
        """Layers, whose parameters are named `layers.0` and so on."""

    @property
    def type_vocab_size(self) -> int:
        """Rows of the token type embeddings; 0 where the model has none."""

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, special ones included."""

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "EncoderConfig":
        """Check and read config.json.

        Raises:
            CheckpointError: a value that is missing or of the wrong kind; the message names its key.
            UnsupportedModelError: a sound value that the architecture does not implement.
        """


class Architecture(Protocol):
    """A file of this folder, which is named by Hugging Face's model_type.

    How a checkpoint's tensors find their parameters: a name loses PREFIXES, and has each pair of RENAMES replaced, in
    order; it is passed over where it then begins with no part of Model. COPIES, where a file has it, names tensors that
    are another's copies: passed over where that is there, and a name by which an adapter may change it. After that `q`,
    `k` and `v` side by side become one `qkv`, and `up` and `gate` one `up_gate`. What comes out must be the names and
    shapes of Model's parameters.
    """

    @property
    def __name__(self) -> str:
        """Of the module, "mlx_embed.architectures." and the file's name."""

    @property
    def PREFIXES(self) -> tuple[str, ...]:  # noqa: N802
        """What the names of tensors may start with, such as "bert."; "model." and "0.auto_model." go everywhere."""

    @property
    def RENAMES(self) -> tuple[tuple[str, str], ...]:  # noqa: N802
        """Pieces of the checkpoint's names, and what Model calls them."""

    @property
    def HEAD(self) -> tuple[tuple[str, str], ...]:  # noqa: N802
        """The layers of a sequence classifier behind the pooled token: a tensor's name without ".weight", and torch's
        name of the activation behind it, or "LayerNorm" for a layer that is one. () where rerankers have none here.
        """

    @property
    def LAYOUT(self) -> Layout:  # noqa: N802
        """How a batch lies: "packed", texts end to end; or "table": packed, and the model gives a row a text, since all
        it does is to look tokens up."""

    @property
    def Config(self) -> type[EncoderConfig]:  # noqa: N802
        """Reads config.json."""

    def Model(self, config: Any) -> nn.Module:  # noqa: N802
        """A model of random parameters, given its Config.

        It is called as `model(input_ids, cu_seqlens, max_seqlen)`, with `token_type_ids` behind where the type
        vocabulary is not 0: ids int32 [T], places of the texts' ends int32 [n + 1], the longest text's tokens. It
        returns hidden states [T, hidden_size]. Where it says `takes_rows`, it is given `rows` too, None or int32 [n]:
        tokens, whose hidden states [n, hidden_size] it returns then, without what only the others' would need.

        Where only the weights tell how a model is built, Config has a method `for_tensors(names)`, which is given the
        tensors' names as they are here and returns the Config to build it by.

        It is written in `ops`, and so runs on MLX arrays and numpy arrays alike. `batch_tokens`, if it has that, says
        how many tokens make a batch on a GPU.
        """
