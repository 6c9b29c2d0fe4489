"""Opaque cursors: where a page begins, encrypted, and bound to one list.

A cursor may hold a title, which every proxy would log. AES-SIV (RFC 5297) encrypts the same place
to the same text, so that links do not change the ETag of their page.
"""

import base64
import hashlib
from functools import lru_cache
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from django.conf import settings

from tasks.models import Task
from tasks.statements import Cursor


def encode(cursor: Cursor, ordering: str, scope: bytes) -> str:
    """The text of a cursor for the list that `scope` identifies."""
    field = Task.resource.output[ordering.removeprefix("-")]
    value = None if cursor.value is None else field.to_representation(cursor.value)
    payload = orjson.dumps([cursor.backward, cursor.inclusive, str(cursor.id), value])
    return _base64(_cipher(settings.SECRET_KEY).encrypt(payload, [scope]))


def decode(text: str, ordering: str, scope: bytes) -> Cursor:
    """Raises ValueError for a text that `encode` did not make for this list and ordering."""
    encrypted = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _base64(encrypted) != text:  # base64 has several texts for the same bytes
        raise ValueError
    for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        try:
            payload = _cipher(key).decrypt(encrypted, [scope])
        except InvalidTag:
            continue
        backward, inclusive, id, value = orjson.loads(payload)
        field = Task.resource.output[ordering.removeprefix("-")]
        return Cursor(backward, inclusive, field.from_representation(value), UUID(id))
    raise ValueError


@lru_cache(maxsize=8)
def _cipher(secret: str) -> AESSIV:
    return AESSIV(hashlib.sha512(b"tasks.cursors:" + secret.encode()).digest())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
