"""A passkey or a device key before the judge: what is believed, and every lie that is refused."""

import base64
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.sam import authenticators, contexts, evidence
from services.sam.contexts import Context, Document
from services.sam.evidence import RelyingParty
from services.sam.rows import Authenticator, Evidence
from services.sam.settings import WebAuthn
from shared.algorithms import Hash
from shared.contracts.approval import PasskeyAssertion
from shared.errors import Code, RakkanError
from tests.support.authenticator import HONEST, DeviceKey, Lies, Passkey, PrivateKey

RP_ID, ORIGIN = "sign.example.com", "https://sign.example.com"
PARTY = RelyingParty(RP_ID, (ORIGIN, "https://alt.sign.example.com"), allow_backed_up=True)
BOUND = replace(PARTY, allow_backed_up=False)
CHALLENGE = b"c" * 32
HANDLE = b"0123456789abcdef"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEYS: dict[str, PrivateKey] = {
    "es256": ec.generate_private_key(ec.SECP256R1()),
    "eddsa": Ed25519PrivateKey.generate(),
    "rs256": RSA_KEY,
}
ENCODED = base64.urlsafe_b64encode(CHALLENGE).decode().rstrip("=")


def passkey(**changes: Any) -> Passkey:
    return Passkey(**({"rp_id": RP_ID, "origin": ORIGIN, "user_handle": HANDLE} | changes))


def judge(
    key: Passkey,
    assertion: PasskeyAssertion | None = None,
    *,
    lies: Lies = HONEST,
    party: RelyingParty = PARTY,
    challenge: bytes = CHALLENGE,
    sign_count: int = 0,
    eligible: bool = False,
) -> int:
    return evidence.verify_assertion(
        assertion or key.answer(CHALLENGE, lies),
        party=party,
        challenge=challenge,
        webauthn_id=key.credential_id,
        public_key=key.cose_key(),
        sign_count=sign_count,
        backup_eligible=eligible,
        user_handle=HANDLE,
    )


def refused(work: Any, why: str = "") -> None:
    with pytest.raises(RakkanError) as refusal:
        work()
    assert refusal.value.code is Code.EVIDENCE_REFUSED, refusal.value
    assert why in refusal.value.detail, refusal.value.detail


@pytest.mark.parametrize("algorithm", KEYS)
def test_an_honest_assertion_counts(algorithm: str) -> None:
    key = passkey(key=KEYS[algorithm])
    assert judge(key) == 1
    assert judge(key, sign_count=1) == 2


def test_a_passkey_without_a_counter_or_a_user_handle_counts() -> None:
    assert judge(passkey(counts=False, user_handle=None)) == 0


@pytest.mark.parametrize(
    ("lies", "why"),
    [
        (Lies(type="webauthn.create"), "webauthn.get"),
        (Lies(type="payment.get"), "webauthn.get"),
        (Lies(origin="https://sign.example.com.evil.test"), "origin"),
        (Lies(origin="https://evil.test"), "origin"),
        (Lies(origin="http://sign.example.com"), "origin"),
        (Lies(origin=f"{ORIGIN}/"), "origin"),
        (Lies(members={"origin": [ORIGIN]}), "origin"),
        (Lies(members={"crossOrigin": True}), "inside a page"),
        (Lies(members={"crossOrigin": "false"}), "inside a page"),
        (Lies(members={"crossOrigin": None}), "inside a page"),
        (Lies(members={"topOrigin": "https://evil.test"}), "inside a page"),
        (Lies(members={"topOrigin": None}), "inside a page"),
        (Lies(members={"challenge": ENCODED + "="}), "challenge"),
        (Lies(members={"challenge": ENCODED[:-1]}), "challenge"),
        (Lies(members={"challenge": None}), "challenge"),
        (Lies(rp_id="evil.test"), "RP ID"),
        (Lies(up=False), "present"),
        (Lies(uv=False), "verif"),
        (Lies(up=False, uv=False), ""),
        (Lies(bs=True), "backed up"),
        (Lies(be=True), "eligibility"),
        (Lies(be=True, bs=True), "eligibility"),
        (Lies(key=ec.generate_private_key(ec.SECP256R1())), "signature"),
        (Lies(key=KEYS["eddsa"]), "signature"),
        (Lies(signature=b""), ""),
        (Lies(signature=b"x"), "signature"),
        (Lies(credential_id=b"another"), "another credential"),
        (Lies(user_handle=b"somebody else"), "another user"),
        (Lies(client_data_json=b""), "malformed"),
        (Lies(client_data_json=b"[]"), "no object"),
        (Lies(client_data_json=b"[" * 4000), "malformed"),
        (Lies(client_data_json=b"\xff\xfe"), "malformed"),
    ],
)
def test_a_lie_is_refused(lies: Lies, why: str) -> None:
    if lies.signature == b"":
        assertion = passkey().answer(CHALLENGE).model_copy(update={"signature": b""})
        refused(lambda: judge(passkey(credential_id=assertion.credential_id), assertion), why)
    else:
        refused(lambda: judge(passkey(), lies=lies), why)


