"""Certificates by hand: what leaves in a bundle, and which files that come back are believed. The CA is openssl."""

import argparse
import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7

from services.ca_connector.authorities import find
from services.ca_connector.authorities.manual import Manual
from services.ca_connector.batch import Batch
from services.ca_connector.orders import Order, Pending, State, advance, lose
from services.operator import batches
from services.operator.terminal import NotUnderstoodError, Terminal
from services.operator.words import parser
from shared.contracts.base import Request
from shared.contracts.batches import PAGE_MAX, ExportRequests, ImportCertificates, ImportedCertificate
from shared.errors import Code, RakkanError
from shared.registry import Registry
from shared.settings import SettingsError
from shared.trust import SigningKey
from tests.support.by_hand import ByHand
from tests.support.ordering import new_key, now, open_entry, order_for

AUTHORITY = "by-post"
PAGE = Path(__file__).parents[2] / "docs/operating/certificates-by-hand.md"


@dataclass
class Rows:
    """The orders of the room."""

    orders: dict[str, Order] = field(default_factory=dict)

    async def export(self, authority: str, *, after: str, orders_max: int) -> list[Order]:
        found = sorted(self.orders.values(), key=lambda one: one.order_id)
        waiting = {State.PENDING, State.UNKNOWN}
        return [o for o in found if o.authority == authority and o.order_id > after and o.state in waiting][:orders_max]

    async def of_key(self, authority: str, key_hash: bytes) -> list[Order]:
        return [
            one
            for one in self.orders.values()
            if one.authority == authority and one.state is not State.REJECTED and _key_hash(one) == key_hash
        ]

    async def record(self, before: Order, after: Order, *, now: Any) -> bool:
        del now
        if self.orders[before.order_id].state is not before.state:
            return False
        self.orders[before.order_id] = after
        return True

    async def order(self, order_id: str) -> Order:
        return self.orders[order_id]


def _key_hash(order: Order) -> bytes:
    key = x509.load_der_x509_csr(order.csr).public_key()
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


class Desk:
    """The room and the operator's door, with the bus left out."""

    def __init__(self, ca: ByHand, *, intermediates: Sequence[str] = ()) -> None:
        self.rows = Rows()
        self.key = SigningKey("connector", Ed25519PrivateKey.generate())
        profile = {"label": "Document signing", "ca_profile": "form 7"}
        entry = {"anchors": [ca.root], "profiles": {"signing": profile}, "default_profile": "signing"}
        registry = Registry.model_validate_json(
            json.dumps(
                {
                    "version": 1,
                    "certification_authorities": {
                        AUTHORITY: {
                            **entry,
                            "label": "By post",
                            "protocol": "manual",
                            "intermediates": list(intermediates),
                        },
                        "wired": {**entry, "label": "By wire", "protocol": "cfssl"},
                    },
                }
            )
        )
        self.batch = Batch(store=self.rows, orders=self.rows, registry=lambda: registry, key=self.key, now=now)
        self.terminal = Terminal(as_json=True)

    def order(self, key: Any = None, **more: Any) -> Order:
        order = replace(order_for(key or new_key()), authority=AUTHORITY, **more)
        order = advance(order, Pending(b"by hand"))
        self.rows.orders[order.order_id] = order
        return order

    async def ask(self, request: Request[Any]) -> Any:
        if isinstance(request, ExportRequests):
            return await self.batch.export_requests(request)
        assert isinstance(request, ImportCertificates)
        return await self.batch.import_certificates(request)

    async def export(self, out: Path) -> list[dict[str, Any]]:
        await batches.export(argparse.Namespace(authority=AUTHORITY, out=str(out)), self.ask, self.terminal)
        return entries_of(out)

    async def import_(self, *files: Path) -> None:
        words = argparse.Namespace(authority=AUTHORITY, files=[str(file) for file in files])
        await batches.import_(words, self.ask, self.terminal)

    async def bring(self, *certificates: Path | bytes, authority: str = AUTHORITY) -> tuple[ImportedCertificate, ...]:
        ders = tuple(_der(one) if isinstance(one, Path) else one for one in certificates)
        request = ImportCertificates(authority=authority, certificates=ders)
        return (await self.batch.import_certificates(request)).certificates

    def state(self, order: Order) -> State:
        return self.rows.orders[order.order_id].state


def entries_of(bundle: Path) -> list[dict[str, Any]]:
    return list(json.loads(bundle.read_text())["requests"])


def _der(file: Path) -> bytes:
    return x509.load_pem_x509_certificate(file.read_bytes()).public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> ByHand:
    return ByHand(tmp_path_factory.mktemp("by-hand"))


@pytest.fixture
def desk(ca: ByHand) -> Desk:
    return Desk(ca, intermediates=[ca.issuing.read_text()])


