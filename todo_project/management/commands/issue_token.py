"""`manage.py issue_token USER_ID`: a token to try authentication with, in development."""

import re
import time
from argparse import ArgumentTypeError
from typing import Any
from uuid import UUID

import jwt
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from todo_project.management.command_line import uuid

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    """`90`, `90s`, `15m`, `1h` or `7d` in seconds."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd]?)", text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is not a time such as 90s, 15m, 1h or 7d")
    return int(match[1]) * UNITS[match[2] or "s"]


class Command(BaseCommand):
    help = "Sign a token for a user with JWT_SECRET, to try authentication in development."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user_id", type=uuid, help="the token's subject")
        parser.add_argument("--ttl", type=seconds, default=3600, help="90s, 15m, 1h (default), 7d")

    def handle(self, *args: Any, user_id: UUID, ttl: int, **options: Any) -> None:
        if settings.JWT_JWKS_URL:
            raise CommandError("JWT_JWKS_URL is set: only the issuer has the keys to sign with.")
        if settings.AUTH_MODE != "jwt" or settings.JWT_SECRET is None:
            raise CommandError("AUTH_MODE=none asks for no token. Set AUTH_MODE=jwt, JWT_SECRET.")
        now = int(time.time())
        claims: dict[str, Any] = {"sub": str(user_id), "iat": now, "exp": now + ttl}
        if settings.JWT_ISSUER:
            claims["iss"] = settings.JWT_ISSUER
        if settings.JWT_AUDIENCE:
            claims["aud"] = settings.JWT_AUDIENCE
        self.stdout.write(jwt.encode(claims, settings.JWT_SECRET, algorithm="HS256"))
