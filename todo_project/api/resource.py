"""What an API does with the fields of a model, derived once from one declaration."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from django.core.exceptions import ImproperlyConfigured
from django.core.validators import (
    BaseValidator,
    MaxLengthValidator,
    MaxValueValidator,
    MinValueValidator,
)
from django.db import models
from django.db.backends.base.operations import BaseDatabaseOperations

from todo_project.api import fields
from todo_project.api.fields import Schema, StrictField

KINDS: dict[type, type[StrictField]] = {
    models.UUIDField: fields.UUIDField,
    models.TextField: fields.TextField,
    models.CharField: fields.TextField,
    models.BooleanField: fields.BooleanField,
    models.IntegerField: fields.IntegerField,  # the smaller and the larger ones inherit from it
    models.DateTimeField: fields.DateTimeField,
    models.Choices: fields.ChoiceField,  # stands for any field with choices
}


@dataclass(frozen=True, kw_only=True)
class APIField:
    """What the API does with one field. Every field that has an entry is returned."""

    description: str
    example: Any
    writable: bool = False
    required_in_put: bool = False
    """Only for fields of the first release: a PUT of an older client lacks the newer ones."""
    filterable: bool = False
    orderable: bool = False
    searchable: bool = False


class Resource:
    """A model's fields as the API sees them.

    `declared` has an entry for every field of the model; None is for one that the API never
    shows. Raises ImproperlyConfigured, naming the field, for what cannot be derived.
    """

    def __init__(self, model: type[models.Model], declared: Mapping[str, APIField | None]) -> None:
        self.name = model.__name__
        self.model_fields = {field.name: field for field in model._meta.concrete_fields}
        for name in self.model_fields.keys() ^ declared.keys():
            missing = "the model has no such field" if name in declared else "it has no entry"
            self._fail(name, f"{missing}: declare each field in the model and in its table")
        self.fields = {name: entry for name, entry in declared.items() if entry is not None}
        self.returned = tuple(self.fields)
        self.writable = tuple(self._having("writable"))
        self.filterable = tuple(self._having("filterable"))
        self.orderable = tuple(self._having("orderable"))
        self.searchable = tuple(self._having("searchable"))
        self.read_only = tuple(name for name in self.fields if name not in self.writable)
        self.output = {name: self.serializer_field(name) for name in self.returned}
        self.defaults = {
            name: field.get_default() if field.has_default() else None
            for name, field in self.model_fields.items()
            if name in self.writable and (field.has_default() or field.null)
        }
        self.required_to_create = tuple(n for n in self.writable if n not in self.defaults)
        self.required_in_put = tuple(self._having("required_in_put"))
        for name, entry in self.fields.items():
            self._check(name, entry)
        # Changes with what is returned, so that an ETag can.
        shape = ",".join(f"{name}:{type(self.output[name]).__name__}" for name in self.returned)
        self.version = hashlib.sha256(shape.encode()).hexdigest()[:4]

    def _having(self, use: str) -> Iterator[str]:
        return (name for name, entry in self.fields.items() if getattr(entry, use))

    def _fail(self, name: str, problem: str) -> NoReturn:
        raise ImproperlyConfigured(f"{self.name}.{name}: {problem}.")

    def _check(self, name: str, entry: APIField) -> None:
        kind = type(self.output[name])
        if entry.writable and not entry.required_in_put and name not in self.defaults:
            self._fail(name, "a writable field needs a default, null=True or required_in_put")
        if entry.searchable and kind is not fields.TextField:
            self._fail(name, "only text is searchable")
        if entry.filterable and kind in (fields.TextField, fields.DateTimeField):
            self._fail(name, "text and times are not filterable")

    def serializer_field(self, name: str, **options: Any) -> StrictField:
        """A serializer field for a model field, which has its constraints."""
        field, entry = self.model_fields[name], self.fields[name]
        field_type: type = models.Choices if field.choices else type(field)
        kind = next((KINDS[parent] for parent in field_type.mro() if parent in KINDS), None)
        if kind is None:
            self._fail(name, f"{type(field).__name__} is of no kind in {__name__}")
        options |= {"help_text": entry.description, "allow_null": field.null}
        if kind is fields.ChoiceField:
            options["choices"] = field.choices
        elif kind is fields.TextField:
            options["max_length"] = _limit(field, MaxLengthValidator, [field.max_length], min)
            options |= {"allow_blank": field.blank, "trim_whitespace": not field.blank}
        elif kind is fields.IntegerField:
            # Django's own validators have the range of the database that is in use.
            low, high = BaseDatabaseOperations.integer_field_ranges[field.get_internal_type()]
            options["min_value"] = _limit(field, MinValueValidator, [low], max)
            options["max_value"] = _limit(field, MaxValueValidator, [high], min)
        return kind(**options)

    def example(self, **values: Any) -> dict[str, Any]:
        """An instance as the API returns it, for the documentation."""
        return {name: entry.example for name, entry in self.fields.items()} | values

    def schema(self, description: str) -> Schema:
        """JSON Schema of an instance as the API returns it."""
        return {
            "type": "object",
            "description": description,
            "properties": {name: field.schema(False) for name, field in self.output.items()},
            "required": list(self.returned),
        }


def _limit(field: models.Field, kind: type, others: list[Any], choose: Any) -> Any:
    validators = (v for v in field.validators if isinstance(v, BaseValidator) and type(v) is kind)
    limits = [validator.limit_value for validator in validators]
    return choose([limit for limit in limits + others if limit is not None], default=None)
