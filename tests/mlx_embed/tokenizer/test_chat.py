"""Chat templates rendered as transformers renders them: golden, and live."""

from typing import Any

import pytest

from mlx_embed.tokenizer.chat import renderer

pytest.importorskip("jinja2", reason="Jinja is not installed, extra chat")

# Blocks on lines of their own leave none, a loop is left early, JSON keeps its letters, what transformers always gives
# is defined, and what is marked for training is there, with names of its own.
TEMPLATE = """{% for message in messages %}
    {% if message.role == "other" %}
        {% break %}
    {% endif %}
{{ message | tojson }}
{% endfor %}
{% generation %}
{% set ask = "was it?" %}
{{ tools is defined }} {{ documents is not none }} {{ ask -}}
{% endgeneration %}
{{ ask }}{% if add_generation_prompt %}:{% endif %}"""
MESSAGES = [{"role": "query", "content": "Wärme <b>"}, {"role": "other", "content": "x"}]
TEXT = '{"role": "query", "content": "Wärme <b>"}\nTrue False was it?is it?'


def test_golden() -> None:
    assert renderer(TEMPLATE, {"ask": "is it?"})(MESSAGES) == TEXT


def test_live() -> None:
    theirs: Any = pytest.importorskip("transformers.utils.chat_template_utils", reason="transformers is not installed")
    found, _ = theirs.render_jinja_template([MESSAGES], chat_template=TEMPLATE, ask="is it?")
    assert found == [TEXT]
