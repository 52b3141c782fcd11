"""Whatever JSON a CA answers with, an adapter says one of the things it may say, and nothing else leaves it."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.ca_connector.client import Answer
from services.ca_connector.orders import Order
from shared.errors import Code, RakkanError
from tests.support.certificates import authority
from tests.support.ordering import new_key, now, open_entry, order_for
from tests.support.peers import example
from tests.support.peers.running import write_secrets

MAY_BE = {
    *(Code.AUTHORITY_UNTRUSTED, Code.INDETERMINATE, Code.AUTHORITY_REFUSED),
    *("Issued", "Pending", "Refused", "Health", "NoneType"),
}
CERTIFICATE = authority("Somebody", now=now()).certificate
PEM = CERTIFICATE.public_bytes(Encoding.PEM).decode()
WORDS = ["success", "result", "data", "certificate", "ca_chain", "issuing_ca", "errors", "message", "status", "slug",
         "serial", "detail", "error_message", "certificate_chain", "certificate_authorities", "name", "subject_dn",
         "revoked", "revocation_time", "request_id", "auth", "client_token", "lease_duration", "ttl", "renewable",
         "warnings", "pem", "serial_number"]  # fmt: skip
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(["issued", "pending", "failed", PEM, PEM[:300], "Signing CA G1", "..", "ID 5", "invalid token"]),
)
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=20,
)
statuses = st.sampled_from([200, 201, 202, 204, 400, 404, 409, 410, 418, 422])


class FakePeer:
    """Gives the prepared answers in turn, over and over."""

    def __init__(self, answers: list[tuple[int, Any]]) -> None:
        self.answers = answers
        self.asked = 0

    async def request(self, *_: Any, **__: Any) -> Answer:
        status, document = self.answers[self.asked % len(self.answers)]
        self.asked += 1
        assert self.asked < 20
        headers: Mapping[str, str] = {"content-type": "application/json", "retry-after": str(document)[:10]}
        return Answer(status, headers, json.dumps(document).encode())

    async def close(self) -> None: ...


@pytest.fixture
def opened(name: str, tmp_path: Path) -> Any:
    secrets = {"bao_secret_id": "s", "cfssl_key": "00" * 16, "ra_password": "s", "ejbca_enrollment_code": "s"}
    folder = write_secrets(tmp_path / "secrets", token="t", **secrets)
    ejbca = {"client_certificate": None, "bearer": "token", "tls_anchors": []} if name == "ejbca" else {}
    entry = example(name, **{"url": "http://127.0.0.1:1", **ejbca}) | {"anchors": [PEM], "intermediates": []}
    return open_entry(entry, folder)


def put_before(opened: Any, peer: FakePeer) -> None:
    """In the place of the one way out, wherever this adapter keeps it."""
    if hasattr(opened, "login"):
        opened.login._peer = peer
        opened.login.forget()
    elif hasattr(opened, "door"):
        opened.door._peer = peer
    else:
        opened.peer = peer


async def act(opened: Any, what: str, order: Order) -> Any:
    if what == "check":
        return await opened.check()
    if what == "revoke":
        return await opened.revoke(order, reason=1, at=now())
    return await getattr(opened, what)(order)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        *((name, what) for name in ("vault", "cfssl", "django-ca", "ejbca") for what in ("submit", "revoke", "check")),
        *(("django-ca", "poll"), ("ejbca", "poll")),
    ],
)
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=st.lists(st.tuples(statuses, documents), min_size=1, max_size=3))
def test_no_answer_brings_an_adapter_out_of_its_words(
    name: str, what: str, opened: Any, answers: list[tuple[int, Any]]
) -> None:
    put_before(opened, FakePeer(answers))
    handle = b'{"slug": "x", "serial": "1"}' if name == "django-ca" else b"5"
    order = replace(ORDER, handle=handle, chain=(CERTIFICATE.public_bytes(Encoding.DER),))
    assert said(opened, what, order) in MAY_BE


def said(opened: Any, what: str, order: Order) -> str:
    """The code of its refusal, or the kind of its outcome."""
    try:
        outcome = asyncio.run(act(opened, what, order))
    except RakkanError as refusal:
        return refusal.code if refusal.detail.isprintable() else f"unprintable: {refusal.detail!r}"
    return type(outcome).__name__


ORDER = order_for(new_key())