async def test_a_request_goes_out_and_its_certificate_comes_in(desk: Desk, ca: ByHand, tmp_path: Path) -> None:
    order = desk.order()
    (entry,) = await desk.export(tmp_path / "bundle.json")
    stated = json.loads(entry["request"])
    assert (stated["order_id"], stated["profile"], stated["ca_profile"]) == (order.order_id, "signing", "form 7")
    await desk.import_(ca.issue(stated["csr"].encode()))
    filled = desk.rows.orders[order.order_id]
    assert filled.state is State.ISSUED
    assert [x509.load_der_x509_certificate(one).subject.rfc4514_string() for one in filled.chain[1:]] == [
        "CN=Example CA by post issuing",
        "CN=Example CA by post",
    ]


async def test_what_leaves_is_signed_to_the_byte(desk: Desk, tmp_path: Path) -> None:
    desk.order(origin=b"the SAM's statement")
    (entry,) = await desk.export(tmp_path / "bundle.json")
    signature = base64.b64decode(entry["signature"])
    public_key = desk.key.key.public_key()
    public_key.verify(signature, b"rakkan-requests/1\0" + entry["request"].encode())
    assert entry["key_id"] == desk.key.key_id
    assert base64.b64decode(json.loads(entry["request"])["key_origin"]) == b"the SAM's statement"
    with pytest.raises(InvalidSignature):
        public_key.verify(signature, b"rakkan-requests/1\0" + entry["request"].replace("signing", "sealing").encode())


async def test_every_open_order_leaves_however_many_there_are(desk: Desk, tmp_path: Path) -> None:
    key = new_key()
    csr = order_for(key).csr
    orders = [desk.order(csr=csr) for _ in range(2 * PAGE_MAX + 1)]
    entries = await desk.export(tmp_path / "bundle.json")
    assert {json.loads(one["request"])["order_id"] for one in entries} == {one.order_id for one in orders}


async def test_what_has_ended_leaves_no_more_and_a_file_is_never_overwritten(
    desk: Desk, ca: ByHand, tmp_path: Path
) -> None:
    desk.rows.orders["of-another-authority"] = replace(desk.order(), order_id="of-another-authority", authority="wired")
    done = desk.order()
    await desk.import_(ca.issue(done.csr))
    assert len(await desk.export(tmp_path / "bundle.json")) == 1
    with pytest.raises(NotUnderstoodError, match="there already"):
        await desk.export(tmp_path / "bundle.json")


@pytest.mark.parametrize("authority", ["wired", "nowhere"])
async def test_only_an_authority_that_works_by_files_is_served(desk: Desk, ca: ByHand, authority: str) -> None:
    code = Code.CONFLICT if authority == "wired" else Code.AUTHORITY_UNKNOWN
    with pytest.raises(RakkanError) as refusal:
        await desk.batch.export_requests(ExportRequests(authority=authority))
    assert refusal.value.code is code
    with pytest.raises(RakkanError) as refusal:
        await desk.bring(ca.issue(order_for(new_key()).csr), authority=authority)
    assert refusal.value.code is code


async def test_an_order_that_was_given_up_still_gets_its_certificate(desk: Desk, ca: ByHand) -> None:
    order = desk.order()
    desk.rows.orders[order.order_id] = lose(order, "no word for 30 days")
    (result,) = await desk.bring(ca.issue(order.csr))
    assert result.outcome == "imported"
    assert desk.state(order) is State.ISSUED


async def test_what_was_imported_before_is_known(desk: Desk, ca: ByHand) -> None:
    order = desk.order()
    file = ca.issue(order.csr)
    assert [one.outcome for one in await desk.bring(file, file)] == ["imported", "known"]
    assert [one.order_id for one in await desk.bring(file)] == [order.order_id]


async def test_a_second_certificate_for_a_key_is_refused(desk: Desk, ca: ByHand) -> None:
    order = desk.order()
    first, second = ca.issue(order.csr), ca.issue(order.csr, "second.pem")
    results = await desk.bring(first, second)
    assert [one.outcome for one in results] == ["imported", "refused"]
    assert results[1].reason == f"the order {order.order_id} is ISSUED and waits for no certificate"
    assert desk.rows.orders[order.order_id].chain[0] == _der(first)


async def test_a_certificate_for_a_key_that_nothing_was_ordered_for_is_refused(desk: Desk, ca: ByHand) -> None:
    order = desk.order()
    (result,) = await desk.bring(ca.issue(order_for(new_key()).csr))
    assert (result.outcome, result.reason) == ("refused", f"no order at {AUTHORITY} is for this key")
    assert desk.state(order) is State.PENDING


async def test_a_certificate_of_an_order_at_another_authority_is_refused(desk: Desk, ca: ByHand) -> None:
    order = replace(desk.order(), authority="wired")
    desk.rows.orders[order.order_id] = order
    (result,) = await desk.bring(ca.issue(order.csr))
    assert result.outcome == "refused"
    assert desk.state(order) is State.PENDING


async def test_a_certificate_of_another_ca_of_the_same_name_is_refused(desk: Desk, tmp_path: Path) -> None:
    order = desk.order()
    (result,) = await desk.bring(ByHand(tmp_path / "double").issue(order.csr))
    assert (result.outcome, result.reason) == ("refused", f"it does not lead to an anchor of {AUTHORITY}")
    assert desk.state(order) is State.PENDING


