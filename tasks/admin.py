"""Tasks for operators.

The list shows the tasks of one owner at a time, so that every page and every action is narrowed to
one owner, whatever the number of tasks.
"""

import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple, cast
from uuid import UUID

import orjson
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.widgets import AdminTextareaWidget
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import connection, models, transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import path, reverse, reverse_lazy
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.http import require_http_methods

from tasks.models import Task, TaskQuerySet
from todo_project.api.converters import parse_uuid
from todo_project.api.resource import Resource
from todo_project.database.deadline import end_deadline, extend_deadline

# "View site": there is nothing at /
admin.site.site_url = reverse_lazy("docs")  # type: ignore[assignment]

ACTION_TIMEOUT = 50.0
"""Seconds that an action on all tasks of an owner may take; proxies wait for 60."""

ERASE_TIME = 20.0
"""Seconds that a click erases for; there may be more tasks than one request can take."""

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
        if (id := parse_uuid(first)) is None:
            help = f"“{first}” is not an id. {HELP} Words of a title may follow the user's id."
            return cls(problem=help)
        if totals := Task.objects.owned_by(id).totals():
            return cls(id, words=words, totals=totals)
        if not words and (task := Task.objects.filter(id=id).first()):
            owner = Task.objects.owned_by(task.user_id)
            return cls(task.user_id, task=id, totals=owner.totals())
        return cls(problem=f"{id} is the id of no task and of no user who has tasks.")


class LinesField(forms.CharField):
    """Text kept exactly, though browsers send every line break as CRLF."""

    def to_python(self, value: Any) -> Any:
        return re.sub(r"\r\n?", "\n", super().to_python(value) or "")

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.to_python(initial) != self.to_python(data)


class TaskForm(forms.ModelForm):
    """Knows what it showed, by hidden inputs (`show_hidden_initial`), and so what was changed.

    Refuses a change to a field that has another value by now.
    """

    class Meta:
        model = Task
        fields = Task.resource.writable

    def clean(self) -> None:
        for name in self.changed_data:
            field, shown_name = self.fields[name], self.add_initial_prefix(name)
            shown, current = self.data.get(shown_name), self.get_initial_for_field(field, name)
            wanted = self.cleaned_data.get(name, current)
            if not field.has_changed(current, shown) or not field.has_changed(current, wanted):
                continue
            now = "" if current is None else current
            self.add_error(
                name,
                f"This was changed meanwhile: it is “{now}” now, and was “{shown}” when you opened "
                "the page. To replace it anyway, save again.",
            )
            self.data = {**dict(self.data.items()), shown_name: now}


class AgeFilter(admin.SimpleListFilter):
    title = parameter_name = "age"
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


def count(tasks: int) -> str:
    return "1 task" if tasks == 1 else f"{tasks:,} tasks"


def log(request: HttpRequest, flag: int, owner: UUID | None, message: str) -> LogEntry:
    """An entry in the admin's log for what is done to many tasks of one owner."""
    return LogEntry.objects.create(
        user_id=cast(int, request.user.pk),
        content_type=ContentType.objects.get_for_model(Task),
        object_repr=f"Tasks of user {owner}",
        action_flag=flag,
        change_message=message,
    )


def as_json(tasks: TaskQuerySet) -> Iterator[bytes]:
    """A JSON array. The request is over when it is sent, so each page has a deadline of its own."""
    separator = b"["
    try:
        extend_deadline()
        for page in tasks.in_pages():
            for task in page:
                yield separator + orjson.dumps(task)
                separator = b",\n"
            extend_deadline()
        yield b"]\n" if separator != b"[" else b"[]\n"
    finally:
        end_deadline()


def filters(resource: Resource) -> list[str]:
    """Fields with few, known values: those of others Django would look up in the whole table."""
    return [
        name
        for name in resource.filterable
        if isinstance(field := resource.model_fields[name], models.BooleanField) or field.choices
    ]


