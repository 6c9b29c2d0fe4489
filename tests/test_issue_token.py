"""manage.py issue_token"""

from io import StringIO
from typing import Any

import jwt
import pytest
from django.core.management import CommandError, call_command

from tests.client import ALICE, API
from tests.issuer import SECRET, bearer


@pytest.fixture(autouse=True)
def by_secret_mode(settings: Any) -> None:
    settings.AUTH_MODE, settings.JWT_SECRET, settings.JWT_JWKS_URL = "jwt", SECRET, None


def issue(*arguments: str) -> str:
    out = StringIO()
    call_command("issue_token", *arguments, stdout=out)
    [token] = out.getvalue().splitlines()
    return token


@pytest.mark.parametrize("user", [ALICE, ALICE.upper()])
def test_the_service_takes_the_token(db: None, settings: Any, user: str) -> None:
    settings.JWT_ISSUER, settings.JWT_AUDIENCE = "https://issuer.example", "tasks"
    assert API(**bearer(issue(user))).create(ALICE)["user_id"] == ALICE


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [([], 3600), (["--ttl", "90"], 90), (["--ttl", "90s"], 90), (["--ttl=15m"], 900),
     (["--ttl=2h"], 7200), (["--ttl=7d"], 604_800)],
)  # fmt: skip
def test_the_token_is_valid_for_the_requested_time(arguments: list[str], seconds: int) -> None:
    payload = jwt.decode(issue(ALICE, *arguments), SECRET, ["HS256"])
    assert payload == {"sub": ALICE, "iat": payload["iat"], "exp": payload["iat"] + seconds}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["alice"], "'alice' is not a UUID"),
        ([ALICE.replace("-", "")], "is not a UUID"),
        *(([ALICE, f"--ttl={ttl}"], "is not a time such as 90s, 15m, 1h or 7d")
          for ttl in ("0", "-5", "1w", "1.5h", "", "99999999999")),
        ([], "required: user_id"),
    ],
)  # fmt: skip
def test_it_rejects(arguments: list[str], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        issue(*arguments)


def test_it_refuses_when_only_the_issuer_can_sign(settings: Any) -> None:
    settings.JWT_SECRET, settings.JWT_JWKS_URL = None, "https://issuer.example/jwks"
    with pytest.raises(CommandError, match="JWT_JWKS_URL is set: only the issuer has the keys"):
        issue(ALICE)


def test_it_names_the_setting_when_no_token_is_needed(settings: Any) -> None:
    settings.AUTH_MODE, settings.JWT_SECRET = "none", None
    with pytest.raises(CommandError, match="Set AUTH_MODE=jwt, JWT_SECRET"):
        issue(ALICE)
