from django.apps import AppConfig


class TasksConfig(AppConfig):
    name = "tasks"

    def ready(self) -> None:
        from tasks.models import Task
        from todo_project.database import requirements

        fields = Task.resource.model_fields
        changed = (*Task.resource.writable, "updated_at", "idempotency_key")
        columns = [str(field.column) for field in fields.values()]
        requirements.tables[Task._meta.db_table] = {
            "SELECT": columns,
            "INSERT": columns,
            "UPDATE": [str(fields[name].column) for name in changed],
            "DELETE": [],
        }
