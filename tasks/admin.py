"""Tasks for operators.

The list shows the tasks of one owner at a time, so that every page and every action is narrowed to
one owner, whatever the number of tasks.
"""

import re
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminTextareaWidget
from django.db import connection, models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse, reverse_lazy
from django.utils import timezone
from django.utils.html import format_html

from tasks.models import Task
from todo_project.api.converters import parse_uuid

# "View site": there is nothing at /
admin.site.site_url = reverse_lazy("docs")  # type: ignore[assignment]

HELP = "Paste a user's id to see their tasks, or a task's id, in full."


class Search(NamedTuple):
    """What the search box asks for: `owner` and, of their tasks, one or those with the words."""

    owner: UUID | None = None
    task: UUID | None = None
    words: str = ""
    totals: dict[str, Any] | None = None
    """Of all of the owner's tasks, see `TaskQuerySet.totals`."""
    problem: str = HELP
    """Why there is no owner."""

    @classmethod
    def parse(cls, text: str) -> "Search":
        first, *rest = text.split(maxsplit=1)
        words = "".join(rest)
        id = parse_uuid(first)
        if id is None:
            help = f"“{first}” is not an id. {HELP} Words of a title may follow the user's id."
            return cls(problem=help)
        if totals := Task.objects.owned_by(id).totals():
            return cls(id, words=words, totals=totals)
        if not words and (task := Task.objects.filter(id=id).first()):
            owner = Task.objects.owned_by(task.user_id)
            return cls(task.user_id, task=id, totals=owner.totals())
        return cls(problem=f"{id} is the id of no task and of no user who has tasks.")


class LinesField(forms.CharField):
    """Text kept to the letter, though browsers send every line break as CRLF."""

    def to_python(self, value: Any) -> Any:
        return re.sub(r"\r\n?", "\n", super().to_python(value) or "")

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.to_python(initial) != self.to_python(data)


class TaskForm(forms.ModelForm):
    """Knows what it showed: hidden inputs bring it back (`show_hidden_initial`).

    What the operator changed is told from that, and refused where the task has moved on since.
    """

    class Meta:
        model = Task
        fields = Task.resource.writable

    def clean(self) -> None:
        for name in self.changed_data:
            field, shown_name = self.fields[name], self.add_initial_prefix(name)
            shown, current = self.data.get(shown_name), self.initial.get(name)
            wanted = self.cleaned_data.get(name, current)
            if not field.has_changed(current, shown) or not field.has_changed(current, wanted):
                continue
            now = "" if current is None else current
            self.add_error(
                name,
                f"This was changed meanwhile: it is “{now}” now, and was “{shown}” when you opened "
                "the page. To replace it all the same, save again.",
            )
            self.data = {**self.data, shown_name: now}


class AgeFilter(admin.SimpleListFilter):
    title = "age"
    parameter_name = "age"
    # Days; "-" is younger than.
    names = {
        "-1": "Less than a day",
        "-7": "Less than 7 days",
        "-30": "Less than 30 days",
        "30": "30 days or more",
        "365": "365 days or more",
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(self.names.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Task]) -> QuerySet[Task]:
        value = self.value()
        if value not in self.names:
            return queryset
        then = timezone.now() - timedelta(days=abs(int(value)))
        return queryset.filter(**{f"created_at__{'gt' if int(value) < 0 else 'lte'}": then})


@admin.register(Task)
class TaskAdmin(admin.ModelAdmin):
    form = TaskForm
    readonly_fields = ["owner" if n == "user_id" else n for n in Task.resource.read_only]
    fields = [*Task.resource.writable, *readonly_fields]
    list_display = ["title", *Task.resource.filterable, "id", "created_at", "updated_at"]
    list_filter = [*Task.resource.filterable, AgeFilter]
    sortable_by = Task.resource.orderable
    search_fields = ["title"]
    search_help_text = "A task's id, or a user's id and, if you like, words of a title"
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    class Media:
        css = {"all": ["tasks/admin.css"]}

    # The list -----------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        text = request.GET.get("q", "").strip()
        search = Search.parse(text) if text else Search()
        request.search = search  # type: ignore[attr-defined]
        return super().changelist_view(request, {**(extra_context or {}), "search": search})

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Task], search_term: str
    ) -> tuple[QuerySet[Task], bool]:
        search: Search = request.search  # type: ignore[attr-defined]
        if search.owner is None:
            return queryset.none(), False
        queryset = queryset.filter(user_id=search.owner)
        if search.task is not None:
            queryset = queryset.filter(id=search.task)
        return super().get_search_results(request, queryset, search.words)

    @admin.display(description="user id")
    def owner(self, task: Task) -> str:
        path = reverse("admin:tasks_task_changelist")
        return format_html(
            '<a href="{}?q={}">{}</a> (all tasks of this user)', path, task.user_id, task.user_id
        )

    # One task -----------------------------------------------------------------------------

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if isinstance(db_field, models.TextField) and not db_field.choices:
            widget = AdminTextareaWidget(attrs={"rows": 1} if not db_field.blank else {})
            kwargs |= {"form_class": LinesField, "strip": not db_field.blank, "widget": widget}
            return db_field.formfield(**kwargs, show_hidden_initial=True)
        return super().formfield_for_dbfield(db_field, request, **kwargs, show_hidden_initial=True)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """No: owners make their tasks."""
        return False

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        """Locked by a form that is saved, so that no client comes between its check and its write.

        SQLite has locked all by then: its transactions begin with the lock.
        """
        task = super().get_object(request, object_id, from_field)
        if task is None or not connection.in_atomic_block:
            return task
        locked = Task.objects.filter(user_id=task.user_id, id=task.id).select_for_update()
        return locked.first()

    def save_model(self, request: HttpRequest, obj: Task, form: Any, change: bool) -> None:
        """Write what the operator changed and nothing else, as the API does."""
        if form.changed_data:
            obj.save(update_fields=form.changed_data)

    def delete_model(self, request: HttpRequest, obj: Task) -> None:
        Task.objects.owned_by(obj.user_id).remove(obj.id)
