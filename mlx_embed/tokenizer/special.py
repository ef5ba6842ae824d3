"""The tokens that a checkpoint adds to its vocabulary, and its special tokens, as transformers 5 gathers them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import AddedToken, Tokenizer

from mlx_embed.checkpoint.files import optional_json
from mlx_embed.errors import CheckpointError

# A special token and its id.
End: TypeAlias = tuple[str, int]
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True)
class SpecialTokens:
    """What is added to a vocabulary.

    Attributes:
        added: in the order of their ids, as far as the checkpoint gives some.
        roles: the text of each special token, by "cls", "sep" ...
    """

    added: list[AddedToken]
    roles: Mapping[str, str]

    def content(self, role: str) -> str:
        """A special token that the tokenizer cannot do without; CheckpointError where there is none."""
        if role not in self.roles:
            raise CheckpointError(f'tokenizer_config.json has no "{role}_token", which the tokenizer needs.')
        return self.roles[role]


def end(content: str, tokenizer: Tokenizer) -> End:
    """A special token with its id; CheckpointError where the vocabulary lacks it."""
    number = tokenizer.token_to_id(content)
    if number is None:
        raise CheckpointError(f"The tokenizer's vocabulary lacks the special token {content!r}.")
    return content, number


def gather(
    folder: Path,
    settings: Mapping[str, Any],
    file: Mapping[int, AddedToken],
    defaults: Mapping[str, str | AddedToken],
    extra: Iterable[str] = (),
) -> SpecialTokens:
    """The tokens of tokenizer_config.json, or of the files that did its work before, and of tokenizer.json.

    Args:
        folder: where special_tokens_map.json and added_tokens.json may be.
        settings: tokenizer_config.json.
        file: tokenizer.json's own by id, which do not count where tokenizer_config.json has a list.
        defaults: a class's tokens by role.
        extra: a class's further tokens.
    """
    settings = dict(settings)
    listed = settings.get("added_tokens_decoder")
    if listed is not None:
        found = numbered(listed, folder)
    else:
        for key, value in optional_json(folder / "special_tokens_map.json").items():
            settings[key] = value | {"special": True} if isinstance(value, dict) else value
        contents = {_content(settings.get(f"{role}_token")) for role in ROLES}
        old = {
            number: AddedToken(content, normalized=content not in contents, special=content in contents)
            for content, number in optional_json(folder / "added_tokens.json").items()
        }
        found = old | dict(file)
    known = {token.content: token for _, token in sorted(found.items())}
    roles = {}
    for role in ROLES:
        value, default = settings.get(f"{role}_token"), defaults.get(role)
        if value is None and default is None:
            continue
        token = default if value is None and isinstance(default, AddedToken) else _token(value or default)
        roles[role] = token.content
        known.setdefault(token.content, token)
    more = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or list(extra)
    if not isinstance(more, (list, dict)):
        raise CheckpointError(f'tokenizer_config.json has "extra_special_tokens": {more!r}, where a list is needed.')
    for value in more.values() if isinstance(more, dict) else more:
        token = _token(value)
        known.setdefault(token.content, token)
    for token in known.values():
        token.special = token.special or token.content in roles.values()
    return SpecialTokens(list(known.values()), roles)


def add(tokenizer: Tokenizer, tokens: Iterable[AddedToken], vocab_size: int | None) -> None:
    """Add tokens, but for those whose ids would be vocab_size or above: there are no embeddings for them."""
    late: set[str] = set()
    if vocab_size is not None:
        new = [token.content for token in tokens if tokenizer.token_to_id(token.content) is None]
        last = max(tokenizer.get_added_tokens_decoder(), default=-1)
        first = max(tokenizer.get_vocab_size(with_added_tokens=False), last + 1)
        late = set(new[max(vocab_size - first, 0) :])
    tokenizer.add_tokens([token for token in tokens if token.content not in late])


def numbered(listed: Any, folder: Path) -> dict[int, AddedToken]:
    """An added_tokens_decoder."""
    if not isinstance(listed, dict) or not all(str(i).isdecimal() for i in listed):
        raise CheckpointError(f"{folder} has added tokens that are no object from ids to tokens.")
    return {int(number): _token(value) for number, value in listed.items()}


def _content(value: Any) -> str:
    return str(value.get("content") if isinstance(value, dict) else value)


def _token(value: Any) -> AddedToken:
    """A token as text, or as an object with flags."""
    if isinstance(value, str) and value:
        return AddedToken(value, special=True)
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, str) or not content:
        raise CheckpointError(f'tokenizer_config.json has the token {value!r}: text, or "content", is needed.')
    names = ("lstrip", "rstrip", "single_word", "normalized", "special")
    return AddedToken(content, **{name: value[name] is True for name in names if name in value})
