from django.urls import path

from tasks.views import TaskViewSet

# From these the browsable API finds the viewset's other actions.
BROWSABLE = {"detail": True, "basename": "task"}

urlpatterns = [
    path(
        "api/<uuid:user_id>/tasks",
        TaskViewSet.as_view({"get": "list", "post": "create"}, name="Tasks"),
        name="task-list",
    ),
    path(
        "api/<uuid:user_id>/tasks/<uuid:id>",
        TaskViewSet.as_view(
            {"get": "retrieve", "put": "update", "patch": "partial_update", "delete": "destroy"},
            name="Task",
            **BROWSABLE,
        ),
        name="task-detail",
    ),
    path(
        "api/<uuid:user_id>/tasks/<uuid:id>/complete",
        TaskViewSet.as_view({"patch": "complete"}, name="Complete", **BROWSABLE),
        name="task-complete",
    ),
]
