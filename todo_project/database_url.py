"""A database URL as Django's settings."""

import os
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import dj_database_url
from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo

from todo_project import env
from todo_project.env import BASE_DIR

# Values that libpq would reject only when it connects.
INTEGERS = {
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval"),
    *("keepalives_count", "tcp_user_timeout"),
}
WORDS = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby"),
}


def parse(name: str, url: str) -> dict[str, Any]:
    """Django's settings for a database URL; `name` is the variable to blame when it is bad."""
    scheme = url.partition(":")[0]
    if scheme not in ("postgres", "postgresql", "sqlite"):
        env.fail(name, "must begin with postgresql:// or sqlite:///")
    try:
        config: dict[str, Any] = dict(
            dj_database_url.parse(
                url,
                conn_max_age=None,  # a connection per thread, until the server closes it
                conn_health_checks=True,
                disable_server_side_cursors=True,  # PgBouncer forgets them
            )
        )
        if "%00" in url or urlsplit(url).port == 0:  # libpq would take another name, or port
            raise ValueError
    except ValueError:
        env.fail(name, "is not a database URL")
    options = config.setdefault("OPTIONS", {})
    for option, given in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if not given:  # dj_database_url would ignore it, even if it asks for TLS
            env.fail(name, f"has the option {option} without a value")
    if scheme == "sqlite":
        if options:
            env.fail(name, f"has options, which SQLite knows none of: {', '.join(options)}")
        if config["NAME"] in ("", ":memory:"):
            env.fail(name, "must name a file: every thread would have an empty database in memory")
        config["NAME"] = str(BASE_DIR / config["NAME"])
        if os.path.isdir(config["NAME"]) or not os.path.isdir(os.path.dirname(config["NAME"])):
            env.fail(name, "must name a file in a folder that exists")
        config["ENGINE"] = "todo_project.database.sqlite"
        options |= {
            "timeout": 4,  # seconds to wait for another writer
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL;",
        }
    else:
        if not config["NAME"]:
            env.fail(name, "names no database")
        if "," in config["HOST"]:
            env.fail(name, "names several hosts: one is supported")
        for option, value in options.items():
            if option in INTEGERS and not isinstance(value, int):
                env.fail(name, f"has {option}={value}, which is not a whole number from 0 on")
            if option in WORDS and value not in WORDS[option]:
                env.fail(name, f"has {option}={value}: {', '.join(WORDS[option])} are known")
        try:
            make_conninfo(**options)
        except ProgrammingError as error:
            env.fail(name, f"has an option that PostgreSQL does not know: {str(error).strip()}")
        config["ENGINE"] = "todo_project.database.postgresql"
        # What the URL says wins. Not one of these is a startup option, which poolers refuse.
        config["OPTIONS"] = {
            "server_side_binding": True,
            "application_name": "todo",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 5000,  # milliseconds
            **options,
        }
    return config
