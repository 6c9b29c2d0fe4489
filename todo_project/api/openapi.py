"""The OpenAPI document: drf-spectacular finds the routes, a `Document` describes them."""

from collections.abc import Iterable
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry
from drf_spectacular.renderers import OpenApiYamlRenderer

from todo_project.api.fields import Schema
from todo_project.api.problems import CODES, MEDIA_TYPE, Problem, body
from todo_project.api.renderers import JSONRenderer
from todo_project.api.resource import KINDS

Document = dict[str, Any]
"""A view's `document`: the `paths` and `components` of OpenAPI, in short.

- Parameters, headers, schemas and problems are named instead of referred to. A response with one
  object of a named schema has every link.
- A response or `request` has `schema` and `examples` without the media types. An example of a
  schema in `examples` states only its differences.
- In `problems` each has its description and its codes; `problem_examples` has the arguments of a
  code's example, see `Problem`.
"""

AUTHENTICATION_PROBLEMS = {"Unauthorized", "Forbidden"}


def merge(first: Any, second: Any) -> Any:
    """The members of both objects, at any depth; of anything else the second."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return second
    return first | {k: merge(first[k], v) if k in first else v for k, v in second.items()}


def load(path: Path, base: Document) -> Document:
    return merge(base, yaml.safe_load(path.read_text(encoding="utf-8")))


BASE = load(Path(__file__).with_suffix(".yaml"), {})


def ref(section: str, name: str) -> Schema:
    return {"$ref": f"#/components/{section}/{name}"}


def refs(section: str, names: Iterable[str]) -> Schema:
    return {name: ref(section, name) for name in names}


class OperationSchema(AutoSchema):
    """Describes an operation as its view's document does, or leaves it out if that is empty."""

    def get_operation(
        self, path: str, path_regex: str, path_prefix: str, method: str, registry: Any
    ) -> Schema | None:
        document: Document = getattr(self.view, "document", {})
        if not document:
            return None
        try:
            stated = document["paths"][path] | document["paths"][path][method.lower()]
        except KeyError:
            raise ImproperlyConfigured(f"{method} {path} is not in the OpenAPI document") from None
        operation = {key: stated[key] for key in ("operationId", "summary", "description")}
        operation["tags"] = document["tags"]
        if settings.AUTH_MODE != "none":
            operation["security"] = [{"bearer": []}] if self.view.authentication_classes else []
        if "parameters" in stated:
            operation["parameters"] = [ref("parameters", name) for name in stated["parameters"]]
        if request := stated.get("request"):
            operation["requestBody"] = {
                "content": dict.fromkeys(self.map_parsers(), _content(document, request)),
                "required": request.get("required", True),
            }
        responses = {str(n): _response(document, r) for n, r in stated["responses"].items()}
        names = {*document["every_problem"], *stated.get("problems", [])}
        if settings.AUTH_MODE == "none":
            names -= AUTHENTICATION_PROBLEMS
        for name in names:
            status, _ = CODES[document["problems"][name][1]]
            responses[str(status)] = ref("responses", name)
        operation["responses"] = dict(sorted(responses.items()))
        return operation


def _response(document: Document, stated: Schema) -> Schema:
    response: Schema = {}
    if "schema" in stated:
        response["content"] = {"application/json": _content(document, stated)}
    response["description"] = stated["description"]
    response["headers"] = refs("headers", stated.get("headers", []) + document["every_header"])
    if isinstance(stated.get("schema"), str):
        response["links"] = refs("links", document["components"]["links"])
    return response


def _content(document: Document, stated: Schema) -> Schema:
    schema, examples = stated["schema"], stated["examples"]
    match schema:
        case str(name):
            whole = document["examples"].get(name, {})
            examples = {label: whole | value for label, value in examples.items()}
            schema = ref("schemas", name)
        case [name]:
            whole = document["examples"].get(name, {})
            examples = {label: [whole | v for v in values] for label, values in examples.items()}
            schema = {"type": "array", "items": ref("schemas", name)}
    return {"schema": schema, "examples": {k: {"value": v} for k, v in examples.items()}}


def add_components(result: Schema, generator: SchemaGenerator, **_: Any) -> Schema:
    """drf-spectacular's hook: add the components of every view's document."""
    documents = (callback.cls.document for *_, callback in generator.endpoints or ())
    document = reduce(merge, documents, BASE)
    responses = {name: _problem(document, *rest) for name, rest in document["problems"].items()}
    codes = {
        "Problem": sorted(CODES),
        "FieldError": document["field_error_codes"]
        + sorted({code for kind in KINDS.values() for code in kind.codes}),
    }
    schemas = {name: {"properties": {"code": {"enum": codes[name]}}} for name in codes}
    components = ComponentRegistry().build(
        merge(document["components"], {"responses": responses, "schemas": schemas})
    )
    if settings.AUTH_MODE == "none":
        del components["securitySchemes"], components["headers"]["WWW-Authenticate"]
        for name in AUTHENTICATION_PROBLEMS:
            del components["responses"][name]
    result["components"] = components
    return result


def _problem(document: Document, description: str, *codes: str) -> Schema:
    """A response whose `code` is one of several."""
    status, _ = CODES[codes[0]]
    particular: Schema = {
        "type": "object",
        "properties": {"status": {"const": status}, "code": {"enum": codes}},
    }
    examples = {}
    for code in codes:
        example = Problem(code, **document["problem_examples"].get(code, {}))
        examples[code] = {"value": body(example)}
        if example.errors:
            items = ref("schemas", "FieldError")
            particular["properties"]["errors"] = {"type": "array", "minItems": 1, "items": items}
        for name in example.extension:
            particular["properties"][name] = {"type": "string"}
            particular["required"] = [name]
    schema = {"allOf": [ref("schemas", "Problem"), particular]}
    headers = [*document["problem_headers"].get(status, []), "X-Request-ID"]
    return {
        "description": description,
        "headers": refs("headers", headers),
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }


@lru_cache(maxsize=4)
def document(auth_mode: str, media_type: str) -> bytes:
    """The document of the running service, made once for each media type."""
    schema = SchemaGenerator().get_schema(request=None, public=True)
    renderer = OpenApiYamlRenderer() if "json" not in media_type else JSONRenderer()
    return renderer.render(schema)
