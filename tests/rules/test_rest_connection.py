"""What a registry may say of a CA that is ordered from by REST, and what becomes of its `{names}`."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.answers import look, words
from services.ca_connector.authorities.rest_connection import Connection
from services.ca_connector.client import Answer
from services.ca_connector.templates import (
    ORDER_NAMES,
    REVOCATION_NAMES,
    fill,
    fill_path,
    names_in,
    values_of,
    values_of_revocation,
)
from shared.errors import Code, RakkanError
from shared.registry.model import CertificateProfile
from tests.support.certificates import authority
from tests.support.ordering import new_key, order_for

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SMALLEST: dict[str, Any] = {
    "url": "https://ca.example.com",
    "order": {"path": "/orders", "body": {"csr": "{csr_pem}"}},
    "certificate_at": "/certificate",
}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"order": {"path": "/orders/{serial_hex}"}}, "names serial_hex"),
        ({"status": {"path": "/orders/{id}", "pends": [202]}}, "names id"),
        ({"status": {"path": "/orders", "method": "GET"}}, "needs states"),
        ({"chain": {"path": "/chain"}}, "needs chain_at"),
        ({"check": {"path": "/orders/{order_id}"}}, "names order_id"),
        ({"renew": {"path": "/renew/{id}"}, "keep": {"id": "/id"}}, "names id"),
        ({"order": {"path": "https://elsewhere.example"}}, "String should match pattern"),
        ({"certificate_at": {"pointer": "/a", "header": "b"}}, "name one of"),
        ({"certificate_at": {}}, "name one of"),
        ({"login": {"kind": "basic", "username": "a"}}, "needs secret"),
        ({"login": {"kind": "token", "token_at": "/t"}}, "needs call"),
        ({"login": {"kind": "token", "token_at": "/t", "call": {"path": "/{key}"}}}, "for which there is no secret"),
        ({"keep": {"Order Id": "/id"}}, "String should match pattern"),
        ({"order": {"path": "/orders", "method": "TRACE"}}, "Input should be"),
        ({"revoke": {"path": "/revoke", "retries": 3}}, "Extra inputs"),
    ],
)
def test_a_description_that_could_not_work_is_refused_when_it_is_read(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Connection.model_validate_json(json.dumps(SMALLEST | more))


def test_a_description_may_name_what_belongs_to_an_order() -> None:
    body = {name: f"{{{name}}}" for name in ORDER_NAMES}
    revocation = {name: f"{{{name}}}" for name in REVOCATION_NAMES}
    described = SMALLEST | {
        "order": {"path": "/orders", "body": body},
        "renew": {"path": "/renew/{previous_id}", "body": body},
        "status": {"path": "/orders/{id}", "pends": [202]},
        "revoke": {"path": "/revoke/{id}", "body": body | revocation},
        "keep": {"id": {"header": "Location", "last_segment": True}},
    }
    assert Connection.model_validate(described).keep["id"].last_segment


def test_every_name_has_a_value() -> None:
    order = order_for(new_key())
    profile = CertificateProfile(label="Signing")
    assert ORDER_NAMES - values_of(order, profile, now=NOW).keys() == {"organization_identifier"}
    certificate = authority("CA").certificate.public_bytes(Encoding.DER)
    assert values_of_revocation(certificate, reason=1, at=NOW, reasons={}).keys() == REVOCATION_NAMES


def test_a_whole_name_keeps_its_type_and_what_has_no_value_is_left_out() -> None:
    template = {"days": "{days}", "dn": "CN={name}", "gone": "{gone}", "also": "x{gone}", "list": ["{days}", "{gone}"]}
    assert fill(template, {"days": 30, "name": "A"}) == {"days": 30, "dn": "CN=A", "list": [30]}
    assert names_in(template) == {"days", "name", "gone"}


def test_what_looks_like_a_name_in_a_value_stays_what_it_is() -> None:
    assert fill({"a": "{x} {y}"}, {"x": "{y}", "y": "1"}) == {"a": "{y} 1"}


@pytest.mark.parametrize("value", ["../admin", "a/b", "a?b=c", "a#b", "%2e%2e", "a\r\nHost: x", "ä", "a b"])
def test_a_value_stays_one_segment_of_a_path(value: str) -> None:
    filled = fill_path("/orders/{id}/", {"id": value})
    assert filled.count("/") == 3
    assert set("?#\r\n ").isdisjoint(filled)
    assert filled.isascii()


@pytest.mark.parametrize("values", [{}, {"id": ""}, {"id": "."}, {"id": ".."}, {"id": None}])
def test_a_path_without_its_value_is_asked_for_nowhere(values: dict[str, Any]) -> None:
    with pytest.raises(RakkanError) as refusal:
        fill_path("/orders/{id}", values)
    assert refusal.value.code is Code.AUTHORITY_UNTRUSTED


def test_an_order_asks_for_a_little_less_than_the_profile_allows() -> None:
    values = values_of(order_for(new_key()), CertificateProfile(label="Signing", validity_days_max=10), now=NOW)
    assert values["not_after"] == "2026-12-05T11:00:00Z"
    assert values["validity_seconds"] < 10 * 86_400


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("Wed, 25 Nov 2026 12:10:00 GMT", 600),
        ("99999999999999999999", None),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("999999999", 400 * 86_400),
        ("Wed, 25 Nov 9999 12:10:00 GMT", 400 * 86_400),
    ],
)
def test_when_to_ask_again_is_read_and_bounded(written: str, seconds: int | None) -> None:
    at = Answer(202, {"retry-after": written}, b"").retry_after(NOW)
    assert at == (None if seconds is None else NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", {"a": [{"b/c": 1}, None]}),
        ("/a/0/b~1c", 1),
        ("/a/1", None),
        ("/a/2", None),
        ("/a/-1", None),
        ("/a/x", None),
        ("/b/c", None),
        ("/a/0/b~1c/d", None),
    ],
)
def test_a_pointer_that_leads_nowhere_finds_nothing(pointer: str, found: Any) -> None:
    assert look({"a": [{"b/c": 1}, None]}, pointer) == found


def test_what_an_authority_says_is_one_short_line_without_tricks() -> None:
    assert words("No\nlevel=fatal\x1b[2J\u202e!") == "No level=fatal [2J !"
    assert len(words("x" * 10_000)) == 200
    assert words({"why": "申請"}) == '{"why": "申請"}'


def test_the_page_for_operators_names_every_name() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operating" / "connect-a-ca.md").read_text(encoding="utf-8")
    assert [name for name in sorted(ORDER_NAMES | REVOCATION_NAMES) if f"`{name}`" not in page] == []
