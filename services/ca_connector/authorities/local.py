"""The authority `local`: a CA in this room, its key in the room's HSM token. It issues at once; nothing is polled."""

from collections.abc import Callable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.ca_connector.authorities import Capabilities, Health, Lists
from services.ca_connector.orders import Issued, Order, Outcome, Refused
from services.ca_connector.profile import Profile, RevokedCertificate, crl, end_entity, read_request
from services.ca_connector.token import CAKey
from shared.errors import Code, RakkanError
from shared.settings import SettingsError

NAME = "local"


class LocalAuthority:
    """What was issued and not recorded was never seen by anybody, so an order may be placed again."""

    capabilities = Capabilities(polls=False, revokes=True, renews=False, repeatable=True)

    def __init__(
        self,
        *,
        certificate: x509.Certificate,
        key: CAKey,
        profile: Profile,
        lists: Lists,
        crl_lifetime: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self.certificate = certificate
        self.key = key
        self.profile = profile
        self.lists = lists
        self.crl_lifetime = crl_lifetime
        self.now = now

    def check_key(self) -> None:
        """Raise unless the certificate is that of the key in the token: with another, all we sign would be void."""
        if self.certificate.public_key() != self.key.public_key:
            raise SettingsError("the CA certificate in the settings is not that of the key in the HSM token")

    async def submit(self, order: Order) -> Outcome:
        try:
            builder = end_entity(
                read_request(order.csr),
                issuer=self.certificate,
                profile=self.profile,
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
        await self.lists.publish_crl(NAME, self._make_crl, now=self.now(), revoked=revoked)

    async def renew_crl(self) -> bool:
        """Whether a new CRL was due: the first, or half of the last one's time gone."""
        now = self.now()
        times = await self.lists.latest_crl_times(NAME)
        if times is not None and now < times[0] + (times[1] - times[0]) / 2:
            return False
        await self.lists.publish_crl(NAME, self._make_crl, now=now)
        return True

    async def check_crl(self) -> None:
        """Raise unless there is a CRL that has not run out: relying parties would refuse every certificate."""
        times = await self.lists.latest_crl_times(NAME)
        if times is None or times[1] <= self.now():
            raise RakkanError(Code.AUTHORITY_UNAVAILABLE, "there is no current CRL")

    async def crl_page(self) -> bytes:
        """The latest CRL in DER, for everybody."""
        latest = await self.lists.latest_crl(NAME)
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
