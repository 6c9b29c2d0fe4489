"""Default Django REST Framework on the same columns, in one file.

`ModelViewSet`, `ModelSerializer`, the middleware of `startproject`, no pagination, JSON only.
One departure from the defaults, in its favour: the connection stays open between requests
(Django would open one per request, at four to nine round trips).
"""

from __future__ import annotations

import os
import uuid

import dj_database_url
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="benchmark",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": dj_database_url.parse(os.environ["DATABASE_URL"], conn_max_age=None)},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "rest_framework",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    USE_TZ=True,
    REST_FRAMEWORK={"DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]},
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import models  # noqa: E402
from rest_framework import serializers, viewsets  # noqa: E402
from rest_framework.decorators import action  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.routers import SimpleRouter  # noqa: E402


class Task(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user_id = models.UUIDField(db_index=True)
    title = models.CharField(max_length=255)
    description = models.TextField(null=True, blank=True, max_length=2000)
    is_completed = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    objects: models.Manager[Task]  # mypy knows only apps that are installed

    class Meta:
        app_label = "peer"
        db_table = "peer_task"
        managed = False
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.title


class TaskSerializer(serializers.ModelSerializer):
    class Meta:
        model = Task
        fields = "__all__"
        read_only_fields = ["user_id"]


class TaskViewSet(viewsets.ModelViewSet):
    serializer_class = TaskSerializer

    def get_queryset(self) -> models.QuerySet[Task]:
        return Task.objects.filter(user_id=self.kwargs["user_id"])

    def perform_create(self, serializer: serializers.BaseSerializer[Task]) -> None:
        serializer.save(user_id=self.kwargs["user_id"])

    @action(detail=True, methods=["patch"])
    def complete(self, request: Request, **kwargs: str) -> Response:
        task = self.get_object()
        task.is_completed = not task.is_completed
        task.save()
        return Response(self.get_serializer(task).data)


router = SimpleRouter(trailing_slash=False)
router.register(r"api/(?P<user_id>[0-9a-f-]+)/tasks", TaskViewSet, basename="task")
urlpatterns = router.urls

application = get_wsgi_application()
