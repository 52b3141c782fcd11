"""Certificates that callers show in TLS (RFC 8705): how one is known again, and when a bound token comes with it.

Whose certificate it is, and whether an authority issued it, is not looked at here. Knows no HTTP and no database.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509

from shared.errors import Code, RakkanError

_BYTES_MAX = 16_384
CHAIN_MAX = 8


@dataclass(frozen=True)
class ClientCertificate:
    """A certificate whose private key the caller proved in the handshake, and what it sent to show who issued it."""

    certificate: x509.Certificate
    thumbprint: str
    """RFC 8705 3.1 `x5t#S256`."""
    chain: tuple[x509.Certificate, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, der: bytes, chain: Sequence[bytes] = ()) -> "ClientCertificate":
        """MALFORMED when it is no certificate."""
        if len(chain) > CHAIN_MAX or any(len(one) > _BYTES_MAX for one in (der, *chain)):
            raise RakkanError(Code.MALFORMED, "the client certificate or its chain is too long")
        try:
            certificate, *issuers = (x509.load_der_x509_certificate(one) for one in (der, *chain))
        except ValueError:
            raise RakkanError(Code.MALFORMED, "the client certificate cannot be read") from None
        digest = hashlib.sha256(der).digest()
        return cls(certificate, urlsafe_b64encode(digest).rstrip(b"=").decode(), tuple(issuers))

    def is_in_time(self, *, now: datetime) -> bool:
        return self.certificate.not_valid_before_utc <= now <= self.certificate.not_valid_after_utc


def check_bound(shown: ClientCertificate | None, *, thumbprint: str, now: datetime) -> None:
    """TOKEN_INVALID unless the caller shows the certificate that its token is bound to, in its time (RFC 8705 3)."""
    if shown is None:
        raise RakkanError(Code.TOKEN_INVALID, "a token bound to a certificate comes with that certificate")
    if not hmac.compare_digest(shown.thumbprint.encode(), thumbprint.encode()):
        raise RakkanError(Code.TOKEN_INVALID, "a token bound to another certificate")
    if not shown.is_in_time(now=now):
        raise RakkanError(Code.TOKEN_INVALID, "the client certificate has expired or is not valid yet")
