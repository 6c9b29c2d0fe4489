"""Applications that do nothing, to measure the cost of a server alone."""

from typing import Any

BODY = b"{}"
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]
BYTES = [(name.lower().encode(), value.encode()) for name, value in HEADERS]


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", HEADERS)
    return [BODY]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": BYTES})
        await send({"type": "http.response.body", "body": BODY})
