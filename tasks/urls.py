from django.urls import path

from tasks.views import TaskViewSet

urlpatterns = [
    path(
        "<uuid:user_id>/tasks",
        TaskViewSet.as_view({"get": "list", "post": "create"}),
        name="task-list",
    ),
    path(
        "<uuid:user_id>/tasks/<uuid:id>",
        TaskViewSet.as_view(
            {"get": "retrieve", "put": "update", "patch": "partial_update", "delete": "destroy"}
        ),
        name="task-detail",
    ),
    path(
        "<uuid:user_id>/tasks/<uuid:id>/complete",
        TaskViewSet.as_view({"patch": "complete"}),
        name="task-complete",
    ),
]
