"""The OpenAPI document of the routes, from the types that they decode and answer. `routes/docs.py` serves it.

https://spec.openapis.org/oas/v3.1.0
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from http_gateway.families import Family
from http_gateway.routing import Route

DESCRIPTION = (
    "Embedding, reranking, classification and entity models. Answers are JSON, or MessagePack where Accept names it."
)

# Every way in which a described route can refuse.
REFUSALS = {
    400: "The request is wrong",
    401: "The key is missing or wrong",
    404: "There is no such model",
    413: "Over a limit, which the message names",
    415: "The body is compressed",
    422: "Over a limit, where the gateway is set to say it so",
    424: "The model is for something else, or could not compute this input",
    429: "Overloaded: try again later",
    503: "No pod can be reached just now",
    504: "The deadline passed",
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    described = [route for route in routes if route.described]
    types = [kind for route in described for kind in types_of(route)]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in described:
        paths.setdefault(route.path, {})[route.method.lower()] = operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Heddle", "version": version("heddle"), "description": DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def types_of(route: Route) -> Sequence[Any]:
    assert route.described
    body = () if route.described.body is None else (route.described.body,)
    return (*body, route.described.answer, route.family.error)


def operation(route: Route, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    assert route.described
    answer = {"application/json": {"schema": schema_of[repr(route.described.answer)]}}
    answers = {"200": {"description": "Done", "content": {**answer, "application/msgpack": answer["application/json"]}}}
    entry: dict[str, Any] = {
        "summary": route.described.summary,
        "operationId": f"{route.method.lower()}{route.path.replace('/', '_').replace('{', '').replace('}', '')}",
        "tags": [route.family.name],
        "responses": answers | refusals(route.family, schema_of),
    }
    if route.described.body is not None:
        content = {"schema": schema_of[repr(route.described.body)], "example": route.described.example}
        entry["requestBody"] = {"required": True, "content": {"application/json": content}}
    if "{" in route.path:
        name = route.path.partition("{")[2].rstrip("}")
        entry["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
    return entry


def refusals(family: Family, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema_of[repr(family.error)]}}
    return {str(status): {"description": text, "content": content} for status, text in REFUSALS.items()}
