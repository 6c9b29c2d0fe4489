"""All routes. Paths without a trailing slash answer with one as well (see InputMiddleware)."""

from django.conf import settings
from django.contrib import admin
from django.urls import path

import tasks.urls
from todo_project.api.docs import DocsView, IndexView, SchemaView
from todo_project.api.health import HealthView, ReadyView

urlpatterns = [
    *([path("", IndexView.as_view(), name="index")] if settings.DEBUG else []),
    *tasks.urls.urlpatterns,  # include() would add a resolver to each request
    path("api/schema", SchemaView.as_view(), name="schema"),
    path("api/docs", DocsView.as_view(), name="docs"),
    path("healthz", HealthView.as_view(), name="healthz"),
    path("readyz", ReadyView.as_view(), name="readyz"),
    path("admin/", admin.site.urls),
]

handler400 = "todo_project.api.problems.bad_request"
handler403 = "todo_project.api.problems.permission_denied"
handler404 = "todo_project.api.problems.not_found"
handler500 = "todo_project.api.problems.server_error"
