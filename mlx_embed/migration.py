"""sentence-transformers' names that are others here: each is an error that gives the new one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

POOL = "a call uses all cores by itself, and `mlx_embed.jobs.Pool` several GPUs"
SET = "set the attribute of this name of the loaded model"
# Options of its methods, and of its constructors; some are options of other methods here.
OPTIONS = {
    "sentences": "the texts are the first argument, `texts` of encode and `pairs` of predict",
    "inputs": "what to compute is the first argument, `texts` of encode and `pairs` of predict",
    "precision": "it is `output_dtype`",
    "output_value": "a vector a text is all there is; `return_info=True` tells the tokens of each",
    "token_pooling": "it is `pool_factor`",
    "convert_to_sparse_tensor": "vectors are `SparseVectors`, and `.scipy()` gives a matrix",
    "pool": POOL,
    "chunk_size": "texts are read a window at a time by themselves",
    "num_workers": POOL,
    "device": "`from_pretrained(..., device=)` says where to compute",
    "prompts": SET,
    "default_prompt_name": SET,
    "similarity_fn_name": SET,
    "truncate_dim": "of an EmbeddingModel it is an option of `encode`, and an attribute that can be set",
    "activation_fn": "set `activation` of the loaded model, or pass it to `predict`",
    "default_activation_function": "set `activation` of the loaded model, or pass it to `predict`",
    "num_labels": "a reranker has the labels that its checkpoint has",
    "model_name_or_path": "the model is the first argument, `name_or_path`",
    "model_kwargs": 'its dtype is `dtype="float16"`, for example',
    "torch_dtype": "it is `dtype`",
    "tokenizer_kwargs": "a checkpoint's tokenizer is read as it is; `max_seq_length` cuts texts",
    "processor_kwargs": "a checkpoint's tokenizer is read as it is; `max_seq_length` cuts texts",
    "max_length": "it is `max_seq_length`",
    "cache_folder": "it is `cache_dir`",
    "backend": "it is `engine`",
    "trust_remote_code": "code of a repository is never run",
    "use_auth_token": "log in with `hf auth login`, or set HF_TOKEN",
    "token": "log in with `hf auth login`, or set HF_TOKEN",
}
IDS = "`tokenizer` makes ids, and `token_counts` of an EmbeddingModel counts them"
# Attributes and methods of its models.
ATTRIBUTES = {
    "get_sentence_embedding_dimension": "it is the property `dimension`",
    "get_embedding_dimension": "it is the property `dimension`",
    "get_max_seq_length": "it is the property `max_seq_length`",
    "max_length": "it is the property `max_seq_length`",
    "activation_fn": "it is `activation`",
    "default_activation_function": "it is `activation`",
    "tokenize": IDS,
    "preprocess": IDS,
    "processor": IDS,
    "start_multi_process_pool": POOL,
    "stop_multi_process_pool": POOL,
    "encode_multi_process": POOL,
    "truncate_embeddings": "pass `truncate_dim` to `encode`, or set it",
    "truncate_sentence_embeddings": "pass `truncate_dim` to `encode`, or set it",
    "evaluate": "evaluators take `mlx_embed.integrations.sentence_transformers.SentenceTransformerView(model)`",
    "save": "`mlx_embed.convert(source, destination)` writes a checkpoint",
    "save_pretrained": "`mlx_embed.convert(source, destination)` writes a checkpoint",
    "push_to_hub": "`mlx_embed.convert(source, destination)` writes a folder, and `hf upload` puts it on the hub",
    "to": "`from_pretrained(..., device=, dtype=)` says where and in what to compute",
    "cpu": '`from_pretrained(..., device="cpu")` computes there',
    "cuda": '`from_pretrained(..., device="cuda")` computes there',
    "half": '`from_pretrained(..., dtype="float16")` computes in it',
    "bfloat16": '`from_pretrained(..., dtype="bfloat16")` computes in it',
    "eval": "models are always ready to be used: leave it out",
    "fit": "models are not trained here",
    "train": "models are not trained here",
}


class FromSentenceTransformers:
    """What a model says to code that was written for sentence-transformers."""

    # Hidden from type checkers, which would take any attribute and any argument for right.
    if not TYPE_CHECKING:

        def __new__(cls, *args: Any, **options: Any) -> Any:
            """Refuse a model's name, which the constructor does not take."""
            named = args[0] if args else options.get("model_name_or_path")
            if isinstance(named, (str, Path)):
                raise TypeError(f"{cls.__name__} is loaded by {cls.__name__}.from_pretrained({str(named)!r}).")
            return super().__new__(cls)

        def __getattr__(self, name: str) -> Any:
            hint = f": {ATTRIBUTES[name]}" if name in ATTRIBUTES else ""
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}.", name=name, obj=self)

        def __setattr__(self, name: str, value: Any) -> None:
            """Refuse what would be set without changing anything."""
            if name in ATTRIBUTES:
                getattr(self, name)
            super().__setattr__(name, value)
