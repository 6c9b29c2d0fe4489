"""Tasks for operators."""

import re
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminTextareaWidget
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse_lazy

from tasks.models import Task
from todo_project.api.converters import parse_uuid

# "View site": there is nothing at /
admin.site.site_url = reverse_lazy("docs")  # type: ignore[assignment]


class LinesField(forms.CharField):
    """Text kept to the letter, though browsers send every line break as CRLF."""

    def to_python(self, value: Any) -> Any:
        return re.sub(r"\r\n?", "\n", super().to_python(value) or "")

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.to_python(initial) != self.to_python(data)


@admin.register(Task)
class TaskAdmin(admin.ModelAdmin):
    fields = [*Task.resource.writable, *Task.resource.read_only]
    readonly_fields = Task.resource.read_only
    list_display = ["title", "user_id", "is_completed", "created_at", "updated_at"]
    list_filter = Task.resource.filterable
    search_fields = ["id"]  # shows the box; get_search_results does the search
    search_help_text = "A task's id or a user's id, in full"

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if isinstance(db_field, models.TextField) and not db_field.choices:
            widget = AdminTextareaWidget(attrs={"rows": 1} if not db_field.blank else {})
            kwargs |= {"form_class": LinesField, "strip": not db_field.blank, "widget": widget}
            return db_field.formfield(**kwargs)
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """No: owners make their tasks."""
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Task], search_term: str
    ) -> tuple[QuerySet[Task], bool]:
        """Exact look-up: an index serves it, at any number of tasks."""
        if not search_term:
            return queryset, False
        id = parse_uuid(search_term.strip())
        if id is None:
            return queryset.none(), False
        return queryset.filter(id=id) | queryset.filter(user_id=id), False

    def save_model(self, request: HttpRequest, obj: Task, form: Any, change: bool) -> None:
        """Write what was changed and nothing else: a client may have changed the rest meanwhile."""
        if form.changed_data:
            obj.save(update_fields=form.changed_data)
