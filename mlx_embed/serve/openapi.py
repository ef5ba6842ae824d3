"""The routes in OpenAPI's words, made of the shapes that read the requests."""

from collections.abc import Sequence
from typing import Any

import msgspec

from mlx_embed.serve.errors import STATUS, TEI_STATUS, shape_of

ERRORS: dict[str, Any] = {
    "openai": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
    "cohere": {"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}},
    "ollama": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    "tei": {
        "type": "object",
        "required": ["error", "error_type"],
        "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
    },
}


def document(routes: Sequence[Any]) -> dict[str, Any]:
    """OpenAPI 3.1 of `app.Route`s."""
    from mlx_embed import __version__

    kinds = [kind for route in routes for kind in (route.body, route.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    schema_of = {id(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        for path in route.paths:
            shown = path.replace("{name:path}", "{name}")
            paths.setdefault(shown, {})[route.method.lower()] = _operation(route, path, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "mlx-embed", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components | {f"{shape}_error": schema for shape, schema in ERRORS.items()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Any, path: str, schema_of: dict[int, Any]) -> dict[str, Any]:
    shape = shape_of(path)
    media = "text/plain" if route.answer is str else "application/json"
    error = {"schema": {"$ref": f"#/components/schemas/{shape}_error"}}
    overridden = TEI_STATUS if shape == "tei" else {}
    statuses = sorted({overridden.get(reason, status) for reason, status in STATUS.items()})
    operation: dict[str, Any] = {
        "summary": (route.handle.__doc__ or route.name).strip().splitlines()[0],
        "responses": {
            "200": {"description": "the answer", "content": {media: {"schema": schema_of[id(route.answer)]}}},
            **{str(s): {"description": "refused", "content": {"application/json": error}} for s in statuses},
        },
    }
    if route.body is not None:
        content = {"application/json": {"schema": schema_of[id(route.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    if "{name" in path:
        operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    return operation
