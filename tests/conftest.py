import pytest

from tests.client import API


@pytest.fixture
def api(db) -> API:
    """The service without authentication, as AUTH_MODE=none has it."""
    return API()
