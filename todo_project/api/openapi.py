"""What the operations of the OpenAPI document share: problems, headers, and how one is declared.

drf-spectacular finds the routes and maps the serializers. References to responses, parameters and
headers, and links, are beyond it: `operation` leaves them with the operation as an extension, and
`complete`, the hook for the finished document, puts them in place.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from django.conf import settings
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiYamlRenderer, OpenApiYamlRenderer2
from drf_spectacular.utils import OpenApiResponse, extend_schema

from todo_project.api import problems
from todo_project.api.problems import FieldError, field_error
from todo_project.api.renderers import JSONRenderer

Schema = dict[str, Any]
Good = tuple[str, Any, Sequence[str], Mapping[str, Any]]
"""A response: description, serializer or schema, names of headers, examples by name."""

View = TypeVar("View", bound=Callable[..., Any])

EXTENSION = "x-references"

# What a reader wants to know of an operation first.
ORDER = (
    "operationId",
    "summary",
    "description",
    "tags",
    "security",
    "parameters",
    "requestBody",
    "responses",
)


class OpenAPIJSONRenderer(JSONRenderer):
    media_type = "application/vnd.oai.openapi+json"


OTHER_RENDERERS = (OpenAPIJSONRenderer, OpenApiYamlRenderer, OpenApiYamlRenderer2)
"""For media types of the document other than application/json."""

FIELD_CODES = (
    "blank",
    "invalid",
    "invalid_cursor",
    "max_length",
    "null",
    "null_characters_not_allowed",
    "repeated_parameter",
    "required",
    "unknown_field",
    "unknown_parameter",
)

REQUEST_ID = "7d5d5ad6-0d3c-4e6a-9df5-0c3f5f2f5f37"

SCHEMAS: dict[str, Schema] = {
    "Problem": {
        "type": "object",
        "description": "Problem details (RFC 9457). Go by `status` and `code`, not by the texts.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string", "const": "about:blank"},
            "title": {"type": "string", "description": "The status in words."},
            "status": {"type": "integer", "description": "The HTTP status once more."},
            "detail": {"type": "string", "description": "What is wrong, for people."},
            "code": {"type": "string", "description": "What is wrong, for programs."},
        },
    },
    "FieldError": {
        "type": "object",
        "description": "What is wrong with a member of the body, or with a query parameter.",
        "required": ["field", "code", "detail"],
        "properties": {
            "field": {"type": "string", "description": "Its name."},
            "code": {"type": "string", "enum": list(FIELD_CODES)},
            "detail": {"type": "string", "description": "What is wrong, for people."},
        },
    },
}

HEADERS: dict[str, Schema] = {
    "ETag": {
        "description": "A strong tag (RFC 9110), which changes exactly when the answer does.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[^"]+"$'},
        "example": '"2026-03-01T09:30:00.000000Z"',
    },
    "Link": {
        "description": (
            'The pages before and after this one (RFC 8288), `rel="prev"` and `rel="next"`, as '
            "paths with a query. Follow them as they are. Absent where there are none."
        ),
        "schema": {"type": "string"},
        "example": (
            "</api/a11ce000-0000-4000-8000-000000000001/tasks"
            '?limit=2&cursor=q0oTnJ7gqz4Yw1cS>; rel="next"'
        ),
    },
    "Location": {
        "description": "The path of the task.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
        "example": (
            "/api/a11ce000-0000-4000-8000-000000000001/tasks/019ca8d9-a8c0-7000-8000-000000000001"
        ),
    },
    "Retry-After": {
        "description": "Seconds to wait before the next try.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
        "example": problems.RETRY_AFTER,
    },
    "WWW-Authenticate": {
        "description": "The challenge (RFC 6750).",
        "required": True,
        "schema": {"type": "string", "pattern": "^Bearer "},
        "example": 'Bearer realm="tasks"',
    },
    "X-Request-ID": {
        "description": (
            "Finds the request in the service's log. One sent with the request, of 1 to 128 "
            "characters from `A-Z a-z 0-9 . _ -`, is kept; any other is replaced."
        ),
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
        "example": REQUEST_ID,
    },
}


def references(section: str, names: Iterable[str]) -> Schema:
    return {name: {"$ref": f"#/components/{section}/{name}"} for name in names}


def _problem(
    status: int,
    description: str,
    codes: Mapping[str, str | FieldError],
    headers: Sequence[str] = (),
    **extra: str,
) -> tuple[int, Schema]:
    """A response whose `code` is one of `codes`.

    Each comes with a detail for its example, or with the field error that it then has. `extra`
    are more members.
    """
    particular: Schema = {
        "type": "object",
        "properties": {"status": {"const": status}, "code": {"enum": list(codes)}},
    }
    examples = {}
    for code, about in codes.items():
        if isinstance(about, str):
            body = problems.body(status, code, about, (), **extra)
        else:
            detail = "The body does not fit: see errors."
            if status == 400:
                detail = f"Bad query parameter {about['field']}: {about['detail']}"
            body = problems.body(status, code, detail, [about], **extra)
            items = {"$ref": "#/components/schemas/FieldError"}
            particular["properties"]["errors"] = {"type": "array", "minItems": 1, "items": items}
        examples[code] = {"value": body}
    if extra:
        particular["properties"] |= {name: {"type": "string"} for name in extra}
        particular["required"] = list(extra)
    schema = {"allOf": [{"$ref": "#/components/schemas/Problem"}, particular]}
    response = {
        "description": description,
        "headers": references("headers", [*headers, "X-Request-ID"]),
        "content": {problems.MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }
    return status, response


_IN_PATH = {"malformed_id": "user_id in the path is not a UUID."}
_IN_ANY = {
    "invalid_host": "The Host header is not allowed.",
    "bad_request": "The request is malformed.",
}
_IN_BODY = {
    "parse_error": "The body is not JSON: unexpected end of data.",
    "incomplete_body": "The body broke off.",
}
_TITLE_MISSING = field_error("title", "required", "This field is required.")
_AWAY = {"database_unavailable": "The database does not answer; nothing was changed."}

PROBLEMS: dict[str, tuple[int, Schema]] = {
    "BadPath": _problem(400, "An id in the path is not a UUID.", _IN_PATH | _IN_ANY),
    "BadParameters": _problem(
        400,
        "A query parameter is unknown, given twice or bad, or `user_id` is not a UUID.",
        {
            "invalid_parameter": field_error(
                "limit", "invalid", "It must be a whole number from 1 to 1000."
            ),
            "invalid_cursor": field_error(
                "cursor", "invalid_cursor", "This cursor is not of this list."
            ),
            **_IN_PATH,
            **_IN_ANY,
        },
    ),
    "BadBody": _problem(
        400,
        "The body is not JSON, or an id in the path is not a UUID.",
        _IN_BODY | _IN_PATH | _IN_ANY,
    ),
    "BadNewTask": _problem(
        400,
        "The body is not JSON, the `Idempotency-Key` is bad, or `user_id` is not a UUID.",
        {
            **_IN_BODY,
            "invalid_idempotency_key": (
                "Idempotency-Key must have 1 to 255 visible ASCII characters."
            ),
            **_IN_PATH,
            **_IN_ANY,
        },
    ),
    "Unauthorized": _problem(
        401,
        "The token is missing or does not hold.",
        {
            "not_authenticated": "A bearer token is required.",
            "invalid_token": "The token has expired.",
        },
        ["WWW-Authenticate"],
    ),
    "Forbidden": _problem(
        403,
        "The token holds, but for another user than the `user_id` of the path.",
        {"permission_denied": "The token is for another user."},
    ),
    "NotFound": _problem(
        404,
        "This owner has no such task. One of another owner looks the same as one never made.",
        {"not_found": "There is no such task."},
    ),
    "NotAcceptable": _problem(
        406,
        "`Accept` excludes JSON.",
        {"not_acceptable": "The API answers in application/json."},
    ),
    "PreconditionFailed": _problem(
        412,
        "The task has changed since the tag in `If-Match`; `ETag` is the tag that it has by now.",
        {"precondition_failed": problems.PreconditionFailed.default_detail},
        ["ETag"],
    ),
    "ContentTooLarge": _problem(
        413,
        "The body has more than 64 KiB.",
        {"content_too_large": problems.ContentTooLarge.default_detail},
    ),
    "UnsupportedMediaType": _problem(
        415,
        "The body is of none of the media types listed.",
        {"unsupported_media_type": 'Unsupported media type "text/plain" in request.'},
    ),
    "Invalid": _problem(
        422,
        "The body is JSON that does not fit; `errors` says what about which field.",
        {"validation_error": _TITLE_MISSING},
    ),
    "InvalidNewTask": _problem(
        422,
        "The body is JSON that does not fit (`errors` says what about which field), or the "
        "`Idempotency-Key` was used with another payload.",
        {
            "validation_error": _TITLE_MISSING,
            "idempotency_key_reused": "This Idempotency-Key was used with another payload.",
        },
    ),
    "InternalError": _problem(
        500,
        "The service failed.",
        {"internal_error": "The service failed; the request_id finds the log line."},
        request_id=REQUEST_ID,
    ),
    "Unavailable": _problem(
        503,
        "The database is away or too busy, or the token issuer's keys have never been had. "
        "Nothing was changed, unless `code` is `outcome_unknown`: then read before you write "
        "again, or write with an `Idempotency-Key` or `If-Match`.",
        {
            **_AWAY,
            "outcome_unknown": (
                "The database went away before it answered: the change may have been made, or not."
            ),
            "issuer_unavailable": "The token issuer's keys are not to be had.",
        },
        ["Retry-After"],
    ),
    "NotReady": _problem(
        503,
        "The database is away, or some migration is not applied.",
        {**_AWAY, "migrations_pending": "Migrations are not applied: tasks.0002_add_label."},
        ["Retry-After"],
    ),
}
"""Responses by component name, each with its status."""

CODES = sorted(
    {"method_not_allowed"}.union(
        *(response["content"][problems.MEDIA_TYPE]["examples"] for _, response in PROBLEMS.values())
    )
)
"""Every `code` that a problem of the API can have."""

SCHEMAS["Problem"]["properties"]["code"]["enum"] = CODES


def operation(
    id: str,
    summary: str,
    description: str,
    *,
    tag: str,
    responses: Mapping[int, Good],
    problems: Sequence[str],
    request: Any = None,
    media_types: Sequence[str] = ("application/json",),
    request_examples: Mapping[str, Any] = {},
    request_required: bool = True,
    parameters: Mapping[str, Schema] = {},
    links: Mapping[str, Schema] = {},
) -> Callable[[View], View]:
    """Declare an operation, as a decorator of the view's method.

    `responses` are the good ones, by status, and `problems` names the others. `parameters` and
    `links` become components under their names; the links are those of every response with a
    body.
    """
    more = {
        "problems": problems,
        "parameters": parameters,
        "request_required": request_required,
        "request_examples": request_examples,
        "responses": {str(status): rest for status, (_, _, *rest) in responses.items()},
        "links": links,
    }
    return extend_schema(
        operation_id=id,
        summary=summary,
        description=description,
        tags=[tag],
        request=dict.fromkeys(media_types, request) if request else None,
        responses={
            status: OpenApiResponse(body, description)
            for status, (description, body, *_) in responses.items()
        },
        extensions={EXTENSION: more},
    )


def complete(result: Schema, **_: Any) -> Schema:
    """drf-spectacular's hook: put in place what `operation` left, and the components."""
    components = result["components"]
    secured = settings.AUTH_MODE != "none"
    if not secured:  # drf-spectacular has found the scheme that no operation requires
        del components["securitySchemes"]
    shared: dict[str, Schema] = {"parameters": {}, "links": {}, "responses": {}}
    for methods in result["paths"].values():
        for method, declared in methods.items():
            more = declared.pop(EXTENSION)
            shared["parameters"] |= more["parameters"]
            declared.pop("parameters", None)
            if more["parameters"]:
                declared["parameters"] = [*references("parameters", more["parameters"]).values()]
            if "requestBody" in declared:
                declared["requestBody"]["required"] = more["request_required"]
                _add_examples(declared["requestBody"], more["request_examples"])
            for status, response in declared["responses"].items():
                headers, examples = more["responses"][status]
                response["headers"] = references("headers", [*headers, "X-Request-ID"])
                _add_examples(response, examples)
                if more["links"] and "content" in response:
                    shared["links"] |= more["links"]
                    response["links"] = references("links", more["links"])
            for name in more["problems"]:
                if secured or name not in ("Unauthorized", "Forbidden"):
                    status, shared["responses"][name] = PROBLEMS[name]
                    declared["responses"][str(status)] = references("responses", [name])[name]
            declared["responses"] = dict(sorted(declared["responses"].items()))
            if secured:
                declared.setdefault("security", [])
            methods[method] = {name: declared[name] for name in ORDER if name in declared}
    components["schemas"] |= SCHEMAS
    components["headers"] = HEADERS
    components |= {section: dict(sorted(found.items())) for section, found in shared.items()}
    return result