@admin.register(Task)
class TaskAdmin(admin.ModelAdmin):
    form = TaskForm
    readonly_fields = ["owner" if n == "user_id" else n for n in Task.resource.read_only]
    fields = [*Task.resource.writable, *readonly_fields]
    list_display = ["title", *Task.resource.filterable, "created_at", "updated_at", "id"]
    list_filter = [*filters(Task.resource), AgeFilter]
    sortable_by = Task.resource.orderable
    search_fields = ["title"]
    search_help_text = "A task's id, or a user's id and, if you like, words of a title"
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    # One input, in UTC: TaskForm has one hidden input for each field.
    formfield_overrides = {
        models.DateTimeField: {
            "form_class": forms.DateTimeField,
            "widget": forms.DateTimeInput(
                format="%Y-%m-%dT%H:%M:%S", attrs={"type": "datetime-local", "step": 1}
            ),
        }
    }

    class Media:
        css = {"all": ["tasks/admin.css"]}

    # The list -----------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        text = request.GET.get("q", "").strip()
        search = Search.parse(text) if text else Search()
        request.search = search  # type: ignore[attr-defined]
        may_erase = self.has_delete_permission(request)
        context = {"search": search, "may_erase": may_erase, **(extra_context or {})}
        return super().changelist_view(request, context)

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

    # Actions, on the tasks of one owner -----------------------------------------------------

    actions = ["mark_completed", "mark_open", "export"]

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> Any:
        """Without Django's own: it would collect what it deletes."""
        # Django 6.1 passes the location, and warns where the parameter is missing.
        location = {"action_location": action_location} if action_location else {}
        actions = super().get_actions(request, **location)
        actions.pop("delete_selected", None)
        return actions

    @admin.action(description="Mark as completed", permissions=["change"])
    def mark_completed(self, request: HttpRequest, tasks: TaskQuerySet) -> None:
        self._mark(request, tasks, True)

    @admin.action(description="Mark as open", permissions=["change"])
    def mark_open(self, request: HttpRequest, tasks: TaskQuerySet) -> None:
        self._mark(request, tasks, False)

    def _mark(self, request: HttpRequest, tasks: TaskQuerySet, is_completed: bool) -> None:
        extend_deadline(ACTION_TIMEOUT)
        with transaction.atomic():
            changed = tasks.set_completed(is_completed)
            done = f"{count(changed)} marked as {'completed' if is_completed else 'open'}."
            if changed:
                log(request, CHANGE, request.search.owner, done)  # type: ignore[attr-defined]
        self.message_user(request, done, messages.SUCCESS)

    @admin.action(description="Export as JSON", permissions=["view"])
    def export(self, request: HttpRequest, tasks: TaskQuerySet) -> StreamingHttpResponse:
        owner = request.search.owner  # type: ignore[attr-defined]
        if owner is not None:
            log(request, CHANGE, owner, "Tasks exported as JSON.")
        return StreamingHttpResponse(
            as_json(tasks),
            content_type="application/json",
            headers={"Content-Disposition": f'attachment; filename="tasks-of-{owner}.json"'},
        )

    @admin.display(description="user id")
    def owner(self, task: Task) -> str:
        list = reverse("admin:tasks_task_changelist")
        text = '<a href="{}?q={}">{}</a> (all tasks of this user)'
        return format_html(text, list, task.user_id, task.user_id)

    # Erasing a user -----------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.erase_view)
        return [path("erase/<uuid:owner>/", view, name="tasks_task_erase"), *super().get_urls()]

    @method_decorator(require_http_methods(["GET", "HEAD", "POST"]))
    def erase_view(self, request: HttpRequest, owner: UUID | str) -> HttpResponse:
        """Ask for the user's id and erase their tasks, for at most `ERASE_TIME`."""
        if not self.has_delete_permission(request):
            raise PermissionDenied
        if isinstance(owner, str):
            raise Http404
        typed = request.POST.get("user_id", "").strip()
        confirmed = parse_uuid(typed) == owner
        if confirmed:
            self._erase(request, owner)
            if not Task.objects.filter(user_id=owner).exists():
                return redirect("admin:tasks_task_changelist")
            messages.warning(request, "There are more. Confirm again to go on.")
        totals = Task.objects.owned_by(owner).totals()
        context = {
            **self.admin_site.each_context(request),
            "title": "Erase a user",
            "opts": self.opts,
            "media": self.media,
            "owner": owner,
            "totals": totals,
            "number": count(totals["open"] + totals["completed"]) if totals else "no tasks",
            "typed": typed,
            "refused": request.method == "POST" and not confirmed,
        }
        return render(request, "admin/tasks/task/erase.html", context)

    def _erase(self, request: HttpRequest, owner: UUID) -> None:
        erased, ends = 0, time.monotonic() + ERASE_TIME
        entry = log(request, DELETION, owner, "Erasing the user's tasks was begun.")
        try:
            for batch in Task.objects.owned_by(owner).erase():
                erased += batch
                extend_deadline()
                if time.monotonic() > ends:
                    break
        finally:
            extend_deadline()
            entry.change_message = f"{count(erased)} erased."
            entry.save()
        messages.success(request, f"{count(erased)} of user {owner} erased.")

    # One task -----------------------------------------------------------------------------

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if isinstance(db_field, models.TextField) and not db_field.choices:
            widget = AdminTextareaWidget(attrs={"rows": 1} if not db_field.blank else {})
            kwargs |= {"form_class": LinesField, "strip": not db_field.blank, "widget": widget}
            return db_field.formfield(**kwargs, show_hidden_initial=True)
        return super().formfield_for_dbfield(db_field, request, **kwargs, show_hidden_initial=True)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """No: owners create their tasks."""
        return False

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        """The task, locked when a form is saved: no client can write between check and write.

        On SQLite the transaction has the lock already.
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
