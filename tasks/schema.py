"""What the OpenAPI document says of tasks: openapi.yaml, and what follows from the declaration."""

from pathlib import Path

from tasks.list_parameters import MAX_LIMIT, MAX_SEARCH_LENGTH, ORDERINGS
from tasks.models import Task
from tasks.serializers import INPUT_SERIALIZERS
from todo_project.api.fields import NO_NULL_CHARACTERS, Schema
from todo_project.api.openapi import Document, load

_task = Task.resource


def _query(name: str, description: str, schema: Schema) -> Schema:
    return {"in": "query", "name": name, "description": description, "schema": schema}


def _filters() -> dict[str, Schema]:
    parameters = {}
    for name in _task.filterable:
        schema = _task.output[name].schema(True) | {"examples": [_task.fields[name].example]}
        description = f"Only tasks with this value. {schema.pop('description')}"
        component = name.title().replace("_", "")
        parameters[component] = _query(name, description, schema)
    return parameters


def _document() -> Document:
    document = load(Path(__file__).with_name("openapi.yaml"))
    document["examples"] = {"Task": _task.example()}
    components = document["components"]
    components["schemas"] = {"Task": _task.schema("A task, as every operation returns it.")} | {
        serializer.__name__.removesuffix("Serializer"): serializer.schema()
        for serializer in INPUT_SERIALIZERS.values()
    }
    filters = _filters()
    components["parameters"] |= filters | {
        "Search": _query(
            "search",
            f"Only tasks with this text in {' or '.join(_task.searchable)}, whatever the case.",
            {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_SEARCH_LENGTH,
                "pattern": NO_NULL_CHARACTERS,
                "examples": ["milk"],
            },
        ),
        "Ordering": _query(
            "ordering",
            "A field to order by, descending with `-`. Text is ordered by code point.",
            {"type": "string", "enum": list(ORDERINGS), "default": ORDERINGS[0]},
        ),
    }
    components["parameters"]["Limit"]["schema"] |= {"maximum": MAX_LIMIT, "default": MAX_LIMIT}
    listed = document["paths"]["/api/{user_id}/tasks"]["get"]["parameters"]
    listed[1:1] = filters
    return document


DOCUMENT = _document()
