"""Every adapter that speaks HTTP against one server that lies: it neither crashes nor loops nor orders twice.

What a certificate says is not its business: one of another key is handed on, and the SAM refuses it.
"""

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.authorities import Authority
from services.ca_connector.orders import Issued, Order
from shared.errors import Code, RakkanError
from tests.support.acting_http import Asked, Raw, Server, head, reply, reply_json, serving
from tests.support.certificates import CA, authority, issue
from tests.support.certificates import name as name_of
from tests.support.ordering import new_key, now, open_entry, order_for
from tests.support.peers.running import write_secrets

ROOT = authority("Lying Root", now=now())
PLACED = {Code.INDETERMINATE, Code.AUTHORITY_UNTRUSTED}
"""After these an order is left to an operator, and never placed again."""


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def der_of(text: str) -> str:
    """base64 of the DER inside a PEM, or of the text itself when it is none."""
    lines = text.strip().splitlines()
    return "".join(lines[1:-1]) if text.startswith("-----") else base64.b64encode(text.encode()).decode()


@dataclass(frozen=True)
class Liar:
    """One protocol: the entry that leads to the server, and how it dresses a certificate."""

    protocol: str
    connection: dict[str, Any]
    dress: Callable[[str], Any]
    honest: dict[str, Any] = field(default_factory=dict)
    """Answers by the end of a path, told before the lie so that it is met where it matters."""

    def entry(self, url: str) -> dict[str, Any]:
        return {
            "label": "A liar",
            "protocol": self.protocol,
            "connection": {"url": url, **self.connection},
            "anchors": [pem(ROOT.certificate)],
            "profiles": {"signing": {"label": "Signing"}},
            "default_profile": "signing",
        }

    def telling(self, lie: Raw) -> Callable[[Asked], Raw]:
        def answer(asked: Asked) -> Raw:
            told = next((said for end, said in self.honest.items() if asked.path.endswith(end)), None)
            return lie if told is None else reply_json(200, told)

        return answer


LIARS = (
    Liar(
        "vault",
        {"token": "token"},
        lambda text: {"data": {"certificate": text, "ca_chain": [pem(ROOT.certificate)]}},
        {"/lookup-self": {"data": {"ttl": 0}}},
    ),
    Liar("cfssl", {"key": "hex"}, lambda text: {"success": True, "result": {"certificate": text}}),
    Liar(
        "rest",
        {
            "login": {"kind": "bearer", "secret": "token"},
            "order": {"path": "/orders", "body": {"csr": "{csr_pem}"}},
            "revoke": {"path": "/certificates/{serial_hex}/revoke", "shows": "/revoked"},
            "check": {"method": "GET", "path": "/health", "shows": "/status"},
            "certificate_at": "/certificate",
        },
        lambda text: {"certificate": text},
    ),
    Liar(
        "ejbca",
        {"ca_name": "CA", "end_entity_profile": "EEP", "enrollment_code": "token", "bearer": "token"},
        lambda text: {"certificate": der_of(text), "serial_number": "01", "response_format": "DER"},
        {"/v1/ca": {"certificate_authorities": [{"name": "CA", "subject_dn": "CN=CA"}]}},
    ),
)


@pytest.fixture(params=LIARS, ids=lambda liar: liar.protocol)
def liar(request: pytest.FixtureRequest) -> Liar:
    return request.param


@pytest.fixture
def secrets_folder(tmp_path: Path) -> Path:
    return write_secrets(tmp_path / "secrets", token="open sesame", hex="00" * 16)


def certified(key: Any = None, issuer: CA = ROOT) -> x509.Certificate:
    return issue(issuer, name_of("Yamada Taro"), key or new_key(), now=now())


def issued_before(order: Order) -> Order:
    return replace(order, chain=(certified().public_bytes(Encoding.DER),))


async def submit(authority: Authority) -> None:
    await authority.submit(order_for(new_key()))


async def revoke(authority: Authority) -> None:
    await authority.revoke(issued_before(order_for(new_key())), reason=1, at=now())


async def check(authority: Authority) -> None:
    await authority.check()


async def refusal(
    liar: Liar, lie: Raw, folder: Path, act: Callable[[Authority], Any] = submit, **more: Any
) -> tuple[Code, Server]:
    """What the adapter makes of it, in a bounded time and number of requests."""
    async with serving(liar.telling(lie)) as server:
        authority = open_entry(liar.entry(server.url), folder, **more)
        try:
            async with asyncio.timeout(10):
                with pytest.raises(RakkanError) as refused:
                    await act(authority)
        finally:
            await authority.close()
        assert "open sesame" not in str(refused.value)
        assert len(server.asked) <= 2 + 2 * len(liar.honest)
        return refused.value.code, server


NONSENSE: dict[str, Raw] = {
    "html": reply(200, "<html>Please log in</html>", content_type="text/html"),
    "html that says it is json": reply(200, "<html>Please log in</html>"),
    "nothing at all": reply(200),
    "an empty object": reply_json(200, {}),
    "a list": reply_json(200, [1, 2]),
    "nested deeper than any stack": reply(200, "[" * 100_000),
    "bytes that are no text": reply(200, bytes(range(256))),
    "compressed": reply(200, b"\x1f\x8b", "Content-Encoding: gzip"),
    "a redirect inside": Raw([head(302, "Location: http://10.0.0.1/", "Content-Length: 0")]),
    "a redirect that keeps the method": Raw([head(307, "Location: http://169.254.169.254/", "Content-Length: 0")]),
    "another status": reply_json(418, {"errors": ["I am a teapot"]}),
}


