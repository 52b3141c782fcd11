"""The key-origin statement: whoever has the SAM's public key verifies it, and nothing else passes for it."""

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateSigningRequestBuilder, Name

from shared.activation import Activation, Use, sign_activation
from shared.algorithms import KeyAlgorithm, Profile
from shared.errors import Code, RakkanError
from shared.origin import KeyOrigin, check_origin_of, sign_origin, verify_origin
from tests.support.certificates import name, spki
from tests.support.sam import new_signing_key

SAM, STRANGER = new_signing_key(), new_signing_key()
KEYS = {SAM.key_id: SAM.key.public_key()}
KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ORIGIN = KeyOrigin(
    order_id="order-1",
    authority="blue",
    certificate_profile="signing",
    credential_id="contracts",
    tenant_id="acme",
    subject=name("花子").public_bytes(),
    public_key_hash=sha256(spki(KEY)).digest(),
    key_algorithm=KeyAlgorithm.P256,
    audit_reference="generate:0123",
    stated_at=NOW,
)


def request(key: ec.EllipticCurvePrivateKey, subject: Name) -> bytes:
    made = CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(Encoding.DER)


def test_a_statement_verifies_offline_with_the_sams_public_key() -> None:
    statement = sign_origin(ORIGIN, SAM)
    stated = verify_origin(statement, KEYS)
    assert stated == ORIGIN
    check_origin_of(stated, request(KEY, name("花子")))


@pytest.mark.parametrize("place", [0, 20, 90, -1])
def test_a_changed_statement_is_refused(place: int) -> None:
    statement = bytearray(sign_origin(ORIGIN, SAM))
    statement[place] ^= 1
    with pytest.raises(RakkanError) as refused:
        verify_origin(bytes(statement), KEYS)
    assert refused.value.code is Code.EVIDENCE_REFUSED


def activation() -> bytes:
    """What the same key signs for the SVG."""
    return sign_activation(
        Activation(
            epoch=1,
            use=Use.GENERATE,
            operation_id="generate:0123",
            key_id="0123",
            owner="acme/s1",
            key_algorithm=KeyAlgorithm.P256,
            profile=Profile.EU,
            signatures_max=1,
            issued_at=NOW,
            expires_at=NOW,
        ),
        SAM,
    )


def under_the_sams_name() -> bytes:
    return sign_origin(ORIGIN, replace(STRANGER, key_id=SAM.key_id))


@pytest.mark.parametrize("statement", [sign_origin(ORIGIN, STRANGER), under_the_sams_name(), activation(), b""])
def test_what_the_sam_did_not_state_is_refused(statement: bytes) -> None:
    with pytest.raises(RakkanError) as refused:
        verify_origin(statement, KEYS)
    assert refused.value.code is Code.EVIDENCE_REFUSED


@pytest.mark.parametrize(
    "csr",
    [
        request(ec.generate_private_key(ec.SECP256R1()), name("花子")),
        request(KEY, name("somebody else")),
        b"junk",
    ],
    ids=["another key", "another subject", "no request"],
)
def test_a_statement_is_of_one_key_and_subject(csr: bytes) -> None:
    with pytest.raises(RakkanError) as refused:
        check_origin_of(ORIGIN, csr)
    assert refused.value.code is Code.EVIDENCE_REFUSED
