"""Rerankers that generate: which tokens of a causal model are its answer, and how it, or a classifier, is asked.

sentence-transformers 6 keeps the first in the folder of a module LogitScore, the second in a chat template.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_embed.checkpoint.files import present, read_json
from mlx_embed.errors import CheckpointError, UnsupportedModelError

# The roles of a pair's texts.
_PAIR = ("query", "document")
# What a template has that takes a message's content as a list of parts; sentence-transformers looks for these too.
_OF_PARTS = ("content[0]", ".type", "'type'", '"type"', "message.content[")


@dataclass(frozen=True)
class LogitScore:
    """A score is the logit of one token after the text, less that of another if there is one."""

    true_token_id: int
    false_token_id: int | None = None


@dataclass(frozen=True)
class Chat:
    """A chat template that takes messages of the roles system (a prompt), query and document.

    Attributes:
        template: Jinja; where there are several by name, all of them, which can be looked at and not rendered.
        parts: whether a message's content is a list of parts, rather than a text.
        arguments: what the template is given besides messages.
        keep_end: whether what the template puts behind the content stays where a text is cut.
        stated: whether the folder says that pairs become chats, rather than only has a template.
        several: whether there are several templates by name, of which none is chosen here.
    """

    template: str
    parts: bool
    arguments: Mapping[str, Any] = field(default_factory=dict)
    keep_end: bool = True
    stated: bool = False
    several: bool = False

    @property
    def for_pairs(self) -> bool:
        """Whether it was made for pairs, and not for what the base model was made for."""
        return self.stated or all(f"'{role}'" in self.template or f'"{role}"' in self.template for role in _PAIR)

    def __hash__(self) -> int:
        return hash((self.template, self.parts))


def read_logit_score(folder: Path, vocab_size: int) -> LogitScore:
    """Read the folder of a LogitScore module.

    Raises:
        CheckpointError: a file that is missing or malformed, or tokens that the model does not have.
        UnsupportedModelError: a score of something else.
    """
    path = folder / "config.json"
    config = read_json(path)
    if config.get("module_input_name", "causal_logits") != "causal_logits":
        raise UnsupportedModelError(
            f'{path} has "module_input_name": {config["module_input_name"]!r}; mlx_embed has "causal_logits".'
        )
    for key in ("true_token_id", "false_token_id"):
        value = config.get(key)
        if value is None and key == "false_token_id":
            continue
        if type(value) is not int or not 0 <= value < vocab_size:
            raise CheckpointError(f'{path} has "{key}": {value!r}, where a token below {vocab_size} is needed.')
    return LogitScore(config["true_token_id"], config.get("false_token_id"))


def read_templates(folder: Path, tokenizer_config: Mapping[str, Any]) -> list[str]:
    """The chat templates of a folder: chat_template.jinja, or tokenizer_config.json's, which may have several by name.

    Raises:
        CheckpointError: something else than texts.
    """
    path = folder / "chat_template.jinja"
    if present(path):
        try:
            return [path.read_text(encoding="utf-8")]
        except ValueError as error:
            raise CheckpointError(f"{path} is not UTF-8: {error}") from error
    given = tokenizer_config.get("chat_template") or []
    found: list[Any] = [given]
    if isinstance(given, list):  # {"name": ..., "template": ...} each
        found = [one.get("template") if isinstance(one, dict) else None for one in given]
    if not all(isinstance(template, str) for template in found):
        raise CheckpointError(f'tokenizer_config.json has "chat_template": {given!r:.80}, where a text is needed.')
    return found


def read_chat(
    folder: Path, tokenizer_config: Mapping[str, Any], modalities: Mapping[str, Any] | None, chosen: Mapping[str, Any]
) -> Chat | None:
    """How pairs become chats; None where they are pairs of texts for the tokenizer.

    Args:
        folder: with the template.
        tokenizer_config: which may have it instead.
        modalities: sentence_bert_config.json's modality_config; None where it says nothing.
        chosen: its processing_kwargs.chat_template.

    Raises:
        CheckpointError, UnsupportedModelError: as `read_templates`; a chat is asked for, and there is no template.
    """
    message = None if modalities is None else modalities.get("message")
    if modalities is not None and message is None:
        return None
    templates = read_templates(folder, tokenizer_config)
    if not templates:
        if message is not None:
            raise CheckpointError(f"{folder} is said to take messages, but has no chat template.")
        return None
    kind = message.get("format", "auto") if isinstance(message, dict) else "auto"
    if kind not in ("auto", "flat", "structured"):
        raise UnsupportedModelError(f'{folder} has messages of format {kind!r}; mlx_embed has "flat" and "structured".')
    template = "\n".join(templates)
    parts = any(pattern in template for pattern in _OF_PARTS) if kind == "auto" else kind == "structured"
    arguments = {key: value for key, value in chosen.items() if key != "restore_suffix"}
    keep_end = chosen.get("restore_suffix", True) is not False
    return Chat(template, parts, arguments, keep_end, message is not None, len(templates) > 1)
