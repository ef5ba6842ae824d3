"""Whether tokens see what comes after them: what config.json says of it, under any of the names that there are for it.

Transformers reads one of these keys in one architecture and passes over it in the next. Here each is obeyed where it is
read there, and may not say otherwise where it is not: docs/checkpoints.md has the table.
"""

from collections.abc import Collection, Mapping
from typing import Any

from mlx_embed.errors import CheckpointError, UnsupportedModelError

# What each key says of whether attention is causal, if it is true and if it is false; None is nothing.
KEYS: dict[str, tuple[bool, bool | None]] = {
    "is_causal": (True, False),
    "causal": (True, False),
    "is_decoder": (True, None),
    "use_bidirectional_attention": (False, True),
    "use_bidirectional": (False, True),
    "bidirectional": (False, True),
}


def flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    """A key of config.json that is true or false.

    Raises:
        CheckpointError: another value. That is null too for `is_causal`, which transformers takes for false.
    """
    value = config.get(key)
    if isinstance(value, bool):
        return value
    if value is None and not (key == "is_causal" and key in config):
        return default
    raise CheckpointError(f'config.json has "{key}": {value!r}, where true or false is needed.')


def checked_direction(config: Mapping[str, Any], *, causal: bool, obeyed: Collection[str] = ()) -> bool:
    """`causal`, if no key but those that were obeyed says otherwise.

    Raises:
        CheckpointError: a key that is neither true nor false.
        UnsupportedModelError: a key that says otherwise.
    """
    for key, (if_true, if_false) in KEYS.items():
        if key not in config or (config[key] is None and key != "is_causal"):
            continue
        meant = if_true if flag(config, key, default=False) else if_false
        if meant not in (None, causal) and key not in obeyed:
            raise UnsupportedModelError(
                f'config.json has "{key}": {str(config[key]).lower()}, but for model_type {config.get("model_type")!r} '
                f"mlx_embed computes {'causal' if causal else 'bidirectional'} attention, since transformers does not "
                "obey that key there, or not always. Remove the key if vectors are meant so; docs/checkpoints.md says "
                "which keys are obeyed."
            )
    return causal


def decoder_is_causal(config: Mapping[str, Any]) -> bool:
    """Whether a decoder is causal: it is, unless `is_causal` is false; raises as `checked_direction`."""
    return checked_direction(config, causal=flag(config, "is_causal", default=True), obeyed=("is_decoder",))


def bert_is_causal(config: Mapping[str, Any]) -> bool:
    """Whether a BERT is causal: where `is_decoder` is true and `is_causal` not false; raises as `checked_direction`."""
    causal = flag(config, "is_decoder", default=False) and flag(config, "is_causal", default=True)
    return checked_direction(config, causal=causal, obeyed=("is_decoder",))
