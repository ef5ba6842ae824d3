"""From a model's name to what every kind of model starts from: its checkpoint, and then the engine with its weights."""

import os
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from custom_kernels import transfer
from mlx_embed import int8_layers
from mlx_embed.arguments import whole_number
from mlx_embed.checkpoint import Checkpoint, hub, int8, read_checkpoint
from mlx_embed.engine import Engine, EngineChoice, HeadFunction, choose, default_dtype, load, memory, native_dtype
from mlx_embed.engine.device import accelerator, is_cpu, prepare_accelerator, resolve_device, resolve_dtype
from mlx_embed.engine.rehearsal import rehearse_unread
from mlx_embed.engine.worker import worker
from mlx_embed.errors import ModelNotFoundError
from mlx_embed.options import LOAD, LoadOptions, complete
from mlx_embed.static_tokenizer import tokenizer_of
from mlx_embed.tokenizer import Tokenizer, warn_truncated

if TYPE_CHECKING:
    from mlx_embed.options import Unpack


# Who keeps the models of a kind that have no organisation in their names.
_ORGANISATIONS = {
    "SentenceTransformer": hub.ORGANISATION,
    "CrossEncoder": "cross-encoder",
    "SparseEncoder": hub.ORGANISATION,
    "MultiVectorEncoder": hub.ORGANISATION,
}


@dataclass(frozen=True)
class Opened:
    """A model whose folder is there and read, but for the weights.

    Attributes:
        name: as the hub or the caller knows it.
        checkpoint: what its folder says.
        max_seq_length: tokens at which texts are cut, special tokens included.
        device: where to compute.
        dtype: what to compute in; None is the checkpoint's own.
        engine: which engine is wanted.
        source: what loads it again.
    """

    name: str
    checkpoint: Checkpoint
    max_seq_length: int
    device: mx.Device
    dtype: mx.Dtype | None
    engine: EngineChoice
    source: "Source"

    def rehearse(self, head: HeadFunction) -> "Future[HeadFunction | None]":
        """Begin to compile what encoder and head take on CUDA, while the rest is read; gives the head, if it did."""
        checkpoint = self.checkpoint
        fixed = checkpoint.architecture.LAYOUT == "table" or checkpoint.config.get("quantization")

        def work() -> HeadFunction | None:
            if fixed or checkpoint.modules or accelerator() != "cuda" or is_cpu(self.device):
                return None
            if choose(self.engine, self.device, self.dtype) != "graph":
                return None
            try:
                rehearse_unread(checkpoint, self.device, self.dtype, head)
            except Exception:  # whatever is wrong, loading it says so
                return None
            return head

        return worker.submit(work)

    def load(self, known: HeadFunction | None = None) -> Engine:
        """The engine, with the encoder's weights; see `engine.load`. How it computes in int8 is measured once."""
        layers = int8.Int8Layers()
        if self._in_int8():
            found = int8_layers.known(self.checkpoint)
            if found is None:
                return int8_layers.settle(self.checkpoint, self.max_seq_length)
            layers = found
        return load(self.checkpoint, self.engine, self.device, self.dtype, known, layers.kept, layers.columns)

    def _in_int8(self) -> bool:
        if self.dtype is None or self.dtype != mx.int8 or self.checkpoint.architecture.LAYOUT != "packed":
            return False
        return choose(self.engine, self.device, self.dtype) == "native" and native_dtype(self.dtype) == mx.int8


def open_model(
    method: str, name_or_path: str | Path | None, given: LoadOptions, kind: str = "SentenceTransformer"
) -> Opened:
    """Find a model and read its folder; `method` is what the user called, and `given` the options that came with it.

    None is the default model. `kind` is the kind of model by sentence-transformers' name: see `read_checkpoint`. A name
    without an organisation is looked for under the one that keeps models of this kind.

    Raises:
        ModelNotFoundError: neither a folder nor to be had from the hub.
        CheckpointError: a file that is missing, broken or inconsistent.
        UnsupportedModelError: an architecture, module or activation that is not implemented.
        ValueError: an unknown device, dtype or engine, one that another rules out, or a max_seq_length that the model
            cannot have.
        TypeError: an option that there is not, or a max_seq_length that is no whole number.
        MemoryError: a model that is larger than the memory that is left to this process.
    """
    options: LoadOptions = complete(method, given, LOAD)
    device = resolve_device(options["device"])
    dtype = resolve_dtype(options["dtype"], device)
    chosen = choose(options["engine"], device, dtype)  # what cannot be should not be downloaded first
    if not is_cpu(device):
        prepare_accelerator()
        if chosen == "graph":
            worker.submit(partial(worker.run, transfer.find_way, device))  # while files are read
    folder, name = hub.find(
        name_or_path,
        organisation=_ORGANISATIONS[kind],
        revision=options["revision"],
        cache_dir=options["cache_dir"],
        local_files_only=options["local_files_only"],
    )
    checkpoint = read_checkpoint(
        folder, name, kind, cache_dir=options["cache_dir"], local_files_only=options["local_files_only"]
    )
    if options["task"] is not None:
        checkpoint = checkpoint.for_task(options["task"])
    dtype = default_dtype(checkpoint, device) if dtype is None else dtype
    native = is_cpu(device) and choose(options["engine"], device, dtype) == "native"
    if native and options["dtype"] is None and int8.stated(checkpoint.config) is not None:
        dtype = mx.int8  # which it was converted for
    length = checked_length(options["max_seq_length"], checkpoint)
    if is_cpu(device):
        memory.check(checkpoint, dtype)
    return Opened(name, checkpoint, length, device, dtype, options["engine"], _source(folder, options))


