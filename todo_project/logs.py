"""The request id in every log line."""

import logging
import threading


class _Current(threading.local):
    request_id = "-"


current = _Current()


class RequestIdFilter(logging.Filter):
    """Adds `request_id` to each record; `-` outside a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current.request_id
        return True
