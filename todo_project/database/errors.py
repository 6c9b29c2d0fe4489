"""What the database's errors mean."""

from django.db import InterfaceError, InternalError, OperationalError

CANCELED = "57014"
"""SQLSTATE of a statement that was cancelled, at our asking or by a time-out of the role."""

READ_ONLY = "25006"
"""SQLSTATE of a write in a read-only session, such as one with a stand-by."""


class Unavailable(OperationalError):
    """The database was not asked, because it has not answered in time before."""


class OutcomeUnknown(OperationalError):
    """The connection broke after a write was sent: it may have been done, or not."""


def is_unavailable(error: BaseException) -> bool:
    """Whether an error says that the database is away, refuses or is too busy.

    A read-only or failing-over server raises InternalError (SQLSTATE class 25), not
    OperationalError.
    """
    return isinstance(error, (OperationalError, InterfaceError, InternalError))


def sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's code of an error of Django's; None when the server did not send one."""
    return getattr(error.__cause__, "sqlstate", None)