class CutsTexts:
    """A model whose texts are cut at a number of tokens.

    Attributes:
        checkpoint: what its folder says of it.
        tokenizer: which makes token ids of texts.
    """

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    # What its methods have for texts that are cut, as the warning says it.
    _for_long_texts = ""
    _said_cut = False

    @property
    def max_seq_length(self) -> int:
        """The number of tokens at which texts are cut, special tokens included. It can be set; None is the model's own.

        Raises:
            TypeError: something that is no whole number.
            ValueError: more tokens than the model has positions, or none.
            CheckpointError: so few that special tokens leave no room for text.
        """
        return self.tokenizer.max_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int | None) -> None:
        self.tokenizer = tokenizer_of(self.checkpoint, checked_length(tokens, self.checkpoint))
        self._said_cut = False

    def _say_what_was_cut(self, counts: "npt.NDArray[np.int32]", max_length: int, whole: bool = True) -> None:
        """Warn of texts that were longer than max_length, once; see `warn_truncated`."""
        if not self._said_cut:
            self._said_cut = warn_truncated(counts, max_length, self._for_long_texts, whole)


def checked_length(wanted: int | None, checkpoint: Checkpoint) -> int:
    """A number of tokens at which texts are cut: the one wanted, or the checkpoint's.

    Raises:
        TypeError: something that is no whole number.
        ValueError: one that the model cannot have.
    """
    limit = checkpoint.encoder_config.max_tokens
    if wanted is None:
        return min(checkpoint.max_seq_length or limit, limit)
    wanted = whole_number("max_seq_length", wanted)
    if not 1 <= wanted <= limit:
        raise ValueError(f"max_seq_length {wanted} is not within 1..{limit}, what the model's positions allow.")
    return wanted


@dataclass(frozen=True)
class Source:
    """Where a model was loaded from, to load it again in another process: all of it can be pickled.

    Attributes:
        folder: absolute.
        options: those of `from_pretrained`, without what only finds the folder; device and dtype by name.
    """

    folder: Path
    options: Mapping[str, Any]


# A model's max_seq_length can be changed after it was loaded, so it travels apart.
_OF_THE_FOLDER = ("revision", "cache_dir", "local_files_only", "max_seq_length")


def _source(folder: Path, options: LoadOptions) -> Source:
    kept: dict[str, Any] = {name: value for name, value in options.items() if name not in _OF_THE_FOLDER}
    if isinstance(kept["device"], mx.Device):
        kept["device"] = "cpu" if is_cpu(kept["device"]) else "gpu"
    if isinstance(kept["dtype"], mx.Dtype):
        kept["dtype"] = str(kept["dtype"]).removeprefix("mlx.core.")
    return Source(folder.absolute(), kept)


class Loadable(Protocol):
    """A kind of model."""

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options: "Unpack[LoadOptions]") -> Any:
        """Load one."""
        ...


# Loaded models, and in which process: one that is forked of it has them too.
_loaded: "WeakKeyDictionary[Any, int]" = WeakKeyDictionary()


def remember(model: Any, source: Source) -> None:
    """Take note of where a model was loaded from, so that it can be pickled and copied."""
    model._source = source
    _loaded[model] = os.getpid()


def _inherited(kind: type[Loadable], source: Source) -> Any:
    """A model as it was loaded before this process was forked; None where there is none that works in a child.

    In a process of a pool, for one, nothing can be loaded, since MLX does not survive a fork; and its tasks may each
    bring the model again.
    """
    for model, process in list(_loaded.items()):
        if process != os.getpid() and model.engine.name == "native" and model._source == source and type(model) is kind:
            again = object.__new__(kind)
            vars(again).update({name: dict(x) if isinstance(x, dict) else x for name, x in vars(model).items()})
            return again
    return None


def pickled(model: Loadable, source: Source | None, *settings: str) -> tuple[Any, ...]:
    """What `__reduce__` gives: a model is loaded again by whoever unpickles or copies it, from the same folder.

    Its weights lie in files, and an engine has threads and compiled code that cannot travel. `settings` are the
    attributes that a user may have changed since.

    Raises:
        TypeError: a model that was made of parts, and not loaded.
    """
    if source is None:
        raise TypeError(
            f"This {type(model).__name__} was made of parts; only one that `from_pretrained` has loaded can be pickled "
            "or copied, since it is loaded again on the other side."
        )
    return _load_again, (type(model), source, {name: getattr(model, name) for name in settings})


def _load_again(kind: type[Loadable], source: Source, settings: Mapping[str, Any]) -> Loadable:
    model: Loadable | None = _inherited(kind, source)
    if model is None:
        if not source.folder.is_dir():
            raise ModelNotFoundError(
                f"{source.folder} is not here, where this {kind.__name__} was loaded from when it was pickled or "
                "copied: put the checkpoint there, or load the model by its name on each side."
            )
        model = kind.from_pretrained(source.folder, **source.options)
    for name, value in settings.items():
        if getattr(model, name) != value:  # a tokenizer is made anew for another length
            setattr(model, name, value)
    return model
