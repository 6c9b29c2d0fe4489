"""Rotating SECRET_KEY: cursors and sessions of a former key are valid while it is a fallback."""

from typing import Any

from django.contrib.auth.models import User
from django.test import Client


def test_an_operator_stays_logged_in(admin_user: User, settings: Any) -> None:
    operator = Client()
    operator.force_login(admin_user)
    assert operator.get("/admin/").status_code == 200
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new key " * 6
    # The first answer signs the session with the new key.
    assert operator.get("/admin/").status_code == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert operator.get("/admin/").status_code == 200


def test_without_the_fallback_an_operator_is_logged_out(admin_user: User, settings: Any) -> None:
    operator = Client()
    operator.force_login(admin_user)
    settings.SECRET_KEY = "a new key " * 6
    assert operator.get("/admin/").status_code == 302
