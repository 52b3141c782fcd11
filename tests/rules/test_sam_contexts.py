"""The activation context: one encoding for each, read back as it was, and nothing else read."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sam import contexts
from services.sam.contexts import Context, Document
from shared.algorithms import Hash
from shared.errors import Code, RakkanError

A, B = Document(b"1" * 32, "contract.pdf"), Document(b"2" * 32, "annex.pdf")
CONTEXT = Context(
    nonce=bytes(range(32)),
    epoch=1,
    credential_id="cred-1",
    public_key_hash=b"k" * 32,
    tenant_id="acme",
    client_id="partner",
    hash=Hash.SHA256,
    signatures=2,
    documents=(A, B),
    expires_at=datetime(2026, 11, 25, 12, 5, tzinfo=UTC),
)


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": bytes(32)},
        {"epoch": 2},
        {"credential_id": "cred-2"},
        {"public_key_hash": b"x" * 32},
        {"tenant_id": "rival"},
        {"client_id": "rival"},
        {"hash": Hash.SHA3_256},
        {"signatures": 3},
        {"documents": (A, replace(B, digest=b"3" * 32))},
        {"documents": (A, replace(B, label="other.pdf"))},
        {"documents": (A, B, B)},
        {"documents": (A,)},
        {"documents": (B, A)},
        {"expires_at": CONTEXT.expires_at + timedelta(seconds=1)},
        {"tenant_id": "acmepartner", "client_id": ""},
    ],
)
def test_any_change_is_another_challenge(changes: dict[str, Any]) -> None:
    changed = contexts.encode(replace(CONTEXT, **changes))
    assert contexts.challenge(changed) != contexts.challenge(contexts.encode(CONTEXT))


def test_the_encoding_is_the_one_that_is_documented() -> None:
    fields = [
        b"rakkan-context/1",
        bytes(range(32)),
        b"\0\0\0\0\0\0\0\1",
        b"cred-1",
        b"k" * 32,
        b"acme",
        b"partner",
        b"2.16.840.1.101.3.4.2.1",
        b"\0\0\0\0\0\0\0\2",
        b"\0\0\0\0\0\0\0\2",
        *(b"1" * 32, b"contract.pdf"),
        *(b"2" * 32, b"annex.pdf"),
        bytes.fromhex("000000006b06ceec"),
    ]
    encoded = b"".join(bytes([0, 0, 0, len(field)]) + field for field in fields)
    assert contexts.encode(CONTEXT) == encoded
    assert contexts.challenge(encoded).hex() == "c11fa9b2b6a18a55a5961874f528d15ff5309d19477d78d415c3fb3fd7978991"


@given(
    st.builds(
        Context,
        nonce=st.binary(min_size=32, max_size=32),
        epoch=st.integers(0, 2**63),
        credential_id=st.text(max_size=20),
        public_key_hash=st.binary(min_size=32, max_size=32),
        tenant_id=st.text(max_size=20),
        client_id=st.text(max_size=20),
        hash=st.sampled_from(Hash),
        signatures=st.integers(0, 1000),
        documents=st.lists(st.builds(Document, st.binary(max_size=64), st.text(max_size=20)), max_size=4).map(tuple),
        expires_at=st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001  # the strategy adds the zone
            lambda moment: moment.replace(microsecond=0)
        ),
    )
)
def test_a_context_is_read_as_it_was_written(context: Context) -> None:
    assert contexts.read(contexts.encode(context)) == context


@given(st.binary(max_size=400))
def test_anything_else_is_refused(noise: bytes) -> None:
    with pytest.raises(RakkanError) as refused:
        contexts.read(noise)
    assert refused.value.code is Code.EVIDENCE_REFUSED


@pytest.mark.parametrize("end", [1, 10, 60, 200, -1])
def test_a_context_cut_short_or_lengthened_is_refused(end: int) -> None:
    encoded = contexts.encode(CONTEXT)
    for broken in (encoded[:end], encoded + b"\0", encoded + bytes(4), encoded.replace(b"context/1", b"context/2")):
        with pytest.raises(RakkanError):
            contexts.read(broken)


def test_a_reference_code_has_six_signs_that_nobody_confuses() -> None:
    codes = {contexts.reference_code("acme-app", [bytes([number]) * 32]) for number in range(200)}
    assert len(codes) == 200
    assert all(len(code) == 6 and not set(code) & set("01IO") for code in codes)
    assert contexts.reference_code("other", [bytes(32)]) not in codes


@pytest.mark.parametrize("text", ["a\0b", "a\nb", "\u202egnp.exe", "\u2066x", "\x7f"])
def test_text_that_deceives_its_reader_is_refused(text: str) -> None:
    contexts.check_shown("契約書 (naïve, שלום).pdf", "")
    with pytest.raises(RakkanError) as refused:
        contexts.check_shown("fine", text)
    assert refused.value.code is Code.MALFORMED
