"""The exceptions of mlx_embed: each message says what was found and what to do about it."""


class MLXEmbedError(Exception):
    """Base of the errors that mlx_embed raises on its own account."""


class ModelNotFoundError(MLXEmbedError):
    """A model name that is no local folder and cannot be had from the hub.

    Attributes:
        not_reached: whether the hub was not asked, or did not answer.
    """

    def __init__(self, message: str, *, not_reached: bool = False) -> None:
        super().__init__(message)
        self.not_reached = not_reached


class CheckpointError(MLXEmbedError):
    """A checkpoint folder with a missing, broken or inconsistent file."""


class UnsupportedModelError(CheckpointError):
    """A sound checkpoint of a kind that mlx_embed does not implement."""
