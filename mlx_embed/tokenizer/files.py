"""A checkpoint's tokenizer of its files: tokenizer.json or a vocabulary, and tokenizer_config.json."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from mlx_embed.checkpoint import Checkpoint
from mlx_embed.checkpoint.files import present
from mlx_embed.errors import CheckpointError, MLXEmbedError, warn
from mlx_embed.tokenizer import classes, vocabulary
from mlx_embed.tokenizer.panics import is_the_librarys


@dataclass(frozen=True)
class Source:
    """What a checkpoint's files make.

    Attributes:
        tokenizer: the library's, which neither pads nor cuts.
        truncation_side: the end at which long texts are cut, "right" or "left".
        token_types: whether the model is told which of a pair's texts a token is of.
    """

    tokenizer: Tokenizer
    truncation_side: str
    token_types: bool


def read(checkpoint: Checkpoint) -> Source:
    """The checkpoint's tokenizer, as transformers makes it of the same files: see `classes`.

    Raises:
        CheckpointError: files that are missing, broken, or lack tokens.
        UnsupportedModelError: a class of tokenizer that reads no tokenizer.json, or vocabulary files of another class
            than those that are built here.
    """
    path = checkpoint.transformer / "tokenizer.json"
    settings = checkpoint.tokenizer_config
    side = "right"
    code = settings.get("auto_map")
    if isinstance(code, dict) and "AutoTokenizer" in code:
        warn(
            f"{checkpoint.transformer / 'tokenizer_config.json'} names the repository's own code for its tokenizer, "
            f"{code['AutoTokenizer']!r}, which mlx_embed does not run: token ids may differ from those meant."
        )
    if present(path):
        try:
            file = Tokenizer.from_file(str(path))
            side = (file.truncation or {}).get("direction", side)
            name = classes.named(checkpoint.config, settings)
            if checkpoint.architecture.LAYOUT == "table":  # no class of transformers reads a static model's
                tokenizer, kind = file, classes.class_of(None, file)
            else:
                tokenizer, kind = classes.rebuild(
                    file, name, checkpoint.transformer, settings, checkpoint.encoder_config.vocab_size
                )
        except MLXEmbedError:
            raise
        except BaseException as error:
            if not is_the_librarys(error):
                raise
            raise CheckpointError(f"{path} is no tokenizer that this version of tokenizers reads: {error}") from error
    else:
        tokenizer, kind = vocabulary.read(checkpoint)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    _check_unknown(path if present(path) else checkpoint.transformer, tokenizer)
    if checkpoint.do_lower_case:
        tokenizer.normalizer = classes.lowercased(tokenizer.normalizer)
    side = settings.get("truncation_side") or side
    if side not in ("right", "left"):
        raise CheckpointError(f'tokenizer_config.json has "truncation_side": {side!r}, where "right" or "left" is due.')
    names = settings.get("model_input_names")
    return Source(tokenizer, side, "token_type_ids" in names if isinstance(names, list) else kind.token_types)


def _check_unknown(place: Path, tokenizer: Tokenizer) -> None:
    """CheckpointError where a character that is in no vocabulary has no token; else texts would fail, now and then."""
    try:
        tokenizer.model.tokenize("\U0010fffd")
    except BaseException as error:
        if not is_the_librarys(error):
            raise
        raise CheckpointError(
            f"{place} has no token for what its vocabulary lacks ({error}); is the vocabulary that of this tokenizer?"
        ) from error
