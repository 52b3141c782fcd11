"""The authority `local`: a CA in this room, its key in the room's HSM token. It issues at once; nothing is polled."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import Field

from services.ca_connector.authorities import Capabilities, Health, Lists, Surroundings
from services.ca_connector.orders import Issued, Order, Outcome, Refused
from services.ca_connector.profile import Profile, RevokedCertificate, crl, end_entity, read_request
from services.ca_connector.token import CAKey
from shared.errors import Code, RakkanError
from shared.registry import CertificateProfile, CertificationAuthority
from shared.registry.model import URL, Entry
from shared.settings import SettingsError

PROTOCOL = "local"


class Connection(Entry):
    """Its certificate, which the ceremony wrote, is the anchor of its entry in the registry."""

    crl_url: URL | None = None
    """Where signers' certificates say the CRL is: a public address of this room's `/crl/<name>.crl`."""
    issuer_url: URL | None = None
    """Where they say the CA's certificate is: a public address of this room's `/ca/<name>.cer`."""
    crl_hours: int = Field(default=24, ge=1, le=744)
    """From thisUpdate to nextUpdate. A new CRL comes with every revocation, and at half of this time."""


def open(ca: CertificationAuthority, connection: Connection, surroundings: Surroundings) -> "LocalAuthority":  # noqa: A001 - what every adapter calls it
    if len(ca.anchors) != 1:
        raise SettingsError(f"{surroundings.name}: the one anchor of a local CA is the certificate of its ceremony")
    if surroundings.ca_key is None or surroundings.lists is None:
        raise SettingsError(f"{surroundings.name}: this room started without a local CA; restart it")
    authority = LocalAuthority(
        name=surroundings.name,
        certificate=ca.anchor_certificates[0],
        key=surroundings.ca_key,
        profiles={name: _profile(profile, connection) for name, profile in ca.profiles.items()},
        lists=surroundings.lists,
        crl_lifetime=timedelta(hours=connection.crl_hours),
        now=surroundings.now,
    )
    authority.check_key()
    return authority


def _profile(profile: CertificateProfile, connection: Connection) -> Profile:
    return Profile(
        validity=timedelta(days=profile.validity_days_max),
        policies=profile.policies,
        crl_url=connection.crl_url,
        issuer_url=connection.issuer_url,
    )


class LocalAuthority:
    """What was issued and not recorded was never seen by anybody, so an order may be placed again."""

    capabilities = Capabilities(polls=False, revokes=True, renews=False, repeatable=True)

    def __init__(
        self,
        *,
        name: str,
        certificate: x509.Certificate,
        key: CAKey,
        profiles: Mapping[str, Profile],
        lists: Lists,
        crl_lifetime: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self.name = name
        self.certificate = certificate
        self.key = key
        self.profiles = profiles
        self.lists = lists
        self.crl_lifetime = crl_lifetime
        self.now = now

    def check_key(self) -> None:
        """Raise unless the certificate is that of the key in the token: with another, all we sign would be void."""
        if self.certificate.public_key() != self.key.public_key:
            raise SettingsError("the anchor of the local CA is not the certificate of the key in the HSM token")

    async def submit(self, order: Order) -> Outcome:
        try:
            builder = end_entity(
                read_request(order.csr),
                issuer=self.certificate,
                profile=self.profiles[order.profile],
                serial_number=x509.random_serial_number(),
                now=self.now(),
            )
        except RakkanError as refusal:
            return Refused(refusal.detail)
        issued = await self.key.sign_certificate(builder)
        return Issued((issued.public_bytes(Encoding.DER), self.certificate.public_bytes(Encoding.DER)))

    async def poll(self, order: Order) -> Outcome:
        raise RakkanError(Code.INTERNAL, f"order {order.order_id}: the local authority leaves nothing pending")

    async def confirm(self, order: Order, *, accepted: bool) -> None:
        """Nothing is left open here."""

    async def check(self) -> Health:
        await self.check_crl()
        return Health((self.certificate,))

    async def close(self) -> None:
        """Nothing is held."""

    async def revoke(self, order: Order, *, reason: int, at: datetime) -> None:
        """A new CRL with the certificate on it, both or neither."""
        certificate = x509.load_der_x509_certificate(order.chain[0])
        revoked = RevokedCertificate(certificate.serial_number, reason, at)
        await self.lists.publish_crl(self.name, self._make_crl, now=self.now(), revoked=revoked)

    async def renew_crl(self) -> bool:
        """Whether a new CRL was due: the first, or half of the last one's time gone."""
        now = self.now()
        times = await self.lists.latest_crl_times(self.name)
        if times is not None and now < times[0] + (times[1] - times[0]) / 2:
            return False
        await self.lists.publish_crl(self.name, self._make_crl, now=now)
        return True

    async def check_crl(self) -> None:
        """Raise unless there is a CRL that has not run out: relying parties would refuse every certificate."""
        times = await self.lists.latest_crl_times(self.name)
        if times is None or times[1] <= self.now():
            raise RakkanError(Code.AUTHORITY_UNAVAILABLE, "there is no current CRL")

    async def crl_page(self) -> bytes:
        """The latest CRL in DER, for everybody."""
        latest = await self.lists.latest_crl(self.name)
        if latest is None:
            raise RakkanError(Code.NOT_FOUND, "no CRL has been published yet")
        return latest

    async def certificate_page(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    async def _make_crl(
        self, number: int, revoked: tuple[RevokedCertificate, ...], now: datetime
    ) -> x509.CertificateRevocationList:
        builder = crl(revoked, issuer=self.certificate, number=number, lifetime=self.crl_lifetime, now=now)
        return await self.key.sign_crl(builder)
