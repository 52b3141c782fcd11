"""The page on evidence says enough: its example is read here without the SAM's code, and the SAM writes the same."""

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path

from services.sam import contexts
from services.sam.contexts import Context, Document
from shared.algorithms import Hash

PAGE = (Path(__file__).parents[2] / "docs" / "evidence-format.md").read_text(encoding="utf-8")


def example() -> bytes:
    found = re.search(r"```text\n([0-9a-f\n]+)```", PAGE)
    assert found is not None
    return bytes.fromhex(found[1])


def named(what: str) -> str:
    found = re.search(rf"{what}: `(\w+)`", PAGE)
    assert found is not None
    return found[1]


def fields(encoded: bytes) -> list[bytes]:
    found = []
    while encoded:
        length = int.from_bytes(encoded[:4], "big")
        found.append(encoded[4 : 4 + length])
        encoded = encoded[4 + length :]
    return found


def test_the_example_can_be_read_with_what_the_page_says() -> None:
    found = fields(example())
    assert found[0] == b"rakkan-context/1"
    assert found[1] == bytes(range(32))
    assert [found[i].decode() for i in (3, 5, 6, 7)] == ["contracts-2", "acme", "acme-app", "2.16.840.1.101.3.4.2.1"]
    assert [int.from_bytes(found[i], "big") for i in (2, 8, 9)] == [1, 2, 2]
    assert found[10:14] == [
        hashlib.sha256(b"one").digest(),
        "契約書.pdf".encode(),
        hashlib.sha256(b"two").digest(),
        b"",
    ]
    end = int.from_bytes(found[14], "big")
    assert datetime.fromtimestamp(end, UTC) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert hashlib.sha256(example()).hexdigest() == named("Challenge")


def test_the_reference_code_follows_from_client_and_hashes_as_the_page_says() -> None:
    digests = hashlib.sha256(b"one").digest() + hashlib.sha256(b"two").digest()
    number = int.from_bytes(hashlib.sha256(b"rakkan-reference/1\0acme-app\0" + digests).digest(), "big")
    code = ""
    for _ in range(6):
        number, place = divmod(number, 32)
        code += "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"[place]
    assert code == named("Reference code")


def test_the_sam_writes_the_example() -> None:
    context = Context(
        nonce=bytes(range(32)),
        epoch=1,
        credential_id="contracts-2",
        public_key_hash=hashlib.sha256(b"key").digest(),
        tenant_id="acme",
        client_id="acme-app",
        hash=Hash.SHA256,
        signatures=2,
        documents=(
            Document(hashlib.sha256(b"one").digest(), "契約書.pdf"),
            Document(hashlib.sha256(b"two").digest(), ""),
        ),
        expires_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    assert contexts.encode(context) == example()
    assert contexts.read(example()) == context
    assert contexts.challenge(example()).hex() == named("Challenge")
    assert contexts.reference_code(context.client_id, [one.digest for one in context.documents]) == named(
        "Reference code"
    )
