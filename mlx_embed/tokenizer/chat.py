"""Chat templates, rendered in Jinja's sandbox as transformers does; needs the extra `chat`."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from mlx_embed.errors import CheckpointError, UnsupportedModelError

# What transformers always gives a template; that one is defined can make a difference.
ABSENT = {"tools": None, "documents": None, "add_generation_prompt": False}
Messages = Sequence[Mapping[str, Any]]


def renderer(template: str, values: Mapping[str, Any]) -> Callable[[Messages], str]:
    """A function of messages to text; `values` are what the template knows besides them.

    Raises:
        UnsupportedModelError: Jinja is not installed.
        CheckpointError: a template that is broken; from the function, one that refuses these messages.
    """
    try:
        from jinja2 import TemplateError, nodes
        from jinja2.ext import Extension, loopcontrols
        from jinja2.parser import Parser
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise UnsupportedModelError(
            f'This reranker has a chat template, which needs Jinja ({error}): pip install ".[chat]" in a clone of '
            "mlx-embed, or pip install jinja2"
        ) from error

    class Generation(Extension):
        """{% generation %}, which marks what transformers counts in training: here what is within stays as it is."""

        tags = {"generation"}  # noqa: RUF012, of Jinja

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, **options: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **options})

    extensions: Sequence[type[Extension]] = [Generation, loopcontrols]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        compiled = environment.from_string(template)
    except TemplateError as error:
        raise CheckpointError(f"The chat template is broken: {error}") from error

    def render(messages: Messages) -> str:
        try:
            return compiled.render(messages=messages, **{**ABSENT, **values})
        except Exception as error:  # what a stranger's template raises may be anything
            raise CheckpointError(
                f"The chat template takes no messages of the roles query and document: {type(error).__name__}: {error}"
            ) from error

    return render
