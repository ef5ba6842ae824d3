"""Options: those that there are not are errors that name the nearest."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

from mlx_embed import CrossEncoder, EmbeddingModel
from mlx_embed.options import ENCODE, LOAD, EncodeOptions, LoadOptions
from tests.conftest import DATA


@pytest.mark.parametrize(("defaults", "options"), [(ENCODE, EncodeOptions), (LOAD, LoadOptions)])
def test_every_option_has_a_default_and_is_explained(defaults: dict[str, Any], options: Any) -> None:
    assert list(defaults) == list(get_type_hints(options))
    # Without the code's own indentation, which Python 3.13 leaves out.
    assert all(f"\n    {name}: " in inspect.getdoc(options) for name in defaults)


def test_unknown_options(tiny_bert: EmbeddingModel) -> None:
    calls: list[tuple[Callable[..., Any], str, str]] = [
        (lambda: tiny_bert.encode("a", prompt_nam="x"), "encode has no option 'prompt_nam'", "'prompt_name'"),
        (lambda: tiny_bert.encode_query("a", kernels=1), "encode has no option 'kernels'", "it has prompt_name, "),
        (lambda: EmbeddingModel.from_pretrained(DATA / "tiny-bert", devise="cpu"), "no option 'devise'", "'device'"),
        (lambda: CrossEncoder.from_pretrained(DATA / "tiny-bert", revisio="x"), "no option 'revisio'", "'revision'"),
    ]
    for call, message, hint in calls:
        with pytest.raises(TypeError, match=message) as found:
            call()
        assert hint in str(found.value)
