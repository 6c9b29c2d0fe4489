"""`manage.py distribute`: spread the tasks over the nodes of a Citus cluster, by their owner."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections

from tasks.models import Task
from todo_project.management.command_line import one_line, positive

TABLE = Task._meta.db_table
OWNER = "user_id"

CITUS_TABLE = """
    SELECT shard_count, distribution_column FROM citus_tables
    WHERE table_name = '{}'::regclass AND citus_table_type = '{}'""".format

# Rows are the planner's estimate: a count would read every task.
STATUS = f"""
    WITH placements AS (
        SELECT nodename, nodeport, success, string_to_array(result, ' ')::bigint[] AS sizes
        FROM run_command_on_placements('{TABLE}',
            $$SELECT greatest(reltuples, 0)::bigint || ' ' || pg_total_relation_size(oid)
              FROM pg_class WHERE oid = '%s'::regclass$$))
    SELECT nodename || ':' || nodeport, count(success), sum(sizes[1]), sum(sizes[2])
    FROM pg_dist_node LEFT JOIN placements USING (nodename, nodeport)
    WHERE noderole = 'primary' GROUP BY groupid, nodename, nodeport ORDER BY groupid"""


class Command(BaseCommand):
    """Skips the steps that are done already, so an interrupted run can be repeated."""

    help = "Distribute the tasks over the nodes of a Citus cluster, by their owner."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--shards", type=positive, default=32, help="default: 32")
        parser.add_argument(
            "--block-writes", action="store_true", help="copy faster; writes wait, reads do not"
        )
        parser.add_argument("--status", action="store_true", help="print what each node holds")

    def handle(
        self, *args: Any, shards: int, block_writes: bool, status: bool, **options: Any
    ) -> None:
        alias = "unpooled" if "unpooled" in settings.DATABASES else "default"
        self._connection = connections[alias]
        try:
            nodes = self._require_cluster()
            done = self._query(CITUS_TABLE(TABLE, "distributed"))
            if done and done[0][1] != OWNER:
                raise CommandError(f"{TABLE} is distributed by {done[0][1]}, not by {OWNER}.")
            state = f"{TABLE} is not distributed."
            if done:
                state = f"{TABLE} is distributed by {OWNER} over {done[0][0]} shards."
            if status:
                self.stdout.write(state)
                if done:
                    self._print_nodes()
            elif done:
                self.stdout.write(f"Nothing to do: {state}")
            else:
                self._distribute(shards, nodes, block_writes)
        except DatabaseError as error:
            raise CommandError(one_line(error)) from error

    def _require_cluster(self) -> int:
        """Return the number of worker nodes; CommandError where there is no cluster to use."""
        if self._connection.vendor != "postgresql":
            raise CommandError("Only PostgreSQL with the Citus extension can be distributed.")
        if not self._query("SELECT 1 FROM pg_extension WHERE extname = 'citus'"):
            raise CommandError("The database has no Citus extension: run CREATE EXTENSION citus.")
        nodes = self._query("SELECT groupid FROM pg_dist_node WHERE noderole = 'primary'")
        if nodes in ([], [(0,)]):  # group 0 is the coordinator
            raise CommandError("The cluster has no workers: run SELECT citus_add_node(host, port).")
        if not self._query("SELECT 1 WHERE citus_is_coordinator()"):
            raise CommandError("This is a worker node: run the command on the coordinator.")
        if (0,) not in nodes:
            raise CommandError(
                "The workers do not know their coordinator:"
                " run SELECT citus_set_coordinator_host(host, port)."
            )
        if not self._query(f"SELECT 1 WHERE to_regclass('{TABLE}') IS NOT NULL"):
            raise CommandError(f"There is no table {TABLE}: run migrate first.")
        return len(nodes) - 1

    def _distribute(self, shards: int, nodes: int, block_writes: bool) -> None:
        online = not block_writes and self._query(f"SELECT 1 FROM {TABLE} LIMIT 1") != []
        if online and self._query("SHOW wal_level") != [("logical",)]:
            raise CommandError("Without wal_level = logical this needs --block-writes.")
        self._create_index("INDEX", "task_id", "id")  # for the admin, which looks up by id alone
        with self._connection.cursor() as cursor:
            constraints = self._connection.introspection.get_constraints(cursor, TABLE)
        [name] = (name for name, found in constraints.items() if found["primary_key"])
        if constraints[name]["columns"] != [OWNER, "id"]:
            self._create_index("UNIQUE INDEX", "task_owner_id", f"{OWNER}, id")
            # The editor's lock times out, so that requests do not wait long behind it.
            with self._step("replace the primary key"), self._connection.schema_editor() as editor:
                editor.execute(
                    f"ALTER TABLE {TABLE} DROP CONSTRAINT {name},"
                    f" ADD CONSTRAINT {name} PRIMARY KEY USING INDEX task_owner_id"
                )
        # So that /readyz is right through every node.
        if not self._query(CITUS_TABLE("django_migrations", "reference")):
            with self._step("copy django_migrations to every node"):
                self._query("SELECT create_reference_table('django_migrations')")
        with (
            self._step(f"copy {TABLE} into {shards} shards on {nodes} workers"),
            self._connection.schema_editor(atomic=not online) as editor,
        ):
            editor.execute(
                f"SELECT create_distributed_table{'_concurrently' * online}('{TABLE}', '{OWNER}',"
                f" colocate_with => 'none', shard_count => {shards})"
            )
        with self._step("analyze"):
            self._query(f"ANALYZE {TABLE}")

    def _create_index(self, kind: str, name: str, columns: str) -> None:
        valid = f"SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{name}')"
        match self._query(valid):
            case [(True,)]:
                return
            case [(False,)]:  # left behind by an interrupted run
                self._query(f"DROP INDEX CONCURRENTLY {name}")
        with self._step(f"create {name}"):
            self._query(f"CREATE {kind} CONCURRENTLY {name} ON {TABLE} ({columns})")

    def _print_nodes(self) -> None:
        row = "{:<28} {:>6} {:>15} {:>18}".format
        self.stdout.write(row("node", "shards", "rows (estimate)", "bytes"))
        for node, shards, rows, size in self._query(STATUS):
            missing = "no answer" if shards else 0
            values = (missing if value is None else value for value in (rows, size))
            self.stdout.write(row(node, shards, *values))

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        self.stdout.write(f"{what} ...", ending=" ")
        self.stdout.flush()
        started = time.monotonic()
        yield
        self.stdout.write(f"{time.monotonic() - started:.1f} s")

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
