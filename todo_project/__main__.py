"""`python -m todo_project [gunicorn's options]`: start the web server.

`gunicorn todo_project.wsgi` does the same, but for one thing: gunicorn reads WEB_CONCURRENCY as it
is imported, before any code of a project, and ends with a stack trace when that is empty or bad.
"""

import os
import shutil
import sys
import sysconfig

from todo_project import settings  # a bad setting ends it here, with one line

os.environ["WEB_CONCURRENCY"] = str(settings.WEB_CONCURRENCY)
# Not `-m gunicorn`: it cannot restart itself on SIGUSR2.
places = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"
gunicorn = shutil.which("gunicorn", path=places) or sys.exit("gunicorn is not installed")
arguments = [sys.executable, gunicorn, *sys.argv[1:], "todo_project.wsgi"]
os.execv(sys.executable, arguments)  # noqa: S606
