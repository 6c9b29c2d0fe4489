"""Request bodies: strict, and validated without a serializer instance for each request."""

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, cast

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from todo_project.api.fields import Schema, StrictField
from todo_project.api.problems import FieldError, Problem, field_error
from todo_project.api.resource import Resource

MAX_ERRORS = 100


class InputSerializer(serializers.Serializer[Any]):
    """What an operation accepts.

    `Meta.defaults` are for absent fields. Members named in `Meta.ignored` change nothing, so that
    clients can send back what they got; any other unknown one is an error.
    """

    class Meta:  # not attributes of the class, where they would hide fields of the same names
        description = ""
        defaults: Mapping[str, Any] = MappingProxyType({})
        ignored: tuple[str, ...] = ()

    @classmethod
    def validate_body(cls, data: Any) -> dict[str, Any]:
        """The values to write, by field. Raises Problem, which names every field at fault."""
        if not isinstance(data, dict):
            raise Problem("validation_error", "The body must be a JSON object.")
        fields = cls._declared_fields
        values: dict[str, Any] = {}
        errors: list[FieldError] = []
        for name, field in fields.items():
            if name in data:
                try:
                    values[name] = field.run_validation(data[name])
                except ValidationError as error:
                    (detail,) = cast("list[ErrorDetail]", error.detail)
                    errors.append(field_error(name, str(detail.code), str(detail)))
            elif field.required:
                errors.append(field_error(name, "required", "This field is required."))
            elif name in cls.Meta.defaults:
                values[name] = cls.Meta.defaults[name]
        errors += [
            field_error(name, "unknown_field", "There is no such field.")
            for name in data
            if name not in fields and name not in cls.Meta.ignored
        ]
        if errors:
            raise Problem("validation_error", errors=errors[:MAX_ERRORS])
        return values

    @classmethod
    def schema(cls) -> Schema:
        """JSON Schema of what is accepted. Ignored members are `readOnly` (JSON Schema 2020-12,
        validation, section 9.4)."""
        fields = cast("dict[str, StrictField]", cls._declared_fields)
        properties = {name: field.schema(True) for name, field in fields.items()}
        for name, default in cls.Meta.defaults.items():
            # Not as `default`: openapi-typescript would make a member that has one required.
            properties[name]["description"] += f" `{json.dumps(default)}` if absent."
        for name in cls.Meta.ignored:
            properties[name] = {
                "readOnly": True,
                "description": "Ignored, so that a returned task can be sent back.",
            }
        required = [name for name, field in fields.items() if field.required]
        return {
            "type": "object",
            "description": cls.Meta.description,
            "properties": properties,
            "additionalProperties": False,
            **({"required": required} if required else {}),
        }


def input_serializer(
    name: str,
    description: str,
    resource: Resource,
    fields: Iterable[str] | None = None,
    required: Iterable[str] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> type[InputSerializer]:
    """A serializer class for a request body: by default with every writable field."""
    required = set(required)
    declared: dict[str, Any] = {
        field: resource.serializer_field(field, required=field in required)
        for field in fields or resource.writable
    }
    meta = {"description": description, "defaults": defaults, "ignored": resource.read_only}
    declared["Meta"] = type("Meta", (), meta)
    return type(f"{name}Serializer", (InputSerializer,), declared)
