"""A view of an `EmbeddingModel` for code written for sentence-transformers, such as its utilities and evaluators."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mlx_embed.embedding_model import EmbeddingModel

try:
    import torch
    from sentence_transformers import SimilarityFunction, quantize_embeddings
except ImportError as error:
    raise ImportError('This needs sentence-transformers: pip install "mlx-embed[sentence-transformers]"') from error


@dataclass
class ModelCardData:
    """What evaluators note at their end.

    Attributes:
        base_model: the model's name.
        metrics: each evaluator's last numbers, by its name.
    """

    base_model: str
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)

    def set_evaluation_metrics(self, evaluator: Any, metrics: dict[str, Any], epoch: int = 0, step: int = 0) -> None:
        """Keep an evaluator's numbers."""
        self.metrics[str(getattr(evaluator, "name", "") or type(evaluator).__name__)] = metrics


class SentenceTransformerView:
    """What `util.paraphrase_mining`, `util.mine_hard_negatives` and the evaluators ask of a SentenceTransformer.

    Its numbers are sentence-transformers': vectors that are cut are not scaled again unless `normalize_embeddings` is
    True, and similarities are computed by its own functions, on torch tensors. Prompts are those of the model.

    Attributes:
        model: the model that is looked at; what is set on it holds here.
        model_card_data: what evaluators have found.
    """

    def __init__(self, model: EmbeddingModel) -> None:
        """Look at a model."""
        self.model = model
        self.model_card_data = ModelCardData(model.name)

    @property
    def prompts(self) -> dict[str, str]:
        """The model's prompts; "query" and "document" are always there, if empty."""
        return {"query": "", "document": "", **self.model.prompts}

    @property
    def default_prompt_name(self) -> str | None:
        """The prompt of `encode` where it is given none."""
        return self.model.default_prompt_name

    @property
    def similarity_fn_name(self) -> str:
        """The similarity's name."""
        return self.model.similarity_fn_name

    @property
    def truncate_dim(self) -> int | None:
        """The dimensions that are kept by default; None keeps all."""
        return self.model.truncate_dim

    @property
    def device(self) -> torch.device:
        """Where its tensors are: always the CPU, wherever the model computes."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its tensors."""
        return torch.float32

    @property
    def max_seq_length(self) -> int:
        """The number of tokens at which texts are cut. It can be set."""
        return self.model.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int | None) -> None:
        self.model.max_seq_length = tokens

    def get_embedding_dimension(self) -> int:
        """The length of a vector."""
        return self.model.dimension

    def get_sentence_embedding_dimension(self) -> int:
        """The length of a vector, by the name of before version 6."""
        return self.model.dimension

    def encode(self, inputs: str | Iterable[str] | None = None, **options: Any) -> Any:
        """Embed texts; see `encode_query` for the arguments."""
        return self._encode(self.model.encode, inputs, **options)

    def encode_query(self, inputs: str | Iterable[str] | None = None, **options: Any) -> Any:
        """Embed queries.

        Args:
            inputs: a text or an iterable of texts; `sentences` is another name of it.
            **options: prompt_name, prompt, batch_size, show_progress_bar, precision, convert_to_numpy,
                convert_to_tensor, normalize_embeddings and truncate_dim mean what they do there; None, the default, is
                all that output_value, device, pool and chunk_size can be, but for the CPU as a device.

        Returns:
            numpy float32 [N, D]; a torch tensor with convert_to_tensor, a list of them without convert_to_numpy;
            integers by precision. Without the N for a single text.

        Raises:
            TypeError: texts that are none.
            ValueError: an option that a view cannot follow.
        """
        return self._encode(self.model.encode_query, inputs, **options)

    def encode_document(self, inputs: str | Iterable[str] | None = None, **options: Any) -> Any:
        """Embed documents; see `encode_query` for the arguments."""
        return self._encode(self.model.encode_document, inputs, **options)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """The similarity of each row of one and each of the other: a torch tensor [N, M]."""
        return SimilarityFunction.to_similarity_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """The similarity of row i of one and row i of the other: a torch tensor [N]."""
        return SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    def evaluate(self, evaluator: Callable[..., Any], output_path: str | None = None) -> Any:
        """What an evaluator says of the model."""
        return evaluator(self, output_path)

    def start_multi_process_pool(self, target_devices: Any = None) -> Any:
        """Refused: a model uses its whole machine already.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "An mlx-embed model uses all cores, or the GPU, by itself: encode without a pool of processes."
        )

    def _encode(
        self,
        encode: Callable[..., Any],
        inputs: str | Iterable[str] | None,
        *,
        sentences: str | Iterable[str] | None = None,
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = False,
        output_value: str | None = "sentence_embedding",
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        **options: Any,
    ) -> Any:
        texts = sentences if inputs is None else inputs
        if texts is None:
            raise TypeError("encode needs texts.")
        if output_value != "sentence_embedding":
            raise ValueError(f"output_value {output_value!r}: a view has only the embeddings of whole texts.")
        if pool is not None or (device is not None and str(device) != str(self.device)):
            raise ValueError("A view encodes where the model was loaded: leave pool and device None.")
        if options.get("prompt") is None and options.get("prompt_name") in self.prompts:
            options["prompt"] = self.prompts[options["prompt_name"]]  # an empty one is there, too
        vectors = encode(texts, normalize_embeddings=normalize_embeddings, **options)
        single = vectors.ndim == 1
        rows: Any = vectors[None] if single else vectors
        if precision not in (None, "float32") and len(rows):
            rows = quantize_embeddings(rows, precision=precision)
        if convert_to_tensor:
            rows = torch.from_numpy(rows)
        elif not convert_to_numpy:
            rows = list(torch.from_numpy(rows))
        return rows[0] if single else rows
