"""Every adapter that speaks HTTP against one server that lies: it neither crashes nor loops nor orders twice.

What a certificate says is not its business: one of another key is handed on, and the SAM refuses it.
"""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7

from services.ca_connector.authorities import Authority
from services.ca_connector.orders import Issued, Order
from shared.errors import Code, RakkanError
from tests.support.acting_http import Asked, Raw, Server, head, reply, reply_json, serving
from tests.support.certificates import CA, authority, issue
from tests.support.certificates import name as name_of
from tests.support.ordering import new_key, now, open_entry, order_for
from tests.support.peers.running import write_secrets
from tests.support.tls_files import make_tls_files

ROOT = authority("Lying Root", now=now())
PLACED = {Code.INDETERMINATE, Code.AUTHORITY_UNTRUSTED}
"""After these an order is left to an operator, and never placed again."""


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def der_of(text: str) -> str:
    """base64 of the DER inside a PEM, or of the text itself when it is none."""
    lines = text.strip().splitlines()
    return "".join(lines[1:-1]) if text.startswith("-----") else base64.b64encode(text.encode()).decode()


def certs_only(*certificates: x509.Certificate) -> bytes:
    return base64.encodebytes(pkcs7.serialize_certificates(list(certificates), Encoding.DER))


@dataclass(frozen=True)
class Liar:
    """One protocol: the entry that leads to the server, and how it dresses a certificate."""

    protocol: str
    connection: dict[str, Any]
    dress: Callable[[str], Any] | None = None
    """In JSON; nothing where it travels in another way."""
    honest: dict[str, Callable[[str], Raw]] = field(default_factory=dict)
    """Answers by the end of a path, given the server's address: told so that the lie is met where it matters."""
    lost: Code = Code.INDETERMINATE
    """What an order is whose answer was lost."""
    acts: tuple[str, ...] = ("submit", "revoke", "check")
    over_tls: bool = False

    def entry(self, url: str, **more: Any) -> dict[str, Any]:
        connection = more | {"url": url} | self.connection
        if "directory" in connection:
            connection["directory"] = connection.pop("url") + "/directory"
        return {
            "label": "A liar",
            "protocol": self.protocol,
            "connection": connection,
            "anchors": [pem(ROOT.certificate)],
            "profiles": {"signing": {"label": "Signing"}},
            "default_profile": "signing",
        }

    @asynccontextmanager
    async def telling(self, lie: Raw, folder: Path) -> AsyncIterator[tuple[Server, dict[str, Any]]]:
        """A server that tells this lie, and the entry that leads there."""

        def answer(asked: Asked) -> Raw:
            told = next((said for end, said in self.honest.items() if asked.path.endswith(end)), None)
            return lie if told is None else told(server.url)

        tls = None
        connection: dict[str, Any] = {}
        if self.over_tls:
            root = make_tls_files(folder, {"server": "127.0.0.1"})
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(folder / "server.pem")
            connection["tls_anchors"] = [root]
        async with serving(answer, tls=tls) as server:
            yield server, self.entry(server.url, **connection)


ACME = ("newNonce", "newAccount", "newOrder", "revokeCert")
LIARS = (
    Liar(
        "vault",
        {"token": "token"},
        lambda text: {"data": {"certificate": text, "ca_chain": [pem(ROOT.certificate)]}},
        {"/lookup-self": lambda _: reply_json(200, {"data": {"ttl": 0}})},
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
        {"/v1/ca": lambda _: reply_json(200, {"certificate_authorities": [{"name": "CA", "subject_dn": "CN=CA"}]})},
    ),
    Liar("cmp", {"reference": "rakkan", "secret": "token"}),
    Liar(
        "est",
        {"username": "rakkan", "password": "token"},
        honest={"/cacerts": lambda _: reply(200, certs_only(ROOT.certificate), content_type="application/pkcs7-mime")},
        acts=("submit",),
        over_tls=True,
    ),
    Liar(
        "acme",
        {"directory": "", "account_key": "account.pem", "identifier": "signers.example.com"},
        honest={
            "/directory": lambda url: reply_json(200, {name: f"{url}/{name}" for name in ACME}),
            "/newAccount": lambda url: reply_json(
                201, {"status": "valid"}, f"Location: {url}/acct/1", "Replay-Nonce: n"
            ),
        },
        lost=Code.AUTHORITY_UNAVAILABLE,
        acts=("submit", "revoke"),
    ),
)


@pytest.fixture(params=LIARS, ids=lambda liar: liar.protocol)
def liar(request: pytest.FixtureRequest) -> Liar:
    return request.param


@pytest.fixture(params=[one for one in LIARS if one.dress], ids=lambda liar: liar.protocol)
def dresser(request: pytest.FixtureRequest) -> Liar:
    return request.param


@pytest.fixture
def secrets_folder(tmp_path: Path) -> Path:
    folder = write_secrets(tmp_path / "secrets", token="open sesame", hex="00" * 16)
    key = new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "account.pem").write_bytes(key)
    return folder


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


def meetings(*acts: Callable[[Authority], Any]) -> list[Any]:
    """Each liar with those of the acts for which it is asked."""
    return [
        pytest.param(liar, act, id=f"{liar.protocol}-{act.__name__}")
        for liar in LIARS
        for act in acts
        if act.__name__ in liar.acts
    ]


async def refusal(
    liar: Liar, lie: Raw, folder: Path, act: Callable[[Authority], Any] = submit, **more: Any
) -> tuple[Code, Server]:
    """What the adapter makes of it, in a bounded time and number of requests."""
    async with liar.telling(lie, folder) as (server, entry):
        authority = open_entry(entry, folder, **more)
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


@pytest.mark.parametrize(("liar", "act"), meetings(submit, revoke, check))
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
async def test_garbage_in_the_place_of_a_certificate_is_refused(dresser: Liar, text: str, secrets_folder: Path) -> None:
    code, _ = await refusal(dresser, reply_json(200, dresser.dress(text)), secrets_folder)
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
    assert code is liar.lost


@pytest.mark.parametrize(("liar", "act"), meetings(revoke, check))
@pytest.mark.parametrize("lie", BROKEN.values(), ids=BROKEN)
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
    assert code is liar.lost
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
    dresser: Liar, secrets_folder: Path
) -> None:
    wrong = certified()
    async with dresser.telling(reply_json(200, dresser.dress(pem(wrong))), secrets_folder) as (_, entry):
        authority = open_entry(entry, secrets_folder)
        outcome = await authority.submit(order_for(new_key()))
        await authority.close()
    assert isinstance(outcome, Issued)
    assert x509.load_der_x509_certificate(outcome.chain[0]) == wrong


async def test_a_name_in_an_order_cannot_leave_its_place(dresser: Liar, secrets_folder: Path) -> None:
    """The profile's own name at the CA may hold anything: it stays one segment of a path, one member of JSON."""
    async with dresser.telling(reply_json(200, dresser.dress(pem(certified()))), secrets_folder) as (server, entry):
        entry["profiles"]["signing"]["ca_profile"] = '../../sys/seal?x="\r\nX: y'
        authority = open_entry(entry, secrets_folder)
        await authority.submit(order_for(new_key()))
        await authority.close()
        asked = server.asked[-1]
    assert "sys/seal" not in asked.path
    assert "x" not in asked.headers
    assert json.loads(asked.body)