def test_a_member_twice_is_refused() -> None:
    said = (
        f'{{"type":"webauthn.get","challenge":"{ENCODED}","origin":"{ORIGIN}","crossOrigin":true,"crossOrigin":false}}'
    )
    refused(lambda: judge(passkey(), lies=Lies(client_data_json=said.encode())), "malformed")


def test_an_assertion_over_another_challenge_is_refused() -> None:
    key = passkey()
    refused(lambda: judge(key, challenge=b"d" * 32), "challenge")


def test_client_data_exchanged_after_the_signature_is_refused() -> None:
    """The challenge is right and the signature is the passkey's own, but not over these bytes."""
    key = passkey()
    other = key.answer(b"d" * 32)
    forged = other.model_copy(update={"client_data_json": key.answer(CHALLENGE).client_data_json})
    refused(lambda: judge(key, forged), "signature")


@pytest.mark.parametrize(("counter", "known"), [(4, 5), (5, 5), (0, 5)])
def test_a_counter_that_does_not_rise_is_refused(counter: int, known: int) -> None:
    refused(lambda: judge(passkey(), lies=Lies(counter=counter), sign_count=known), "sign count")


def test_backed_up_passkeys_count_by_profile_only() -> None:
    synced = passkey(synced=True)
    assert judge(synced, eligible=True) == 1
    refused(lambda: judge(synced, party=BOUND, eligible=True), "copied")
    refused(lambda: judge(passkey(), eligible=True), "eligibility")


def test_without_a_relying_party_no_passkey_counts() -> None:
    refused(lambda: judge(passkey(rp_id="", origin=""), party=RelyingParty("", (), allow_backed_up=True)), "set up")


@given(st.data())
def test_any_byte_that_is_changed_breaks_an_assertion(data: st.DataObject) -> None:
    key = passkey(key=KEYS["eddsa"])
    assertion = key.answer(CHALLENGE)
    name = data.draw(st.sampled_from(["client_data_json", "authenticator_data", "signature", "credential_id"]))
    value = bytearray(getattr(assertion, name))
    value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    refused(lambda: judge(key, assertion.model_copy(update={name: bytes(value)})))


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_noise_is_refused_and_nothing_worse(authenticator_data: bytes, signature: bytes) -> None:
    key = passkey(key=KEYS["eddsa"])
    noise = key.answer(CHALLENGE).model_copy(update={"authenticator_data": authenticator_data, "signature": signature})
    refused(lambda: judge(key, noise))


def enrolled(
    key: Passkey, *, lies: Lies = HONEST, party: RelyingParty = PARTY, challenge: bytes = CHALLENGE
) -> evidence.NewPasskey:
    return evidence.verify_registration(**key.register(CHALLENGE, lies), challenge=challenge, party=party)


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize("fmt", ["none", "packed"])
def test_an_honest_registration_is_taken(algorithm: str, fmt: str) -> None:
    key = passkey(key=KEYS[algorithm])
    made = enrolled(key, lies=Lies(fmt=fmt))
    assert (made.webauthn_id, made.sign_count, made.backup_eligible) == (key.credential_id, 0, False)
    assert evidence.verify_assertion(
        key.answer(CHALLENGE),
        party=PARTY,
        challenge=CHALLENGE,
        webauthn_id=made.webauthn_id,
        public_key=made.public_key,
        sign_count=made.sign_count,
        backup_eligible=made.backup_eligible,
        user_handle=HANDLE,
    )


