"""The request the SAM makes for a key, and every certificate it does not take for it."""

from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from services.sam import certificates
from services.sam.rows import Signer
from shared.algorithms import KeyAlgorithm
from shared.errors import Code, RakkanError
from tests.support.certificates import CA, NOW, authority, issue, name, spki

PREHASHED = Prehashed(hashes.SHA256())
SIGNER = Signer("s1", "acme", "hanako", "花子", "Acme", "JP", b"", b"", 5, None, 5, 0, 1)
KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P256, KeyAlgorithm.RSA2048, KeyAlgorithm.ED25519])
def test_a_request_signed_by_its_key_holds(algorithm: KeyAlgorithm) -> None:
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    match algorithm:
        case KeyAlgorithm.P256:
            key = KEY
        case KeyAlgorithm.RSA2048:
            key = rsa.generate_private_key(65537, 2048)
        case _:
            key = ed25519.Ed25519PrivateKey.generate()
    request = certificates.request_for(SIGNER, spki(key), algorithm)
    match key:
        case ed25519.Ed25519PrivateKey():
            value = key.sign(request.to_be_signed)
        case rsa.RSAPrivateKey():
            value = key.sign(request.to_be_signed, padding.PKCS1v15(), PREHASHED)
        case _:
            value = key.sign(request.to_be_signed, ec.ECDSA(PREHASHED))
    loaded = x509.load_der_x509_csr(request.signed(value))
    assert loaded.is_signature_valid
    assert loaded.subject == certificates.subject_of(SIGNER)


def test_the_request_for_a_key_is_the_same_every_time() -> None:
    requests = {certificates.request_for(SIGNER, spki(KEY), KeyAlgorithm.P256).information for _ in range(3)}
    assert len(requests) == 1


ROOT = authority("root")
INTERMEDIATE = authority("intermediate", ROOT)
SUBJECT = certificates.subject_of(SIGNER)


def check(*chain: x509.Certificate, anchors: tuple[x509.Certificate, ...] = (ROOT.certificate,)) -> datetime:
    der = tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in chain)
    return certificates.check_certificate(der, public_key=spki(KEY), subject=SUBJECT, anchors=anchors, now=NOW)


@pytest.mark.parametrize("with_root", [True, False])
def test_a_certificate_of_its_authority_is_taken(with_root: bool) -> None:  # noqa: FBT001  # a parameter of the test
    chain = [issue(INTERMEDIATE, SUBJECT, KEY), INTERMEDIATE.certificate]
    assert check(*chain, *([ROOT.certificate] if with_root else [])) == NOW + timedelta(days=365)


OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
IMPOSTOR = CA(OTHER_KEY, issue(None, name("root"), OTHER_KEY, ca=True))
NO_CA = authority("no ca", ROOT, ca=False)


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ([issue(ROOT, SUBJECT, OTHER_KEY)], "another key"),
        ([issue(ROOT, name("somebody else"), KEY)], "another subject"),
        ([issue(ROOT, SUBJECT, KEY, signs=False)], "key usage"),
        ([issue(ROOT, SUBJECT, KEY, days=(-10, -1))], "not valid today"),
        ([issue(ROOT, SUBJECT, KEY, days=(1, 10))], "not valid today"),
        ([issue(IMPOSTOR, SUBJECT, KEY)], "does not hold"),
        ([issue(INTERMEDIATE, SUBJECT, KEY)], "does not lead"),
        ([issue(INTERMEDIATE, SUBJECT, KEY), ROOT.certificate], "does not hold"),
        ([issue(NO_CA, SUBJECT, KEY), NO_CA.certificate], "no CA"),
        ([issue(None, SUBJECT, KEY)], "does not lead"),
    ],
    ids=[
        "other key",
        "other subject",
        "other usage",
        "expired",
        "not yet valid",
        "impostor of the root",
        "intermediate missing",
        "wrong link",
        "issued by no CA",
        "self-signed",
    ],
)
def test_any_other_certificate_is_refused(chain: list[x509.Certificate], words: str) -> None:
    with pytest.raises(RakkanError, match=words) as refused:
        check(*chain)
    assert refused.value.code is Code.CERTIFICATE_REFUSED


def test_an_authority_without_anchors_gets_nothing_linked() -> None:
    with pytest.raises(RakkanError, match="does not lead"):
        check(issue(ROOT, SUBJECT, KEY), ROOT.certificate, anchors=())


def test_what_is_no_certificate_is_refused() -> None:
    with pytest.raises(RakkanError) as refused:
        certificates.check_certificate((b"junk",), public_key=b"", subject=SUBJECT, anchors=(), now=NOW)
    assert refused.value.code is Code.CERTIFICATE_REFUSED
