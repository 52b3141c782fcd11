"""What the local CA issues, judged by a linter that others wrote: its root, a signer's certificate and its CRL."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from services.ca_connector.profile import Profile, RevokedCertificate, crl, end_entity, read_request, root
from tests.support.linting import lint_certificate, lint_crl
from tests.support.ordering import Key, new_key, new_rsa_key, now, request_for
from tests.support.peers import POLICY, Missing, leave_out
from tests.support.peers.environments import environment

PROFILE = Profile(
    validity=timedelta(days=365),
    policies=(POLICY,),
    crl_url="http://ca.example.com/local.crl",
    issuer_url="http://ca.example.com/local.cer",
)


@pytest.fixture(scope="module", autouse=True)
def _linter() -> None:
    try:
        environment("pkilint")
    except Missing as missing:
        leave_out(missing)


@pytest.fixture(scope="module")
def ca() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP384R1())
    names = [x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "JP"), x509.NameAttribute(x509.NameOID.COMMON_NAME, "Local")]
    builder = root(
        name=x509.Name(names),
        key=key.public_key(),
        serial_number=x509.random_serial_number(),
        validity=timedelta(days=3650),
        now=now(),
    )
    return key, builder.sign(key, hashes.SHA384())


async def test_the_root_keeps_to_the_rules(
    ca: tuple[ec.EllipticCurvePrivateKey, x509.Certificate], tmp_path: Path
) -> None:
    assert lint_certificate(ca[1], tmp_path) == []


@pytest.mark.parametrize("make_key", [new_key, new_rsa_key])
async def test_a_signers_certificate_keeps_to_the_rules(
    ca: tuple[ec.EllipticCurvePrivateKey, x509.Certificate], make_key: Callable[[], Key], tmp_path: Path
) -> None:
    request = read_request(request_for(make_key()))
    builder = end_entity(request, issuer=ca[1], profile=PROFILE, serial_number=x509.random_serial_number(), now=now())
    assert lint_certificate(builder.sign(ca[0], hashes.SHA384()), tmp_path) == []


async def test_a_list_of_what_is_revoked_keeps_to_the_rules(
    ca: tuple[ec.EllipticCurvePrivateKey, x509.Certificate], tmp_path: Path
) -> None:
    revoked = [RevokedCertificate(4711 + reason, reason, now()) for reason in (0, 1, 3, 4, 5, 9)]
    builder = crl(revoked, issuer=ca[1], number=7, lifetime=timedelta(days=1), now=now())
    assert lint_crl(builder.sign(ca[0], hashes.SHA384()), tmp_path) == []
