"""Tokenizers of other files, where there is no tokenizer.json: vocab.txt, vocab.json with merges.txt, spm.model."""

from pathlib import Path

from tokenizers import Tokenizer, models

from mlx_embed.checkpoint import Checkpoint
from mlx_embed.checkpoint.files import present
from mlx_embed.errors import CheckpointError, MLXEmbedError, UnsupportedModelError
from mlx_embed.tokenizer import classes, sentencepiece, special
from mlx_embed.tokenizer.classes import TokenizerClass
from mlx_embed.tokenizer.panics import is_the_librarys

# By their names in `classes`.
_BUILT = ("Bert", "DistilBert", "MPNet", "Roberta")


def read(checkpoint: Checkpoint) -> tuple[Tokenizer, TokenizerClass]:
    """The tokenizer of vocabulary files, as transformers builds it, and its class.

    Raises:
        CheckpointError: files that are missing or broken, or lack a token.
        UnsupportedModelError: a tokenizer of another class.
    """
    folder, settings = checkpoint.transformer, checkpoint.tokenizer_config
    wordpiece, bpe = folder / "vocab.txt", (folder / "vocab.json", folder / "merges.txt")
    name = classes.named(checkpoint.config, settings)
    short = classes.bare(name or "")
    kind = classes.CLASSES.get(short)
    model = folder / sentencepiece.FILES.get(short, "")
    if short in sentencepiece.FILES and present(model):
        return classes.rebuild(
            _own(model, short, settings), name, folder, settings, checkpoint.encoder_config.vocab_size
        )
    built = kind in [classes.CLASSES[known] for known in _BUILT]
    if not built or checkpoint.config["model_type"] in ("camembert", "xlm-roberta"):
        wanted = name or settings.get("tokenizer_class") or f"those of {checkpoint.config['model_type']!r}"
        raise UnsupportedModelError(
            f"{folder} has no tokenizer.json, and mlx_embed builds {', '.join(_BUILT)} tokenizers of vocabulary files, "
            f"not {wanted}. {_hint(folder)}"
        )
    assert kind is not None  # it is among those that are built
    byte_level = kind.model is models.BPE
    if not (all(present(path) for path in bpe) if byte_level else present(wordpiece)):
        needed = "vocab.json with merges.txt" if byte_level else "vocab.txt"
        raise CheckpointError(f"{folder} has neither tokenizer.json nor {needed}. {_hint(folder)}")
    try:
        tokenizer = Tokenizer(
            models.BPE(*models.BPE.read_file(*map(str, bpe))) if byte_level else _wordpiece(wordpiece)
        )
        tokens = special.gather(folder, settings, {}, kind.tokens)
        absent = [content for content in tokens.roles.values() if tokenizer.token_to_id(content) is None]
        if absent:
            raise CheckpointError(f"The vocabulary of {folder} lacks {', '.join(sorted(set(absent)))}.")
        tokenizer, _ = classes.rebuild(tokenizer, name, folder, settings)
    except MLXEmbedError:
        raise
    except BaseException as error:
        if not is_the_librarys(error):
            raise
        raise CheckpointError(f"{folder} has a vocabulary that cannot be read: {error}") from error
    for number, token in special.numbered(settings.get("added_tokens_decoder") or {}, folder).items():
        if tokenizer.token_to_id(token.content) != number:
            raise CheckpointError(
                f"{folder} gives the added token {token.content!r} the id {number}, which it cannot have."
            )
    size, needed_size = tokenizer.get_vocab_size(), checkpoint.encoder_config.vocab_size
    if size < needed_size:
        raise CheckpointError(
            f"The vocabulary of {folder} has {size} tokens, but config.json gives the model {needed_size} embeddings: "
            f"lines are missing, or the rest is padding, which only a tokenizer.json can tell. {_hint(folder)}"
        )
    return tokenizer, kind


def _own(path: Path, short: str, settings: classes.Settings) -> Tokenizer:
    try:
        return sentencepiece.tokenizer(path, short, settings)
    except MLXEmbedError:
        raise
    except BaseException as error:
        if not is_the_librarys(error):
            raise
        raise CheckpointError(f"{path} has pieces that cannot be read: {error}") from error


def _hint(folder: Path) -> str:
    return (
        f"transformers can make a tokenizer.json: AutoTokenizer.from_pretrained({str(folder)!r})"
        f".save_pretrained({str(folder)!r})."
    )


def _wordpiece(path: Path) -> models.WordPiece:
    with path.open(encoding="utf-8") as file:
        tokens = [line.rstrip("\n") for line in file]
    ids: dict[str, int] = {}
    for place, token in enumerate(tokens):
        if not token:
            raise CheckpointError(f"{path} has no token in line {place + 1}; download it again.")
        if ids.setdefault(token, place) != place:
            raise CheckpointError(
                f"{path} has {token!r} in line {ids[token] + 1} and in line {place + 1}; download it again."
            )
    return models.WordPiece(ids)