def _add_examples(message: Schema, examples: Mapping[str, Any]) -> None:
    for content in message.get("content", {}).values():
        content["examples"] = {name: {"value": value} for name, value in examples.items()}


@lru_cache(maxsize=4)
def document(auth_mode: str, media_type: str) -> bytes:
    """The document of the running service: made once, as it takes a quarter of a second."""
    schema = SchemaGenerator().get_schema(request=None, public=True)
    renderer = OpenApiYamlRenderer() if "json" not in media_type else JSONRenderer()
    return renderer.render(schema)


_STATUS: Schema = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string", "const": "ok"}},
}
_READY: Schema = {
    "type": "object",
    "required": ["status", "database", "migrations"],
    "properties": {
        name: {"type": "string", "const": "ok"} for name in ("status", "database", "migrations")
    },
}

get_health = operation(
    "getHealth",
    "Ask whether the process lives",
    "Touches no database, and answers any `Host`: for a liveness probe.",
    tag="health",
    responses={200: ("It does.", _STATUS, [], {"alive": {"status": "ok"}})},
    problems=("ContentTooLarge", "InternalError"),
)
get_readiness = operation(
    "getReadiness",
    "Ask whether requests can be served",
    "The database answers and every migration is applied: for a readiness probe.",
    tag="health",
    responses={
        200: (
            "They can.",
            _READY,
            [],
            {"ready": {"status": "ok", "database": "ok", "migrations": "ok"}},
        )
    },
    problems=("ContentTooLarge", "InternalError", "NotReady"),
)
