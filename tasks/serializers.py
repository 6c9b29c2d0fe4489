"""The shapes of a task: what is returned, and what is accepted by each operation.

The fields are REST framework's, so that the OpenAPI document follows from them. Validation is
stricter than REST framework's (no value is coerced, unknown members are errors) and works on the
class's own fields, where REST framework would bind a copy of each to every request.
"""

from typing import Any, cast

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.fields import empty

from tasks.models import DESCRIPTION_LENGTH, TITLE_LENGTH, Row
from todo_project.api.problems import FieldError, Invalid, field_error

MOST_ERRORS = 100


class TextField(serializers.CharField):
    """A string, kept to the letter."""

    default_error_messages = {
        "null_characters_not_allowed": "Null characters are not allowed.",
    }

    def run_validation(self, data: Any = empty) -> Any:
        if data is None:
            if self.allow_null:
                return None
            self.fail("null")
        if not isinstance(data, str):
            self.fail("invalid")
        if self.trim_whitespace:
            data = data.strip()
        if not data and not self.allow_blank:
            self.fail("blank")
        if self.max_length is not None and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        if "\0" in data:  # PostgreSQL cannot hold it
            self.fail("null_characters_not_allowed")
        return data


class StrictBooleanField(serializers.BooleanField):
    """`true` or `false`, and not what looks like one."""

    def run_validation(self, data: Any = empty) -> Any:
        if data is None:
            self.fail("null")
        if data is not True and data is not False:
            self.fail("invalid", input=data)
        return data


def title_field(**options: Any) -> TextField:
    return TextField(max_length=TITLE_LENGTH, min_length=1, **options)


def description_field(**options: Any) -> TextField:
    return TextField(
        max_length=DESCRIPTION_LENGTH,
        allow_null=True,
        allow_blank=True,
        trim_whitespace=False,
        **options,
    )


class TaskSerializer(serializers.Serializer[Row]):
    """A task, as every operation returns it."""

    id = serializers.UUIDField(read_only=True)
    user_id = serializers.UUIDField(read_only=True)
    title = serializers.CharField(read_only=True, max_length=TITLE_LENGTH)
    description = serializers.CharField(
        read_only=True, allow_null=True, max_length=DESCRIPTION_LENGTH
    )
    is_completed = serializers.BooleanField(read_only=True)
    created_at = serializers.DateTimeField(read_only=True)
    updated_at = serializers.DateTimeField(read_only=True)


(ID, USER_ID, TITLE, DESCRIPTION, IS_COMPLETED, CREATED_AT, UPDATED_AT) = (
    TaskSerializer._declared_fields
)


def represent(owner: str, row: Row) -> dict[str, Any]:
    """A task as JSON. A literal, since a list does this a thousand times."""
    id, title, description, is_completed, created_at, updated_at = row
    return {
        ID: id,
        USER_ID: owner,
        TITLE: title,
        DESCRIPTION: description,
        IS_COMPLETED: is_completed,
        CREATED_AT: created_at,
        UPDATED_AT: updated_at,
    }


class InputSerializer(serializers.Serializer[Any]):
    """What an operation accepts. Read-only members sent back are ignored, others are errors."""

    @classmethod
    def validated(cls, data: Any) -> dict[str, Any]:
        """The values to write, by field.

        Raises `Invalid`, naming every field at fault.
        """
        if not isinstance(data, dict):
            raise Invalid("The body must be a JSON object.")
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
            elif field.default is not empty:
                values[name] = field.default
        errors += [
            field_error(name, "unknown_field", "There is no such field.")
            for name in data
            if name not in fields and name not in READ_ONLY
        ]
        if errors:
            raise Invalid(errors=errors[:MOST_ERRORS])
        return values


READ_ONLY = frozenset({"id", "user_id", "created_at", "updated_at"})


class CreateTaskSerializer(InputSerializer):
    """A task to be made."""

    title = title_field()
    description = description_field(default=None)
    is_completed = StrictBooleanField(default=False)


class ReplaceTaskSerializer(InputSerializer):
    """All of a task that a client can set, so that nothing is reset by omission."""

    title = title_field()
    description = description_field()
    is_completed = StrictBooleanField()


class UpdateTaskSerializer(InputSerializer):
    """Some of a task: what is absent stays as it is (RFC 7396)."""

    title = title_field(required=False)
    description = description_field(required=False)
    is_completed = StrictBooleanField(required=False)


class CompleteTaskSerializer(InputSerializer):
    """Whether the task is done from now on."""

    is_completed = StrictBooleanField()
