# docs/deployment/container.md says how to build and run it.
# The Python that the tests run on. Any image with Python 3.11, venv and headers on Debian will do.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# gunicorn_h1c is published only as source.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
WORKDIR /app
COPY requirements.txt requirements-fast.txt ./
RUN python3 -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --disable-pip-version-check \
        -r requirements.txt -r requirements-fast.txt \
    && /venv/bin/pip uninstall --yes pip setuptools
COPY . .
# With a read-only file system Python cannot keep its byte code later.
RUN /venv/bin/python -m compileall -q .

FROM ${PYTHON_IMAGE}
RUN python3 -m pip uninstall --yes --root-user-action=ignore pip setuptools wheel || true \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent todo
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER todo
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('PORT') or 8000}/healthz\", timeout=2)"]
CMD ["python", "-m", "todo_project"]
