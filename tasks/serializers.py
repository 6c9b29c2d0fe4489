"""What each operation accepts. The texts are part of the OpenAPI document."""

from tasks.models import Task
from todo_project.api.serializers import input_serializer

_task = Task.resource

INPUT_SERIALIZERS = {
    "create": input_serializer(
        "CreateTask",
        "A new task.",
        _task,
        required=_task.required_to_create,
        defaults=_task.defaults,
    ),
    "update": input_serializer(
        "ReplaceTask",
        "Every field that a client can set, so that nothing is reset by omission. Only fields "
        "added after version 1.0 may be absent: they keep their values.",
        _task,
        required=_task.required_in_put,
    ),
    "partial_update": input_serializer(
        "UpdateTask", "The fields to change. An absent one keeps its value (RFC 7396).", _task
    ),
    "complete": input_serializer(
        "CompleteTask",
        "Whether the task is done from now on.",
        _task,
        fields=["is_completed"],
        required=["is_completed"],
    ),
}
"""By the viewset's action."""