@pytest.mark.parametrize(
    ("lies", "why"),
    [
        (Lies(type="webauthn.get"), "webauthn.create"),
        (Lies(origin="https://evil.test"), "origin"),
        (Lies(members={"crossOrigin": True}), "inside a page"),
        (Lies(members={"topOrigin": ORIGIN}), "inside a page"),
        (Lies(rp_id="evil.test"), "RP ID"),
        (Lies(up=False), "presence"),
        (Lies(uv=False), "verif"),
        (Lies(bs=True), "backed up"),
        (Lies(fmt="packed", signature=b"x"), "attestation"),
        (Lies(fmt="packed", key=ec.generate_private_key(ec.SECP256R1())), "attestation"),
        (Lies(fmt="fido-u2f"), ""),
        (Lies(fmt="android-safetynet"), ""),
        (Lies(fmt="tpm"), ""),
        (Lies(fmt="unheard-of"), ""),
    ],
)
def test_a_registration_that_lies_is_refused(lies: Lies, why: str) -> None:
    refused(lambda: enrolled(passkey(), lies=lies), why)


def test_a_registration_for_another_challenge_is_refused() -> None:
    refused(lambda: enrolled(passkey(), challenge=b"d" * 32), "challenge")


def test_a_copied_passkey_is_enrolled_by_profile_only() -> None:
    assert enrolled(passkey(synced=True)).backup_eligible
    refused(lambda: enrolled(passkey(synced=True), party=BOUND), "copied")


def test_keys_too_weak_or_unknown_are_not_enrolled() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505  # that is the point
    refused(lambda: enrolled(passkey(key=weak)), "short")
    key = passkey()
    key.cose_key = lambda: b"\xa0"  # type: ignore[method-assign]  # a key that is none
    refused(lambda: enrolled(key))
    es384 = b"\xa5\x01\x02\x03\x38\x22\x20\x02\x21\x58\x30" + os.urandom(48) + b"\x22\x58\x30" + os.urandom(48)
    key.cose_key = lambda: es384  # type: ignore[method-assign]  # ES384, which is not offered
    refused(lambda: enrolled(key), "alg")


@given(st.binary(max_size=300))
def test_an_attestation_of_noise_is_refused_and_nothing_worse(noise: bytes) -> None:
    honest = passkey(key=KEYS["eddsa"]).register(CHALLENGE)
    refused(
        lambda: evidence.verify_registration(
            client_data_json=honest["client_data_json"], attestation_object=noise, challenge=CHALLENGE, party=PARTY
        )
    )


@pytest.mark.parametrize("key", [Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())])
def test_a_device_key_signs_the_context_itself(key: Any) -> None:
    device = DeviceKey(key)
    evidence.check_device_key(device.public_key)
    signature = device.prove(b"context")
    evidence.verify_device_signature(signature, public_key=device.public_key, data=b"context")
    for wrong in (signature[:-1], b"", bytes(64), DeviceKey(key).prove(b"another")):
        refused(
            lambda wrong=wrong: evidence.verify_device_signature(wrong, public_key=device.public_key, data=b"context")
        )
    refused(lambda: evidence.verify_device_signature(signature, public_key=DeviceKey().public_key, data=b"context"))


def test_other_kinds_of_device_keys_are_refused() -> None:
    others = (RSA_KEY, ec.generate_private_key(ec.SECP384R1()))
    for other in others:
        der = other.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        refused(lambda der=der: evidence.check_device_key(der), "neither")
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = point.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for noise in (b"", b"x", pem):
        refused(lambda noise=noise: evidence.check_device_key(noise))