@pytest.mark.parametrize("act", [submit, revoke, check])
@pytest.mark.parametrize("lie", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_is_refused(liar: Liar, lie: Raw, act: Callable[[Authority], Any], secrets_folder: Path) -> None:
    code, _ = await refusal(liar, lie, secrets_folder, act)
    assert code in {Code.AUTHORITY_UNTRUSTED, Code.AUTHORITY_REFUSED} if act is revoke else {Code.AUTHORITY_UNTRUSTED}


DRESSED = {
    "garbage": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "half a certificate": pem(certified())[:200],
    "not even base64": "certificate!",
    "a whole telephone book": pem(certified()) * 30,
}


@pytest.mark.parametrize("text", DRESSED.values(), ids=DRESSED)
async def test_garbage_in_the_place_of_a_certificate_is_refused(liar: Liar, text: str, secrets_folder: Path) -> None:
    code, _ = await refusal(liar, reply_json(200, liar.dress(text)), secrets_folder)
    assert code is Code.AUTHORITY_UNTRUSTED


async def test_an_answer_of_fifty_megabytes_is_dropped_at_its_limit(liar: Liar, secrets_folder: Path) -> None:
    megabyte = b" " * 1_000_000
    lie = Raw([head(200, "Content-Type: application/json", "Content-Length: 50000000"), *[megabyte] * 50])
    code, server = await refusal(liar, lie, secrets_folder)
    assert code is Code.AUTHORITY_UNTRUSTED
    await asyncio.sleep(0.05)
    assert server.sent_bytes < 20_000_000


BROKEN = {
    "truncated": Raw([head(200, "Content-Type: application/json", "Content-Length: 1000") + b'{"data"']),
    "reset in the body": Raw([head(200, "Content-Length: 1000") + b"{"], pause_s=0.05, resets=True),
    "reset before an answer": Raw([], resets=True),
    "closed before an answer": Raw([]),
    "half a head": Raw([b"HTTP/1.1 200 O"]),
    "no http": Raw([b"220 mail.example.com ESMTP\r\n\r\n"]),
    "internal error": reply(500, "boom", content_type="text/plain"),
    "bad gateway": reply(502, "<html>", content_type="text/html"),
    "gateway timeout": reply(504),
}


@pytest.mark.parametrize("lie", BROKEN.values(), ids=BROKEN)
async def test_an_order_that_may_have_arrived_is_never_placed_again(liar: Liar, lie: Raw, secrets_folder: Path) -> None:
    code, _ = await refusal(liar, lie, secrets_folder)
    assert code is Code.INDETERMINATE


@pytest.mark.parametrize("lie", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("act", [revoke, check])
async def test_what_can_be_asked_again_is(
    liar: Liar, lie: Raw, act: Callable[[Authority], Any], secrets_folder: Path
) -> None:
    code, _ = await refusal(liar, lie, secrets_folder, act)
    assert code is Code.AUTHORITY_UNAVAILABLE


SLOW = {
    "silent": Raw([b"", b""], pause_s=30),
    "dripping": Raw([head(200, "Content-Type: application/json"), *[b" "] * 300], pause_s=0.1),
}


@pytest.mark.parametrize("lie", SLOW.values(), ids=SLOW)
async def test_a_slow_authority_gets_no_more_than_its_time(liar: Liar, lie: Raw, secrets_folder: Path) -> None:
    began = asyncio.get_running_loop().time()
    code, _ = await refusal(liar, lie, secrets_folder, timeout_s=0.4)
    assert code is Code.INDETERMINATE
    assert asyncio.get_running_loop().time() - began < 3


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, Code.AUTHORITY_REFUSED),
        (403, Code.AUTHORITY_REFUSED),
        (429, Code.AUTHORITY_UNAVAILABLE),
        (503, Code.AUTHORITY_UNAVAILABLE),
    ],
)
async def test_statuses_tell_who_must_act(liar: Liar, status: int, code: Code, secrets_folder: Path) -> None:
    assert (await refusal(liar, reply_json(status, {}), secrets_folder))[0] is code


async def test_no_redirect_is_followed_anywhere(liar: Liar, secrets_folder: Path) -> None:
    async with serving(lambda _: reply_json(200, {})) as private:
        lie = Raw([head(307, f"Location: {private.url}/", "Content-Length: 0")])
        code, _ = await refusal(liar, lie, secrets_folder)
        assert code in PLACED
        assert private.asked == []


async def test_a_certificate_of_another_key_is_handed_on_for_the_sam_to_refuse(
    liar: Liar, secrets_folder: Path
) -> None:
    wrong = certified()
    lie = reply_json(200, liar.dress(pem(wrong)))
    async with serving(liar.telling(lie)) as server:
        authority = open_entry(liar.entry(server.url), secrets_folder)
        outcome = await authority.submit(order_for(new_key()))
        await authority.close()
    assert isinstance(outcome, Issued)
    assert x509.load_der_x509_certificate(outcome.chain[0]) == wrong


async def test_a_name_in_an_order_cannot_leave_its_place(liar: Liar, secrets_folder: Path) -> None:
    """The profile's own name at the CA may hold anything: it stays one segment of a path, one member of JSON."""
    entry = liar.entry("http://127.0.0.1:1")
    async with serving(liar.telling(reply_json(200, liar.dress(pem(certified()))))) as server:
        entry = liar.entry(server.url)
        entry["profiles"]["signing"]["ca_profile"] = '../../sys/seal?x="\r\nX: y'
        authority = open_entry(entry, secrets_folder)
        await authority.submit(order_for(new_key()))
        await authority.close()
        asked = server.asked[-1]
    assert "sys/seal" not in asked.path
    assert "x" not in asked.headers
    assert json.loads(asked.body)
