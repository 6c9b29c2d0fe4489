"""A Citus cluster for the tests and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from tools.servers import HOST, PostgreSQL, ServerError


class NotInstalled(ServerError):
    """No PostgreSQL on this machine has the Citus extension."""


class Node(PostgreSQL):
    """A throw-away PostgreSQL with Citus; raises `NotInstalled` if there is none."""

    def __init__(self, **settings: str | int) -> None:
        settings = {
            "shared_preload_libraries": "citus",
            "wal_level": "logical",  # for create_distributed_table_concurrently
            "citus.node_conninfo": "sslmode=prefer",
            "citus.enable_stat_counters": "on",
            "citus.enable_statistics_collection": "off",
            **settings,
        }
        super().__init__(**settings)

    def _find(self) -> tuple[Path, str]:
        for found in self._working():
            return found
        raise NotInstalled(
            "no PostgreSQL with the Citus extension (looked for extension/citus.control of: "
            f"{', '.join(map(str, self._candidates()))}); see docs/scale.md"
        )

    def _working(self) -> Iterator[tuple[Path, str]]:
        for folder, version in super()._working():
            with suppress(OSError):
                share = self._run([folder / "pg_config", "--sharedir"]).stdout.strip()
                if Path(share, "extension", "citus.control").exists():
                    yield folder, version


class Citus:
    """A coordinator and workers. A database is created on all of them."""

    def __init__(self, workers: int = 2, **settings: str | int) -> None:
        """Start the servers; `settings` go into the configuration of each."""
        with ExitStack() as stack:
            nodes = [stack.enter_context(Node(**settings)) for _ in range(1 + workers)]
            self._stack = stack.pop_all()
        self.coordinator, *self.workers = self.nodes = nodes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    def create_database(self, name: str, options: str = "") -> str:
        """Create a database on every node, and return its URL on the coordinator.

        `options`, as of `PostgreSQL.create_database`, are for the coordinator only.
        """
        coordinator = self.coordinator
        for node in self.nodes:
            node.create_database(name, options if node is coordinator else "")
            node.execute("CREATE EXTENSION citus", database=name)
        coordinator.execute(
            "SELECT citus_set_coordinator_host(%s, %s)", [HOST, coordinator.port], name
        )
        for worker in self.workers:
            coordinator.execute("SELECT citus_add_node(%s, %s)", [HOST, worker.port], name)
        return coordinator.url(name)

    def drop_database(self, name: str) -> None:
        """Drop it on every node, and end its sessions."""
        for node in self.nodes:
            node.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def version(self, database: str) -> str:
        """As in "Citus 13.2.2 on PostgreSQL 15.18"."""
        ((version,),) = self.coordinator.execute("SELECT citus_version()", database=database)
        return f"{version.split(' on ')[0]} on PostgreSQL {self.coordinator.version}"
