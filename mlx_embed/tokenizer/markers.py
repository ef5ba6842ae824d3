"""The markers of ColBERT's queries and documents: tokens that stand before a text, and are to stay in one piece."""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer

from mlx_embed.tokenizer.surrogates import well_formed


def keep_whole(tokenizer: Tokenizer, prefixes: Iterable[str]) -> None:
    """Make the marker that each prefix begins with a special token, if the vocabulary has it.

    Otherwise the tokenizer would take "[unused0]" apart, or lowercase "[Q] ", where models were trained on its id. As
    in sentence-transformers, the marker is all of the prefix, or what is before its first space; one that is in no
    vocabulary is a text like any other.
    """
    for prefix in map(well_formed, prefixes):
        known = [token for token in (prefix, *prefix.split(None, 1)[:1]) if tokenizer.token_to_id(token) is not None]
        if prefix.strip() and known and tokenizer.encode(known[0], add_special_tokens=False).tokens != known[:1]:
            tokenizer.add_special_tokens([AddedToken(known[0], normalized=False, special=True)])
