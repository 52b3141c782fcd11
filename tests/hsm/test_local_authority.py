"""The local CA with its key in a real SoftHSM, judged by openssl."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from services.ca_connector.authorities.local import LocalAuthority
from services.ca_connector.ceremony import Ceremony, Settings, perform
from services.ca_connector.orders import Issued, Order, Refused
from services.ca_connector.profile import Profile
from services.ca_connector.token import CAKey
from shared.errors import Code, RakkanError
from shared.hsm import Token
from shared.settings import HSM, SettingsError
from tests.support.ca_connector import FakeLists
from tests.support.openssl import openssl
from tests.support.softhsm import make_token, seen

CRL_URL = "http://ca.example/crl/local.crl"


def content(file: Path) -> bytes:
    return file.read_bytes()


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def hsm(tmp_path: Path) -> Iterator[HSM]:
    made = make_token(tmp_path / "hsm")
    with seen(tmp_path / "hsm"):
        yield made


@pytest.fixture
async def root_file(hsm: HSM, tmp_path: Path) -> Path:
    file = tmp_path / "anchors" / "root.pem"
    await hold_ceremony(hsm, file)
    return file


async def hold_ceremony(hsm: HSM, file: Path) -> None:
    await perform(Settings.model_construct(hsm=hsm, ceremony=Ceremony(certificate_file=file)))


@pytest.fixture
async def authority(hsm: HSM, root_file: Path) -> AsyncIterator[LocalAuthority]:
    async with Token.open(hsm) as token:
        yield LocalAuthority(
            name="local",
            certificate=x509.load_pem_x509_certificate(content(root_file)),
            key=await CAKey.find(token),
            profiles={"signing": Profile(timedelta(days=365), ("2.999.1",), crl_url=CRL_URL)},
            lists=FakeLists(),
            crl_lifetime=timedelta(hours=24),
            now=now,
        )


def order(number: int = 1, csr: bytes | None = None) -> Order:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Signer {number}")])
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return Order(f"order-{number}", "local", csr or request.public_bytes(Encoding.DER), "operation", created_at=now())


async def issue(authority: LocalAuthority, number: int, folder: Path) -> Issued:
    issued = await authority.submit(order(number))
    assert isinstance(issued, Issued)
    certificate = x509.load_der_x509_certificate(issued.chain[0])
    (folder / f"{number}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    return issued


async def test_openssl_verifies_what_the_ca_issues(authority: LocalAuthority, root_file: Path, tmp_path: Path) -> None:
    issued = await issue(authority, 1, tmp_path)
    assert openssl("verify", "-x509_strict", "-CAfile", root_file, "1.pem", folder=tmp_path) == "1.pem: OK\n"
    text = openssl("x509", "-in", "1.pem", "-noout", "-text", folder=tmp_path)
    for said in ("Digital Signature, Non Repudiation", "1.3.6.1.5.5.7.3.36", "2.999.1", CRL_URL, "CN = Signer 1"):
        assert said in text
    assert issued.chain[1] == authority.certificate.public_bytes(Encoding.DER)
    serial = x509.load_der_x509_certificate(issued.chain[0]).serial_number
    assert 0 < serial < 1 << 159
    assert serial.bit_length() > 100


async def test_openssl_refuses_what_the_crl_revokes_and_nothing_else(
    authority: LocalAuthority, root_file: Path, tmp_path: Path
) -> None:
    kept, revoked = await issue(authority, 1, tmp_path), await issue(authority, 2, tmp_path)
    assert kept.chain != revoked.chain
    assert await authority.renew_crl()
    ended = Order("order-2", "local", b"", "operation", created_at=now(), chain=revoked.chain)
    for _ in range(2):
        await authority.revoke(ended, reason=1, at=now())
    (tmp_path / "crl.der").write_bytes(await authority.crl_page())
    told = openssl("crl", "-in", "crl.der", "-CAfile", root_file, "-noout", "-text", folder=tmp_path)
    assert "verify OK" in told
    assert "Key Compromise" in told
    assert told.count("Serial Number:") == 1
    openssl("crl", "-in", "crl.der", "-out", "crl.pem", folder=tmp_path)
    check = ("verify", "-x509_strict", "-crl_check", "-CRLfile", "crl.pem", "-CAfile", root_file)
    assert openssl(*check, "1.pem", folder=tmp_path) == "1.pem: OK\n"
    assert "certificate revoked" in openssl(*check, "2.pem", folder=tmp_path)


async def test_a_second_ceremony_keeps_key_and_certificate(hsm: HSM, root_file: Path) -> None:
    first = content(root_file)
    await hold_ceremony(hsm, root_file)
    assert content(root_file) == first


async def test_a_lost_certificate_is_made_again_and_verifies_what_was_issued(hsm: HSM, tmp_path: Path) -> None:
    first, second = tmp_path / "first.pem", tmp_path / "second.pem"
    await hold_ceremony(hsm, first)
    await hold_ceremony(hsm, second)
    assert content(first) != content(second)
    async with Token.open(hsm) as token:
        old = x509.load_pem_x509_certificate(content(first))
        authority = LocalAuthority(
            name="local",
            certificate=old,
            key=await CAKey.find(token),
            profiles={"signing": Profile(timedelta(days=1))},
            lists=FakeLists(),
            crl_lifetime=timedelta(hours=1),
            now=now,
        )
        await issue(authority, 1, tmp_path)
    assert openssl("verify", "-CAfile", second, "1.pem", folder=tmp_path) == "1.pem: OK\n"


async def test_the_ceremony_overwrites_no_other_cas_certificate(hsm: HSM, root_file: Path, tmp_path: Path) -> None:
    other = make_token(tmp_path / "other")
    before = content(root_file)
    with seen(tmp_path / "other"), pytest.raises(SettingsError, match="another key"):
        await hold_ceremony(other, root_file)
    assert content(root_file) == before
    assert hsm is not other


async def test_without_a_ceremony_there_is_no_ca(hsm: HSM) -> None:
    async with Token.open(hsm) as token:
        with pytest.raises(RakkanError) as refusal:
            await CAKey.find(token)
    assert refusal.value.code is Code.HSM_UNAVAILABLE
    assert "ceremony" in refusal.value.detail


async def test_a_ca_does_not_start_with_the_certificate_of_another_key(authority: LocalAuthority) -> None:
    authority.check_key()
    key = ec.generate_private_key(ec.SECP384R1())
    authority.key = CAKey(authority.key._token, key.public_key())
    with pytest.raises(SettingsError):
        authority.check_key()


async def test_a_signature_that_does_not_verify_never_leaves(authority: LocalAuthority) -> None:
    stranger = ec.generate_private_key(ec.SECP384R1()).public_key()
    authority.key = CAKey(authority.key._token, stranger)
    with pytest.raises(RakkanError) as refusal:
        await authority.submit(order())
    assert refusal.value.code is Code.HSM_UNAVAILABLE


async def test_a_request_that_cannot_be_certified_is_refused_with_its_reason(authority: LocalAuthority) -> None:
    assert await authority.submit(order(csr=b"no request")) == Refused("the certification request cannot be read")


async def test_a_crl_is_renewed_at_half_of_its_time_and_missed_when_it_runs_out(authority: LocalAuthority) -> None:
    began = now()
    authority.now = lambda: began
    with pytest.raises(RakkanError):
        await authority.check_crl()
    with pytest.raises(RakkanError):
        await authority.crl_page()
    assert [await authority.renew_crl() for _ in range(2)] == [True, False]
    await authority.check_crl()
    authority.now = lambda: began + timedelta(hours=11)
    assert not await authority.renew_crl()
    authority.now = lambda: began + timedelta(hours=24)
    with pytest.raises(RakkanError):
        await authority.check_crl()
    authority.now = lambda: began + timedelta(hours=12)
    assert await authority.renew_crl()
