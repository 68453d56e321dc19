"""The OpenAPI document of the routes, from the types that they decode and answer. `operations.py` serves it.

https://spec.openapis.org/oas/v3.1.0
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import msgspec

from http_gateway.web.routing import Description, Family, Route

DESCRIPTION = (
    "Embedding, reranking, classification and entity models. Answers are JSON, or MessagePack where Accept names it."
)

# Every status with which a described route can refuse a request.
REFUSALS = {
    400: "The request is invalid, or its input is over a limit",
    401: "The key is missing or wrong",
    403: "The key does not allow this priority",
    404: "There is no such model",
    413: "The request is over a limit, which the message names",
    415: "The content-encoding of the body is not supported",
    422: "The request is over a limit, if over_limit_status is 422",
    424: "The model has another task, or could not compute this input",
    429: "Overloaded: try again later",
    503: "No pod can be reached just now",
    504: "The deadline passed",
}

# Prefixes of our paths at Baseten and KServe; see path_aliases.py for the variants.
SERVERS = [
    {"url": "/"},
    {
        "url": "/environments/{environment}/sync",
        "description": "Baseten's paths; also /production/sync, /development/sync and /deployment/{id}/sync",
        "variables": {"environment": {"default": "production"}},
    },
    {"url": "/openai", "description": "KServe's prefix, for the paths that begin with /v1/"},
]
DEFAULT_ROUTE_PATHS = ("/environments/{environment}/predict", "/v1/models/model:predict")


# These take the bodies of the model's task, whatever the default route is.
TASK_PATHS = ("/", "/invocations", "/vertex")


@dataclass(frozen=True, slots=True)
class Defaults:
    """The routes that POST / and Baseten's predict paths lead to."""

    stated: str  # path that the settings name; "" if they name none
    by_kind: str  # path for the kind of the model, if the settings name none
    task: str  # path of the route that runs the model's task

    @property
    def path(self) -> str:
        return self.stated or self.by_kind

    @property
    def shown_first(self) -> str:
        """Prefers the task's own route to one that chooses the task by the body."""
        return self.task if self.path in TASK_PATHS else self.path


def document(routes: Sequence[Route], defaults: Defaults) -> dict[str, Any]:
    """Puts the default route first. Routes that run the model's task get an example that fits the model."""
    described = [fit_example(route, defaults, routes) for route in routes if route.described]
    types = [kind for route in described for kind in described_types(route)]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in described:
        paths.setdefault(route.path, {})[route.method.lower()] = operation(route, schema_of)
    default = find_post(described, defaults.path)
    first = defaults.shown_first
    if default:
        aliases = (*DEFAULT_ROUTE_PATHS, "/") if defaults.stated else DEFAULT_ROUTE_PATHS
        for path in aliases:
            paths.setdefault(path, {})["post"] = default_route_operation(path, default, first, schema_of)
    paths = {first: paths[first], **paths} if first in paths else paths
    return {
        "x-default-route": first,
        "openapi": "3.1.0",
        "info": {"title": "Heddle", "version": version("heddle"), "description": DESCRIPTION},
        "servers": SERVERS,
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def find_post(routes: Iterable[Route], path: str) -> Route | None:
    return next((route for route in routes if route.method == "POST" and route.path == path), None)


def fit_example(route: Route, defaults: Defaults, routes: Sequence[Route]) -> Route:
    """Gives a route that runs the model's task the example of the task's own route."""
    task = find_post(routes, defaults.task)
    if route.method != "POST" or route.path not in TASK_PATHS or not (task and task.described and route.described):
        return route
    example, listed_in = task.described.example, route.described.listed_in
    described = replace(route.described, example={listed_in: [example]} if listed_in else example)
    return replace(route, described=described)


def described_types(route: Route) -> Sequence[Any]:
    assert route.described
    return (*body_types(route.described), route.described.answer, route.family.error)


def body_types(described: Description) -> tuple[Any, ...]:
    if described.body is None:
        return ()
    return described.body if isinstance(described.body, tuple) else (described.body,)


def operation(route: Route, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    assert route.described
    entry: dict[str, Any] = {
        "summary": route.described.summary,
        "operationId": operation_id(route.method, route.path),
        "tags": [route.family.name],
        "responses": {"200": success_response(route.described, schema_of)} | refusal_responses(route.family, schema_of),
    }
    if route.is_open:
        entry["security"] = []
    if bodies := [schema_of[repr(body)] for body in body_types(route.described)]:
        schema = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
        if route.described.listed_in:
            schema = object_with_list(route.described.listed_in, schema)
        content = {"schema": schema, "example": route.described.example}
        entry["requestBody"] = {"required": True, "content": {"application/json": content}}
    if parameters := path_parameters(route.path):
        entry["parameters"] = parameters
    return entry


def object_with_list(field: str, item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {field: {"type": "array", "items": item}}, "required": [field]}


def default_route_operation(path: str, default: Route, name: str, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **operation(replace(default, path=path), schema_of),
        "summary": f"The default route, which is {name} here.",
        "tags": ["Baseten"],
    }


def success_response(described: Description, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    content = {described.content_type: {"schema": schema_of[repr(described.answer)]}}
    if described.content_type == "application/json":
        content["application/msgpack"] = content["application/json"]
    headers = {name: header(text, TYPES.get(name, "integer")) for name, text in described.headers.items()}
    return {"description": "Done", "content": content, "headers": {**headers, "x-request-id": REQUEST_ID}}


# Types of the headers that are not integers.
TYPES = {"x-compute-type": "string"}


def header(text: str, kind: str) -> dict[str, Any]:
    return {"description": text, "required": True, "schema": {"type": kind}}


REQUEST_ID = header("The request's own, or a new one; it is in the logs of every service", "string")


def operation_id(method: str, path: str) -> str:
    return re.sub(r"\W+", "_", f"{method.lower()}{path}").rstrip("_")


def path_parameters(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def refusal_responses(family: Family, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema_of[repr(family.error)]}}
    headers = {"x-request-id": REQUEST_ID}
    return {
        str(status): {"description": text, "content": content, "headers": headers} for status, text in REFUSALS.items()
    }