def kept(key: Passkey | DeviceKey, context: bytes) -> Evidence:
    common = {
        "evidence_id": "e1",
        "context_id": "c1",
        "signer_id": HANDLE.decode(),
        "authenticator_id": "a1",
        "context": context,
        "verified_at": NOW,
    }
    if isinstance(key, DeviceKey):
        signature = key.prove(context)
        return Evidence(
            **common,  # type: ignore[arg-type]  # named fields
            kind="device",
            public_key=key.public_key,
            webauthn_id=None,
            client_data_json=None,
            authenticator_data=None,
            signature=signature,
            user_handle=None,
        )
    said = key.answer(contexts.challenge(context))
    return Evidence(
        **common,  # type: ignore[arg-type]  # named fields
        kind="passkey",
        public_key=key.cose_key(),
        webauthn_id=said.credential_id,
        client_data_json=said.client_data_json,
        authenticator_data=said.authenticator_data,
        signature=said.signature,
        user_handle=said.user_handle,
    )


CONTEXT = Context(
    nonce=bytes(32),
    epoch=1,
    credential_id="cred-1",
    public_key_hash=b"k" * 32,
    tenant_id="acme",
    client_id="partner",
    hash=Hash.SHA256,
    signatures=1,
    documents=(Document(b"1" * 32, "a.pdf"),),
    expires_at=NOW,
)


@pytest.mark.parametrize("key", [passkey(), passkey(synced=True, counts=False), DeviceKey()])
def test_kept_evidence_says_what_was_approved(key: Passkey | DeviceKey) -> None:
    row = kept(key, contexts.encode(CONTEXT))
    assert evidence.verify_evidence(row, party=PARTY) == CONTEXT
    swapped = replace(CONTEXT, documents=(Document(b"2" * 32, "a.pdf"),))
    refused(lambda: evidence.verify_evidence(replace(row, context=contexts.encode(swapped)), party=PARTY))
    refused(lambda: evidence.verify_evidence(replace(row, context=row.context + b"\0"), party=PARTY))


def authenticator(**changes: Any) -> Authenticator:
    row = Authenticator(
        authenticator_id="a1",
        signer_id="s1",
        kind="passkey",
        label="phone",
        webauthn_id=b"w1",
        public_key=b"k",
        sign_count=0,
        backup_eligible=False,
        added_at=NOW,
        usable_from=NOW,
        removed_at=None,
        version=1,
    )
    return replace(row, **changes)


@pytest.mark.parametrize(
    "other",
    [
        None,
        authenticator(kind="device"),
        authenticator(signer_id="s2"),
        authenticator(removed_at=NOW),
        authenticator(usable_from=NOW + timedelta(seconds=1)),
    ],
)
def test_only_a_signers_own_usable_authenticator_may_answer(other: Authenticator | None) -> None:
    own = authenticator()
    assert authenticators.check_may_answer(own, kind="passkey", signer_id="s1", now=NOW) is own
    refused(lambda: authenticators.check_may_answer(other, kind="passkey", signer_id="s1", now=NOW))


def test_the_first_authenticator_is_usable_at_once_and_every_other_waits() -> None:
    wait = timedelta(seconds=60)
    assert authenticators.usable_from((), cooling_off_s=60, now=NOW) == NOW
    assert authenticators.usable_from((authenticator(),), cooling_off_s=60, now=NOW) == NOW + wait
    removed = authenticator(removed_at=NOW)
    assert authenticators.usable_from((removed,), cooling_off_s=60, now=NOW) == NOW + wait


@pytest.mark.parametrize(
    ("rp_id", "origins"),
    [
        ("", (ORIGIN,)),
        (RP_ID, ()),
        (RP_ID, ("http://sign.example.com",)),
        (RP_ID, ("https://sign.example.com/",)),
        (RP_ID, ("https://evil.test",)),
        (RP_ID, ("https://notsign.example.com",)),
        (RP_ID, ("sign.example.com",)),
    ],
)
def test_an_origin_that_is_not_the_relying_partys_stops_the_start(rp_id: str, origins: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        WebAuthn(rp_id=rp_id, origins=origins)


def test_origins_of_the_relying_party_are_taken() -> None:
    assert WebAuthn(rp_id="example.com", origins=(ORIGIN, "https://example.com:8443")).origins
    assert WebAuthn(rp_id="localhost", origins=("http://localhost:8080",)).origins
    assert json.loads(json.dumps(WebAuthn().origins)) == []
