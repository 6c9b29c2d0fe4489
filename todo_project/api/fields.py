"""Serializer fields that coerce nothing: `"yes"` and `1` are no booleans, `5` is no text.

Each class says three things about a kind of field: which JSON it accepts (`to_internal_value`),
how a database value becomes JSON (`to_representation`), and both as JSON Schema (`schema`).
REST framework's own fields accept more, and would be copied for every request.
"""

import re
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

import orjson
from rest_framework import serializers
from rest_framework.fields import empty

from todo_project.api.converters import parse_uuid

Schema = dict[str, Any]

NO_NULL_CHARACTERS = r"^[^\u0000]*$"
# What Python's str.strip removes; ECMA 262's \s differs in six characters.
_SPACE = r"\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


def trimmed_pattern(max_length: int) -> str:
    """The texts that have 1 to `max_length` characters once the white space around is removed."""
    visible = rf"[^\u0000{_SPACE}]"
    middle = rf"[^\u0000]{{0,{max_length - 2}}}"
    return rf"^[{_SPACE}]*{visible}(?:{middle}{visible})?[{_SPACE}]*$"


class StrictField(serializers.Field):
    """What all kinds share. Errors have the codes in `codes`."""

    json_type: ClassVar[str] = "string"
    is_json_type: ClassVar[bool] = True
    """Whether the Python value is the JSON value."""
    codes: ClassVar[tuple[str, ...]] = ("invalid", "null", "required")

    def run_validation(self, data: Any = empty) -> Any:
        if data is None:
            if not self.allow_null:
                self.fail("null")
            return None
        return self.to_internal_value(data)

    def to_representation(self, value: Any) -> Any:
        return value

    def from_representation(self, value: Any) -> Any:
        """The value whose `to_representation` was this."""
        return value if self.is_json_type or value is None else self.to_internal_value(value)

    def parse_parameter(self, text: str) -> Any:
        """The value that a query parameter spells out. Raises ValidationError."""
        if self.json_type == "string":
            return self.to_internal_value(text)
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = text
        # One spelling for each value: no white space, no leading zero.
        if orjson.dumps(value) != text.encode():
            self.fail("invalid")
        return self.to_internal_value(value)

    def schema(self, for_input: bool) -> Schema:
        """JSON Schema (2020-12) of what is accepted, or of what is returned."""
        types: Any = [self.json_type, "null"] if self.allow_null else self.json_type
        return {"type": types, "description": self.help_text} | self.constraints(for_input)

    def constraints(self, for_input: bool) -> Schema:
        return {}


class TextField(StrictField, serializers.CharField):
    """A string, kept exactly, or trimmed with `trim_whitespace`."""

    default_error_messages = {
        "null_characters_not_allowed": "Null characters are not allowed.",
    }
    codes = (*StrictField.codes, "blank", "max_length", "null_characters_not_allowed")

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if self.trim_whitespace:
            data = data.strip()
        if not data and not self.allow_blank:
            self.fail("blank")
        if self.max_length is not None and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        if "\0" in data:  # PostgreSQL cannot store it
            self.fail("null_characters_not_allowed")
        return data

    def constraints(self, for_input: bool) -> Schema:
        limits: Schema = {} if self.allow_blank else {"minLength": 1}
        if for_input and self.trim_whitespace and self.max_length:
            # White space around the text does not count, so it may be longer than max_length.
            return {**limits, "pattern": trimmed_pattern(self.max_length)}
        if self.max_length:
            limits["maxLength"] = self.max_length
        return {**limits, "pattern": NO_NULL_CHARACTERS} if for_input else limits


class BooleanField(StrictField, serializers.BooleanField):
    json_type = "boolean"
    default_error_messages = {"invalid": "It must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        if data is not True and data is not False:
            self.fail("invalid", input=data)
        return bool(data)


class IntegerField(StrictField, serializers.IntegerField):
    json_type = "integer"
    codes = (*StrictField.codes, "max_value", "min_value")

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        if self.max_value is not None and data > self.max_value:
            self.fail("max_value", max_value=self.max_value)
        if self.min_value is not None and data < self.min_value:
            self.fail("min_value", min_value=self.min_value)
        return int(data)

    def constraints(self, for_input: bool) -> Schema:
        limits = {"minimum": self.min_value, "maximum": self.max_value}
        return {name: limit for name, limit in limits.items() if limit is not None}


class DateTimeField(StrictField, serializers.DateTimeField):
    """RFC 3339 (section 5.6) with an offset; returned in UTC with six digits of fraction."""

    is_json_type = False
    default_error_messages = {
        "invalid": "It must be a time of RFC 3339 with an offset, such as 2026-03-01T09:30:00Z.",
    }
    PATTERN = (
        r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](\.[0-9]{1,6})?"
        r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
    )
    RETURNED = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"

    def to_internal_value(self, data: Any) -> datetime:
        if not isinstance(data, str) or not re.fullmatch(self.PATTERN[1:-1], data, re.ASCII):
            self.fail("invalid")
        try:
            return datetime.fromisoformat(data).astimezone(UTC)
        except (ValueError, OverflowError):  # 30 February; before year 1 in UTC
            self.fail("invalid")

    def to_representation(self, value: datetime) -> str:
        """A value without a time zone is in UTC."""
        if value.tzinfo is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
        return value.isoformat(timespec="microseconds") + "Z"

    def constraints(self, for_input: bool) -> Schema:
        return {"format": "date-time", "pattern": self.PATTERN if for_input else self.RETURNED}


class UUIDField(StrictField, serializers.UUIDField):
    """The 8-4-4-4-12 form of RFC 9562 section 4, in either case; returned in lower case."""

    is_json_type = False

    def to_internal_value(self, data: Any) -> UUID:
        value = parse_uuid(data) if isinstance(data, str) else None
        if value is None:
            self.fail("invalid", value=data)
        return value

    def to_representation(self, value: UUID | str) -> str:
        return str(value)

    def constraints(self, for_input: bool) -> Schema:
        return {"format": "uuid"}


class ChoiceField(StrictField, serializers.ChoiceField):
    """One of the choices of a model field of text or integers."""

    codes = (*StrictField.codes, "invalid_choice")

    @property
    def json_type(self) -> str:  # type: ignore[override]
        return "integer" if all(type(value) is int for value in self.choices) else "string"

    def to_internal_value(self, data: Any) -> Any:
        if type(data) not in (str, int) or data not in self.choices:  # True equals 1
            self.fail("invalid_choice", input=data)
        return data

    def constraints(self, for_input: bool) -> Schema:
        return {"enum": [*self.choices, *([None] if self.allow_null else [])]}