async def test_a_self_made_certificate_for_the_key_is_refused(desk: Desk) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    order = desk.order(key)
    name = x509.load_der_x509_csr(order.csr).subject
    made = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key(), serial_number=7)
        .not_valid_before(now())
        .not_valid_after(now().replace(year=now().year + 1))
        .sign(key, x509.load_der_x509_csr(order.csr).signature_hash_algorithm)
    )
    (result,) = await desk.bring(made.public_bytes(Encoding.DER))
    assert result.outcome == "refused"


async def test_what_is_no_certificate_is_refused_and_the_others_are_imported(desk: Desk, ca: ByHand) -> None:
    order = desk.order()
    results = await desk.bring(b"\x30\x03\x02\x01\x05", ca.issue(order.csr))
    assert [one.outcome for one in results] == ["refused", "imported"]


async def test_an_intermediate_may_come_with_the_certificates(ca: ByHand, tmp_path: Path) -> None:
    desk = Desk(ca)
    order = desk.order()
    bundle = tmp_path / "chain.p7b"
    certificates = [x509.load_pem_x509_certificate(f.read_bytes()) for f in (ca.issue(order.csr), ca.issuing)]
    bundle.write_bytes(pkcs7.serialize_certificates(certificates, Encoding.DER))
    await desk.import_(bundle)
    assert len(desk.rows.orders[order.order_id].chain) == 3


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("form", ["pem", "der"])
async def test_a_file_that_is_cut_off_brings_nothing_in(
    desk: Desk, ca: ByHand, tmp_path: Path, kept: float, form: str
) -> None:
    orders = [desk.order(), desk.order()]
    content = (
        b"".join(ca.issue(one.csr).read_bytes() for one in orders) if form == "pem" else _der(ca.issue(orders[0].csr))
    )
    cut = tmp_path / "cut"
    cut.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(NotUnderstoodError, match="cut off"):
        await desk.import_(cut)
    assert {desk.state(one) for one in orders} == {State.PENDING}


async def test_the_operator_hears_of_each_certificate_that_was_refused(
    desk: Desk, ca: ByHand, capsys: pytest.CaptureFixture[str]
) -> None:
    order = desk.order()
    with pytest.raises(RakkanError, match="1 of 2"):
        await desk.import_(ca.issue(order.csr), ca.issue(order_for(new_key()).csr, "stray.pem"))
    rows = json.loads(capsys.readouterr().out)["certificates"]
    assert sorted(one["outcome"] for one in rows) == ["imported", "refused"]


async def test_an_order_by_hand_waits_for_ever_and_is_revoked_by_hand(ca: ByHand, tmp_path: Path) -> None:
    entry = {
        "label": "By post",
        "protocol": "manual",
        "anchors": [ca.root],
        "profiles": {"signing": {"label": "Document signing"}},
        "default_profile": "signing",
    }
    authority = open_entry(entry, tmp_path)
    assert isinstance(authority, Manual)
    order = order_for(new_key())
    outcome = await authority.submit(order)
    assert isinstance(outcome, Pending)
    assert isinstance(await authority.poll(advance(order, outcome)), Pending)
    assert (await authority.check()).chain == ()
    assert not authority.capabilities.revokes
    with pytest.raises(RakkanError) as refusal:
        await authority.revoke(order, reason=1, at=now())
    assert refusal.value.code is Code.AUTHORITY_REFUSED
    await authority.confirm(order, accepted=True)
    await authority.close()
    with pytest.raises(SettingsError, match="anchors"):
        open_entry({**entry, "anchors": []}, tmp_path)
    assert find("manual").PROTOCOL == "manual"


async def test_the_authority_verifies_a_bundle_as_the_page_says(desk: Desk, tmp_path: Path) -> None:
    order = desk.order()
    bundle = tmp_path / "bundle.json"
    await desk.export(bundle)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    page: dict[str, Any] = {}
    exec(code, page)  # noqa: S102 - the example of our own page
    public_key = desk.key.key.public_key().public_bytes_raw()
    (stated,) = page["verify"](text_of(bundle), public_key)
    assert stated["order_id"] == order.order_id
    with pytest.raises(InvalidSignature):
        page["verify"](text_of(bundle).replace(order.order_id, "another"), public_key)


def text_of(file: Path) -> str:
    return file.read_text()


@pytest.mark.parametrize(
    "said",
    [
        ["ca", "requests", "export", "--authority", AUTHORITY, "--out", "bundle.json"],
        ["ca", "certificates", "import", "--authority", AUTHORITY, "one.pem", "two.pem"],
    ],
    ids=" ".join,
)
def test_the_door_understands(said: list[str]) -> None:
    words = parser().parse_args(said)
    assert (words.command, words.question, words.authority) == ("ca", said[1], AUTHORITY)


async def test_what_makes_no_request_is_said_before_anything_is_asked(desk: Desk, ca: ByHand, tmp_path: Path) -> None:
    words = argparse.Namespace(authority="no such name!", out=str(tmp_path / "bundle.json"))
    with pytest.raises(NotUnderstoodError, match="authority"):
        await batches.export(words, desk.ask, desk.terminal)
    with pytest.raises(NotUnderstoodError, match="only certificates of CAs"):
        await desk.import_(ca.issuing)
