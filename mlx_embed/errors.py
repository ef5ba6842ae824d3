"""The exceptions of mlx_embed: each message says what was found and what to do about it."""


class MLXEmbedError(Exception):
    """Base of the errors that mlx_embed raises on its own account."""


class ModelNotFoundError(MLXEmbedError):
    """A model name that is no local folder and cannot be had from the hub."""


class CheckpointError(MLXEmbedError):
    """A checkpoint folder with a missing, broken or inconsistent file."""


class UnsupportedModelError(CheckpointError):
    """A sound checkpoint of a kind that mlx_embed does not implement."""
