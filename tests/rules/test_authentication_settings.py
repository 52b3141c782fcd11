"""Which issuers a room may have."""

import pytest
from pydantic import TypeAdapter, ValidationError

from services.authentication.settings import Settings

ISSUER = TypeAdapter(Settings.__annotations__["issuer"])


@pytest.mark.parametrize("url", ["https://as.example", "https://as.example/auth", "http://127.0.0.1:8080"])
def test_an_issuer_is_an_https_url_or_on_loopback(url: str) -> None:
    assert ISSUER.validate_python(url) == url


@pytest.mark.parametrize(
    "url",
    ["", "as.example", "http://as.example", "https://", "https://as.example/", "https://as.example?a=b", "https://a#b"],
)
def test_anything_else_stops_the_start(url: str) -> None:
    with pytest.raises(ValidationError):
        ISSUER.validate_python(url)
