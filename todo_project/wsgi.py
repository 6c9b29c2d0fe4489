"""The WSGI application: gunicorn serves `todo_project.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "todo_project.settings")

application = get_wsgi_application()

from todo_project.database.startup import refuse_wrong_encoding  # noqa: E402  # needs the settings

refuse_wrong_encoding()
