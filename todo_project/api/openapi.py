"""The OpenAPI document: drf-spectacular finds the routes, a `Document` describes them.

A view's `document` has the texts that no code states (openapi.yaml beside the view), and the
schemas that follow from its serializers. References, which drf-spectacular does not make, keep
the document short.
"""

import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.renderers import OpenApiYamlRenderer, OpenApiYamlRenderer2

from todo_project.api import problems
from todo_project.api.fields import Schema
from todo_project.api.renderers import JSONRenderer
from todo_project.api.resource import KINDS

Document = dict[str, Any]
"""A part of the OpenAPI document: `paths` and `components` as OpenAPI has them, except that

- parameters, headers, links, schemas and problems are named instead of referred to;
- `problems` of an operation are added to its responses, as is `every_problem`; `every_header` is
  added to the responses that are no problems;
- a response or a `request` has `schema` and `examples` without the media types. An example of a
  schema in `examples` states only its differences.
"""

REFERENCE = re.compile(r"#/components/(\w+)/([\w-]+)")
ORDER = [
    "operationId",
    "summary",
    "description",
    "tags",
    "security",
    "parameters",
    "requestBody",
    "responses",
]


def load(path: Path) -> Document:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


BASE = load(Path(__file__).with_suffix(".yaml"))
_field_error_codes = BASE["components"]["schemas"]["FieldError"]["properties"]["code"]["enum"]
_field_error_codes += sorted({code for kind in KINDS.values() for code in kind.codes})
CODES = sorted({*BASE["codes"], "method_not_allowed"})
"""Every `code` that a problem of the API can have."""
BASE["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] = CODES


class OpenAPIJSONRenderer(JSONRenderer):
    media_type = "application/vnd.oai.openapi+json"


OTHER_RENDERERS = (OpenAPIJSONRenderer, OpenApiYamlRenderer, OpenApiYamlRenderer2)
"""For media types of the document other than application/json."""


def ref(section: str, name: str) -> Schema:
    return {"$ref": f"#/components/{section}/{name}"}


def refs(section: str, names: list[str]) -> Schema:
    return {name: ref(section, name) for name in names}


class OperationSchema(AutoSchema):
    """Describes an operation as its view's document does."""

    @property
    def document(self) -> Document:
        """Empty for a view that the OpenAPI document leaves out."""
        return getattr(self.view, "document", {})

    def is_excluded(self) -> bool:
        return not self.document

    def get_operation(
        self, path: str, path_regex: str, path_prefix: str, method: str, registry: Any
    ) -> Schema | None:
        if self.is_excluded():
            return None
        try:
            operation = deepcopy(self.document["paths"][path][method.lower()])
        except KeyError:
            raise ImproperlyConfigured(f"{method} {path} is not in the OpenAPI document") from None
        if "parameters" in operation:
            operation["parameters"] = [ref("parameters", n) for n in operation["parameters"]]
        responses = {
            str(status): self._response(response)
            for status, response in operation["responses"].items()
        }
        names = [*self.document["every_problem"], *operation.pop("problems", [])]
        if request := operation.pop("request", None):
            names.append("UnsupportedMediaType")
            media_types = request.pop("media_types", ["application/json"])
            content = self._content(request)
            operation["requestBody"] = {
                "content": dict.fromkeys(media_types, content),
                "required": request.get("required", True),
            }
        if settings.AUTH_MODE == "none":
            operation.pop("security", None)
            names = [name for name in names if name not in ("Unauthorized", "Forbidden")]
        else:
            operation.setdefault("security", [{"bearer": []}])
        for name in names:
            responses[str(BASE["problems"][name]["status"])] = ref("responses", name)
        operation["responses"] = dict(sorted(responses.items()))
        return {name: operation[name] for name in ORDER if name in operation}

    def _response(self, static: Schema) -> Schema:
        response: Schema = {"description": static["description"]}
        if "schema" in static:
            response = {"content": {"application/json": self._content(static)}} | response
        headers = [*static.get("headers", []), *self.document["every_header"], "X-Request-ID"]
        response["headers"] = refs("headers", headers)
        if isinstance(name := static.get("schema"), str):
            response["links"] = refs("links", self.document["links"][name])
        return response

    def _content(self, static: Schema) -> Schema:
        schema = static["schema"]
        name = schema[0] if isinstance(schema, list) else schema
        if isinstance(name, str):
            schema = ref("schemas", name)
        if isinstance(static["schema"], list):
            schema = {"type": "array", "items": schema}
        whole = self.document.get("examples", {}).get(name, {}) if isinstance(name, str) else {}
        examples = {
            label: {
                "value": [whole | e for e in value] if isinstance(value, list) else whole | value
            }
            for label, value in static["examples"].items()
        }
        return {"schema": schema, "examples": examples}


def add_components(result: Schema, generator: SchemaGenerator, **_: Any) -> Schema:
    """drf-spectacular's hook: add the components that are referred to."""
    available: Schema = {"responses": {name: _problem(p) for name, p in BASE["problems"].items()}}
    for document in (BASE, *(callback.cls.document for *_, callback in generator.endpoints or ())):
        for section, components in document.get("components", {}).items():
            available[section] = available.get(section, {}) | components
    components = result["components"]
    found = {*REFERENCE.findall(str(result["paths"]))}
    while found:
        section, name = found.pop()
        if name not in components.setdefault(section, {}):
            components[section][name] = available[section][name]
            found |= {*REFERENCE.findall(str(components[section][name]))}
    if settings.AUTH_MODE != "none":
        components["securitySchemes"] = available["securitySchemes"]
    result["components"] = {
        section: dict(sorted(named.items())) for section, named in sorted(components.items())
    }
    return result


def _problem(static: Schema) -> Schema:
    """A response whose `code` is one of several."""
    status, codes = static["status"], static["codes"]
    particular: Schema = {
        "type": "object",
        "properties": {"status": {"const": status}, "code": {"enum": codes}},
    }
    examples = {}
    for code in codes:
        about = BASE["codes"][code]
        more = {"detail": about} if isinstance(about, str) else about
        examples[code] = {"value": problems.body(status, code, **more)}
        if "errors" in more:
            items = ref("schemas", "FieldError")
            particular["properties"]["errors"] = {"type": "array", "minItems": 1, "items": items}
        if "request_id" in more:
            particular["properties"]["request_id"] = {"type": "string"}
            particular["required"] = ["request_id"]
    schema = {"allOf": [ref("schemas", "Problem"), particular]}
    return {
        "description": static["description"],
        "headers": refs("headers", [*static.get("headers", []), "X-Request-ID"]),
        "content": {problems.MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }


@lru_cache(maxsize=4)
def document(auth_mode: str, media_type: str) -> bytes:
    """The document of the running service, made once for each media type."""
    schema = SchemaGenerator().get_schema(request=None, public=True)
    renderer = OpenApiYamlRenderer() if "json" not in media_type else JSONRenderer()
    return renderer.render(schema)
