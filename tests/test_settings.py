"""Settings: every command ends with one line that names a bad one."""

import runpy
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from todo_project import env
from tools import servers
from tools.servers import ENVIRONMENT, PROJECT_ROOT

SQLITE = "sqlite:////tmp/never-opened.sqlite3"
NEON = "postgresql://me:p%40ss@ep-x-pooler.example.neon.tech/neondb"
KEY = "k" * 32
JWKS = "https://issuer.example/jwks"


@pytest.fixture
def environ(monkeypatch):
    """The process's environment, replaced for the test."""
    values = {**ENVIRONMENT, "DATABASE_URL": SQLITE}
    monkeypatch.setattr(env, "os", SimpleNamespace(environ=values))
    return values


def read(environ, **variables: str) -> dict[str, Any]:
    """The values of settings.py for the suite's environment with some changes."""
    environ.update(variables)
    return runpy.run_path(str(PROJECT_ROOT / "todo_project" / "settings.py"))


def run(command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the project in that environment."""
    return servers.run(*command.split(), **{"DATABASE_URL": SQLITE, **variables})


# The variable that the message names, and the changes to a good environment.
BAD = [
    ("DEBUG", {"DEBUG": "maybe"}),
    ("DEBUG", {"DEBUG": "2"}),
    ("SECRET_KEY", {"SECRET_KEY": ""}),
    ("SECRET_KEY", {"SECRET_KEY": "   "}),
    ("SECRET_KEY_FALLBACKS", {"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": "old, new"}),
    ("ALLOWED_HOSTS", {"ALLOWED_HOSTS": ""}),
    ("ALLOWED_HOSTS", {"ALLOWED_HOSTS": " , ,"}),
    ("ALLOWED_HOSTS", {"ALLOWED_HOSTS": "ok.example,https://x.example"}),
    ("ALLOWED_HOSTS", {"ALLOWED_HOSTS": "x.example:8000"}),
    ("ALLOWED_HOSTS", {"ALLOWED_HOSTS": "a.example b.example"}),
    ("DATABASE_URL", {"DATABASE_URL": ""}),
    ("DATABASE_URL", {"DATABASE_URL": "mysql://host/db"}),
    ("DATABASE_URL", {"DATABASE_URL": f"{NEON}?sslmode"}),
    ("DATABASE_URL", {"DATABASE_URL": f"{NEON}?sslmode=bogus"}),
    ("DATABASE_URL", {"DATABASE_URL": f"{NEON}?connect_timeout=abc"}),
    ("DATABASE_URL", {"DATABASE_URL": "postgresql://h1,h2/db"}),
    ("DATABASE_URL", {"DATABASE_URL": f"{SQLITE}?foo=1"}),
    ("DATABASE_URL", {"DATABASE_URL": "sqlite:////no/such/folder/db.sqlite3"}),
    ("DATABASE_URL", {"DATABASE_URL": "db.sqlite3"}),
    ("DATABASE_URL", {"DATABASE_URL": "postgresql://host"}),
    ("DATABASE_URL", {"DATABASE_URL": "postgresql://host:port/db"}),
    ("DATABASE_URL", {"DATABASE_URL": "postgresql://[host/db"}),
    ("DATABASE_URL", {"DATABASE_URL": "postgresql://host:0/db"}),
    ("DATABASE_URL", {"DATABASE_URL": "postgresql://host/db%00x"}),
    ("DATABASE_URL", {"DATABASE_URL": "sqlite:////tmp"}),
    ("DATABASE_URL", {"DATABASE_URL": f"{NEON}?ssl_mode=require"}),
    ("DATABASE_URL", {"DATABASE_URL": "sqlite://"}),
    ("DATABASE_URL", {"DATABASE_URL": "sqlite://:memory:"}),
    ("DATABASE_URL", {"DATABASE_URL": "sqlite:///:memory:"}),
    ("DATABASE_URL_UNPOOLED", {"DATABASE_URL_UNPOOLED": "host"}),
    ("DATABASE_URL_UNPOOLED", {"DATABASE_URL_UNPOOLED": NEON}),
    ("DATABASE_URL_UNPOOLED", {"DATABASE_URL": NEON, "DATABASE_URL_UNPOOLED": SQLITE}),
    ("AUTH_MODE", {"AUTH_MODE": ""}),
    ("AUTH_MODE", {"AUTH_MODE": "None"}),
    ("AUTH_MODE", {"AUTH_MODE": "basic", "DEBUG": "true"}),
    ("JWT_SECRET", {"AUTH_MODE": "jwt"}),
    ("JWT_SECRET", {"AUTH_MODE": "jwt", "DEBUG": "true"}),
    ("JWT_SECRET", {"AUTH_MODE": "jwt", "JWT_SECRET": KEY[1:]}),
    ("JWT_SECRET", {"AUTH_MODE": "jwt", "JWT_SECRET": KEY, "JWT_JWKS_URL": JWKS}),
    ("BETTER_AUTH_SECRET", {"AUTH_MODE": "jwt", "BETTER_AUTH_SECRET": KEY[1:]}),
    ("JWT_JWKS_URL", {"AUTH_MODE": "jwt", "JWT_JWKS_URL": "issuer.example/jwks"}),
    ("JWT_JWKS_URL", {"AUTH_MODE": "jwt", "JWT_JWKS_URL": "file:///etc/passwd"}),
    ("JWT_JWKS_URL", {"AUTH_MODE": "jwt", "JWT_JWKS_URL": "https://"}),
    ("JWT_JWKS_URL", {"AUTH_MODE": "jwt", "JWT_JWKS_URL": "https://[x"}),
    ("JWT_JWKS_URL", {"AUTH_MODE": "jwt", "JWT_JWKS_URL": "https://issuer.example:65536/jwks"}),
    ("JWT_LEEWAY", {"JWT_LEEWAY": "-1"}),
    ("JWT_LEEWAY", {"JWT_LEEWAY": "1.5"}),
    ("JWT_JWKS_MAX_STALE", {"JWT_JWKS_MAX_STALE": "-1"}),
    ("JWT_JWKS_MAX_STALE", {"JWT_JWKS_MAX_STALE": "1 day"}),
    ("CORS_ALLOWED_ORIGINS", {"CORS_ALLOWED_ORIGINS": "*"}),
    ("CORS_ALLOWED_ORIGINS", {"CORS_ALLOWED_ORIGINS": "example.com"}),
    ("CORS_ALLOWED_ORIGINS", {"CORS_ALLOWED_ORIGINS": "https://app.example.com:99999"}),
    ("CORS_ALLOWED_ORIGINS", {"CORS_ALLOWED_ORIGINS": "https://App.example.com"}),
    ("CORS_ALLOWED_ORIGINS", {"CORS_ALLOWED_ORIGINS": "https://app.example.com:443"}),
    ("CORS_ALLOWED_ORIGINS", {"CORS_ALLOWED_ORIGINS": "https://a.example,https://b.example/"}),
    ("PORT", {"PORT": "0"}),
    ("PORT", {"PORT": "65536"}),
    ("PORT", {"PORT": "٨٠٠٠"}),
    ("WEB_CONCURRENCY", {"WEB_CONCURRENCY": "0"}),
    ("WEB_CONCURRENCY", {"WEB_CONCURRENCY": "auto"}),
    ("WEB_THREADS", {"WEB_THREADS": "1.5"}),
    ("LOG_LEVEL", {"LOG_LEVEL": "loud"}),
    ("TRUSTED_PROXIES", {"TRUSTED_PROXIES": "-1"}),
    ("TRUSTED_PROXIES", {"TRUSTED_PROXIES": "10.0.0.1"}),
    ("RATE_LIMIT", {"RATE_LIMIT": "600"}),
    ("RATE_LIMIT", {"RATE_LIMIT": "0/minute"}),
    ("RATE_LIMIT", {"RATE_LIMIT": "-5/minute"}),
    ("RATE_LIMIT", {"RATE_LIMIT": "1.5/minute"}),
    ("RATE_LIMIT", {"RATE_LIMIT": "5/fortnight"}),
    ("RATE_LIMIT", {"RATE_LIMIT": "5 per minute"}),
    ("RATE_LIMIT", {"RATE_LIMIT": "5/minute;"}),
    ("RATE_LIMIT", {"RATE_LIMIT": "5/minute,5000/day"}),
    ("RATE_LIMIT", {"RATE_LIMIT": "5/minute;6/minute"}),
    ("RATE_LIMIT", {"RATE_LIMIT": "\N{ARABIC-INDIC DIGIT FIVE}/minute"}),
    ("RATE_LIMIT_STORAGE_URL", {"RATE_LIMIT_STORAGE_URL": "redis://redis.example"}),
    *(
        ("RATE_LIMIT_STORAGE_URL", {"RATE_LIMIT": "5/minute", "RATE_LIMIT_STORAGE_URL": url})
        for url in (
            "redis.example:6379",
            "memcached://redis.example",
            "redis://",
            "redis://:6379",
            "redis://redis.example:0",
            "redis://redis.example:65536",
            "redis://redis.example:port",
            "redis://redis.example/zero",
            "redis://redis.example/0?socket_timeout=9",
        )
    ),
    ("MAX_TASKS_PER_OWNER", {"MAX_TASKS_PER_OWNER": "0"}),
    ("MAX_TASKS_PER_OWNER", {"MAX_TASKS_PER_OWNER": "many"}),
    ("ACCESS_LOG", {"ACCESS_LOG": "json"}),
    ("METRICS_PORT", {"METRICS_PORT": "0"}),
    ("METRICS_PORT", {"METRICS_PORT": "on"}),
    ("METRICS_PORT", {"METRICS_PORT": "8000"}),
    ("METRICS_HOST", {"METRICS_HOST": "localhost"}),
    ("METRICS_HOST", {"METRICS_HOST": "127.0.0.1:9000"}),
]


@pytest.mark.parametrize(("variable", "variables"), BAD)
def test_a_bad_setting_stops_with_one_line_that_names_it(environ, variable, variables):
    with pytest.raises(SystemExit) as stop:
        read(environ, **variables)
    (line,) = str(stop.value).splitlines()
    assert line.startswith(f"Configuration error: {variable} ")


@pytest.mark.live  # independent of the run's database: once is enough
@pytest.mark.parametrize("command", ["manage.py check", "manage.py migrate", "-m todo_project"])
@pytest.mark.parametrize(
    ("variable", "variables"),
    [
        ("DEBUG", {"DEBUG": "maybe"}),
        ("JWT_SECRET", {"AUTH_MODE": "jwt"}),
        ("WEB_CONCURRENCY", {"WEB_CONCURRENCY": "abc"}),
        ("WEB_CONCURRENCY", {"WEB_CONCURRENCY": "2.5"}),
        ("WEB_CONCURRENCY", {"WEB_CONCURRENCY": "-1"}),
    ],
)
def test_it_stops_every_command_and_the_web_server_alike(command, variable, variables):
    done = run(command, **variables)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Configuration error: {variable} ")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.live
def test_gunicorn_alone_starts_the_service_as_well():
    # It takes no empty WEB_CONCURRENCY: see todo_project/__main__.py.
    done = run("-m gunicorn --check-config todo_project.wsgi", WEB_CONCURRENCY="1")
    assert (done.returncode, done.stderr) == (0, "")


GOOD = [
    # The environment of a new clone.
    dict.fromkeys([*ENVIRONMENT, "DATABASE_URL"], "") | {"DEBUG": "true"},
    {"DATABASE_URL": NEON, "DATABASE_URL_UNPOOLED": f"{NEON}?sslmode=require"},
    {"AUTH_MODE": "jwt", "BETTER_AUTH_SECRET": KEY, "JWT_JWKS_URL": JWKS},
    {"AUTH_MODE": "jwt", "JWT_JWKS_URL": "http://[::1]:8080/.well-known/jwks.json?a=b"},
    {"AUTH_MODE": "jwt", "JWT_SECRET": "é" * 16, "JWT_LEEWAY": "0"},
    {"ALLOWED_HOSTS": "*, .example.com,10.0.0.1,[::1],", "PORT": "65535", "WEB_THREADS": " 1 "},
    {"SECRET_KEY_FALLBACKS": "older, oldest,"},
    {"CORS_ALLOWED_ORIGINS": "http://localhost:3000, https://a.example, http://[::1]:1"},
    {"RATE_LIMIT": "600/minute", "TRUSTED_PROXIES": "1", "MAX_TASKS_PER_OWNER": "1"},
    {"RATE_LIMIT": "120/minute; 5000/day", "RATE_LIMIT_STORAGE_URL": "redis://h"},
    {"RATE_LIMIT": "1/second", "RATE_LIMIT_STORAGE_URL": "rediss://me:p%40ss@[::1]:6380/12"},
]


@pytest.mark.parametrize("variables", GOOD)
def test_good_settings_pass(environ, variables):
    read(environ, **variables)


@pytest.mark.live
def test_the_system_checks_pass():
    jwt = {"AUTH_MODE": "jwt", "JWT_JWKS_URL": JWKS, "JWT_ISSUER": "https://issuer.example"}
    done = run("manage.py check --deploy --fail-level WARNING", **jwt)
    assert (done.returncode, done.stderr) == (0, "")


def test_defaults(environ):
    values = read(environ, **GOOD[0])
    assert {name: values[name] for name in DEFAULTS} == DEFAULTS
    assert values["DATABASES"]["default"]["NAME"] == str(PROJECT_ROOT / "db.sqlite3")
    assert list(values["DATABASES"]) == ["default"]
    assert values["WEB_CONCURRENCY"] > 0
    # Generated at each start, not a constant.
    assert len({values["SECRET_KEY"], *(read(environ)["SECRET_KEY"] for _ in range(9))}) == 10
    assert read(environ, **ENVIRONMENT, DATABASE_URL=SQLITE)["DEBUG"] is False


DEFAULTS = {
    "DEBUG": True,
    "SECRET_KEY_FALLBACKS": [],
    "ALLOWED_HOSTS": [],
    "AUTH_MODE": "none",
    "JWT_SECRET": None,
    "JWT_JWKS_URL": None,
    "JWT_ISSUER": None,
    "JWT_AUDIENCE": None,
    "JWT_LEEWAY": 30,
    "JWT_JWKS_MAX_STALE": 86400,
    "CORS_ALLOWED_ORIGINS": [],
    "PORT": 8000,
    "WEB_THREADS": 4,
    "WEB_PIN_PROCESSES": True,
    "LOG_LEVEL": "INFO",
    "TRUSTED_PROXIES": 0,
    "RATE_LIMIT": None,
    "RATE_LIMIT_STORAGE_URL": None,
    "MAX_TASKS_PER_OWNER": None,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("TRUE", True), ("1", True), (" on ", True), ("no", False), ("0", False)],
)
def test_booleans(environ, text, value):
    assert read(environ, DEBUG=text)["DEBUG"] is value


def test_the_database_url_keeps_its_query_string(environ):
    options = "sslmode=require&channel_binding=require&tcp_user_timeout=9000"
    databases = read(
        environ,
        DATABASE_URL=f"{NEON}?{options}",
        DATABASE_URL_UNPOOLED=f"{NEON.replace('-pooler', '')}?sslmode=verify-full",
    )["DATABASES"]
    pooled, unpooled = databases["default"], databases["unpooled"]
    assert pooled["OPTIONS"]["sslmode"] == "require"
    assert pooled["OPTIONS"]["channel_binding"] == "require"
    assert str(pooled["OPTIONS"]["tcp_user_timeout"]) == "9000"
    assert "options" not in pooled["OPTIONS"]  # PgBouncer refuses them
    assert (pooled["HOST"], pooled["USER"]) == ("ep-x-pooler.example.neon.tech", "me")
    assert (pooled["PASSWORD"], pooled["NAME"]) == ("p@ss", "neondb")
    assert (pooled["CONN_MAX_AGE"], pooled["DISABLE_SERVER_SIDE_CURSORS"]) == (None, True)
    assert unpooled["HOST"] == "ep-x.example.neon.tech"
    assert unpooled["OPTIONS"]["sslmode"] == "verify-full"


@pytest.mark.parametrize(
    ("url", "engine", "name"),
    [
        ("postgres://h/db", "todo_project.database.postgresql", "db"),
        ("postgresql://h/db", "todo_project.database.postgresql", "db"),
        ("sqlite:///x.sqlite3", "todo_project.database.sqlite", str(PROJECT_ROOT / "x.sqlite3")),
        ("sqlite:////srv/x.sqlite3", "todo_project.database.sqlite", "/srv/x.sqlite3"),
    ],
)
def test_database_urls(environ, url, engine, name):
    database = read(environ, DATABASE_URL=url)["DATABASES"]["default"]
    assert (database["ENGINE"], database["NAME"]) == (engine, name)


# .env ---------------------------------------------------------------------------------------


@pytest.fixture
def empty(environ):
    environ.clear()
    return environ


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", {}),
        (b"# a comment\n\nA=1\nB = two words # why\n", {"A": "1", "B": "two words"}),
        (b"A='x # y'\nB=\"line\\nline\"\n", {"A": "x # y", "B": "line\nline"}),
        (b"export A=1\r\nB=\r\n", {"A": "1", "B": ""}),
        (b"\xef\xbb\xbfA=caf\xc3\xa9", {"A": "café"}),
        (b"A=1\nA=2\n", {"A": "2"}),
        (b"A=$B ${C} $(rm)\n", {"A": "$B ${C} $(rm)"}),
        (
            b"URL=postgresql://a:b@h/d?sslmode=require&x=y#z",
            {"URL": "postgresql://a:b@h/d?sslmode=require&x=y#z"},
        ),
    ],
)
def test_a_dotenv_file_is_read(tmp_path, empty, content, expected):
    (tmp_path / ".env").write_bytes(content)
    env.load_dotenv(tmp_path / ".env")
    assert empty == expected


def test_the_environment_wins_over_the_file_even_when_empty(tmp_path, empty):
    empty.update(A="shell", B="")
    (tmp_path / ".env").write_text("A=file\nB=file\nC=file\n")
    env.load_dotenv(tmp_path / ".env")
    assert empty == {"A": "shell", "B": "", "C": "file"}


def test_without_a_file_nothing_happens(tmp_path, empty):
    env.load_dotenv(tmp_path / ".env")
    assert empty == {}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"A=1\nB='never ends\n", "line 2"),
        (b"A=1\n\n=x\n", "line 3"),
        (b"A=1\nB\n", "line 2"),
        (b"A=\xff\n", "UTF-8"),
    ],
)
def test_a_bad_file_is_named(tmp_path, empty, content, problem):
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(SystemExit, match=rf"^Configuration error: \.env .*{problem}"):
        env.load_dotenv(tmp_path / ".env")


def test_a_file_that_cannot_be_read_is_named(tmp_path, empty):
    (tmp_path / ".env").mkdir()
    with pytest.raises(SystemExit, match=r"^Configuration error: \.env cannot be read: "):
        env.load_dotenv(tmp_path / ".env")
