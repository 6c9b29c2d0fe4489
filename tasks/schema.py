"""What the OpenAPI document says of tasks: openapi.yaml, and what follows from the declaration."""

from pathlib import Path

from tasks.list_parameters import FIELDS
from tasks.models import Task
from tasks.serializers import INPUT_SERIALIZERS
from tasks.statements import PageQuery
from todo_project.api.fields import Schema, StrictField
from todo_project.api.openapi import BASE, load, merge

_task = Task.resource
_texts = load(Path(__file__).with_name("openapi.yaml"), BASE)
EXAMPLES = _task.example(search="milk", limit=100)


def _query(name: str, field: StrictField) -> Schema:
    """A query parameter."""
    schema = field.schema(True)
    description = schema.pop("description")
    if name in _task.filterable:
        description = f"Only tasks with this value. {description}"
    elif default := PageQuery._field_defaults[name]:
        schema["default"] = default
    if name in EXAMPLES:
        schema["examples"] = [EXAMPLES[name]]
    return {"in": "query", "name": name, "description": description, "schema": schema}


_list = {name.title().replace("_", ""): _query(name, field) for name, field in FIELDS.items()}
_texts["paths"]["/api/{user_id}/tasks"]["get"]["parameters"][1:1] = _list
_schemas = {"Task": _task.schema("A task, as every operation returns it.")} | {
    serializer.__name__.removesuffix("Serializer"): serializer.schema()
    for serializer in INPUT_SERIALIZERS.values()
}
DOCUMENT = merge(
    _texts,
    {
        "examples": {"Task": _task.example()},
        "components": {"schemas": _schemas, "parameters": _list},
    },
)
