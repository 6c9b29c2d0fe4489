"""All routes. Paths without a trailing slash answer with one as well (see RequestMiddleware)."""

from django.contrib import admin
from django.urls import include, path

from todo_project import converters
from todo_project.views import DocsView, HealthView, ReadyView, SchemaView

converters.install()

urlpatterns = [
    path("api/", include("tasks.urls")),
    path("api/schema", SchemaView.as_view(), name="schema"),
    path("api/docs", DocsView.as_view(), name="docs"),
    path("healthz", HealthView.as_view(), name="healthz"),
    path("readyz", ReadyView.as_view(), name="readyz"),
    path("admin/", admin.site.urls),
]

handler400 = "todo_project.problems.bad_request"
handler403 = "todo_project.problems.permission_denied"
handler404 = "todo_project.problems.not_found"
handler500 = "todo_project.problems.server_error"
