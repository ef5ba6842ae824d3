"""Checkpoint: what a checkpoint folder says of itself, as `folder` has read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlx_embed.architectures import Architecture, EncoderConfig
from mlx_embed.checkpoint.adapters import CONFIG as ADAPTER
from mlx_embed.checkpoint.adapters import Adapter, read_adapter
from mlx_embed.checkpoint.files import fingerprint, state
from mlx_embed.checkpoint.logit_score import Chat, LogitScore
from mlx_embed.checkpoint.modules import Module, Pooled, Pooling
from mlx_embed.checkpoint.multi_vector import MultiVector
from mlx_embed.checkpoint.tasks import checked_task, is_v5, place_of
from mlx_embed.errors import CheckpointError


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder, read and checked, without its weights.

    Attributes:
        folder: the checkpoint's root.
        transformer: the folder of config.json, tokenizer.json and the weights; often the root itself.
        config: config.json.
        architecture: the file that implements its model_type.
        encoder_config: the part of config.json that shapes the encoder, checked.
        dimension: the length of a vector, before any truncation.
        pooling: how hidden states become one vector a text.
        modules: what is applied to the vectors after that, in order, without a last Normalize.
        normalize: whether vectors are scaled to length 1 in the end, after any truncation.
        truncate_dim: the dimensions that `encode` keeps where it is told nothing else; None keeps all.
        max_seq_length: the longest text in tokens that the checkpoint names; None where it names none.
        task_lengths: the same for "query" and "document", where they have numbers of their own.
        do_lower_case: whether texts are lowercased before the tokenizer's own normalisation.
        special_tokens: whether texts get special tokens.
        tokenizer_config: tokenizer_config.json, and what counts instead of it.
        prompts: prompt name to text.
        default_prompt_name: the prompt that `encode` applies when it is given none.
        similarity: one of cosine, dot, euclidean, manhattan.
        base: the folder of the weights, where they lie elsewhere: those of the model that an adapter changes.
        adapter: what is merged into the weights when they are read.
        token_characters: the characters at which a text is cut for each token that it may have; None where it is not.
        sentence: config_sentence_transformers.json, where it is of the kind of model that this is opened as.
        generates: whether this is opened as a reranker, and is a causal model, which answers with a token.
        score: of such a reranker, the tokens that answer; None where the folder does not say.
        chat: how a reranker is asked, if by a chat template.
        tasks: those that it has a LoRA for.
        task: the one of them that is merged into the weights when they are read; None is none.
        multi_vector: what is of its own in a model of a vector a token, where it is opened as one.
    """

    folder: Path
    transformer: Path
    config: Mapping[str, Any]
    architecture: Architecture
    encoder_config: EncoderConfig
    dimension: int
    pooling: Pooling | Pooled = field(default_factory=Pooling)
    modules: tuple[Module, ...] = ()
    normalize: bool = False
    truncate_dim: int | None = None
    max_seq_length: int | None = None
    task_lengths: Mapping[str, int] = field(default_factory=dict)
    do_lower_case: bool = False
    special_tokens: bool = True
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str = "cosine"
    base: Path | None = None
    adapter: Adapter | None = None
    token_characters: int | None = None
    sentence: Mapping[str, Any] = field(default_factory=dict)
    generates: bool = False
    score: LogitScore | None = None
    chat: Chat | None = None
    tasks: tuple[str, ...] = ()
    task: str | None = None
    multi_vector: MultiVector | None = None

    def for_task(self, name: str) -> "Checkpoint":
        """The same with another task's LoRA.

        Raises:
            ValueError: a task that it does not have.
            CheckpointError, UnsupportedModelError: as `read_adapter`.
        """
        task = checked_task(self.tasks, name)
        place = place_of(self.transformer, self.config, task)
        if place is None:
            return replace(self, task=task)
        adapter = read_adapter(place)
        if adapter is None:
            raise CheckpointError(f"{place / ADAPTER} is missing, the LoRA of the task {task!r}; download it again.")
        return replace(self, task=task, adapter=adapter)

    @property
    def needs_task(self) -> bool:
        """Whether its authors' code computes nothing without a task, and none is chosen."""
        return bool(self.tasks) and self.task is None and is_v5(self.config)

    @property
    def weights(self) -> Path:
        """The folder of the safetensors files."""
        return self.base or self.transformer

    @property
    def state(self) -> str:
        """Of its files as they are now; see `files.state`."""
        return state(*self._folders)

    @property
    def fingerprint(self) -> str:
        """Of its files, wherever they lie; see `files.fingerprint`."""
        return fingerprint(*self._folders)

    @property
    def _folders(self) -> list[Path]:
        return list(dict.fromkeys((self.folder, self.weights)))
