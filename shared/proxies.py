"""What a proxy that ends TLS says of the caller behind it: address and certificate. Knows no path and no rule.

`X-Forwarded-For` and RFC 9440 `Client-Cert` are believed from the configured proxies and from nobody else. A
certificate in the header of anybody else is refused, not left aside: whoever writes one there tries to be a client.
"""

import base64
import binascii
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

from shared.errors import Code, RakkanError
from shared.mtls import CHAIN_MAX, ClientCertificate

Network = IPv4Network | IPv6Network
_CERTIFICATE = "rakkan.client_certificate"
_SHOWN_DIRECTLY = "rakkan.tls_certificate"
_CHARS_MAX = 24_000


def introduce(scope: Scope, proxies: Sequence[Network]) -> Scope:
    """The scope with its caller, not the proxy before it; MALFORMED when a certificate is not to be believed."""
    peer = _address(scope["client"][0]) if scope.get("client") else None
    in_header = _values(scope, b"client-cert")
    if peer is None or not _is_one(peer, proxies):
        if in_header or _values(scope, b"client-cert-chain"):
            raise RakkanError(Code.MALFORMED, "Client-Cert is taken from the proxies of this service only")
        shown = scope.get(_SHOWN_DIRECTLY)
        return {**scope, _CERTIFICATE: ClientCertificate.of(shown) if shown else None}
    if len(in_header) > 1:
        raise RakkanError(Code.MALFORMED, "Client-Cert is there twice")
    certificate = None
    if in_header:
        chain = [item for value in _values(scope, b"client-cert-chain") for item in value.split(b",")][:CHAIN_MAX]
        certificate = ClientCertificate.of(_read(in_header[0]), [_read(item) for item in chain])
    return {**scope, "client": (str(_behind(peer, scope, proxies)), 0), _CERTIFICATE: certificate}


def certificate_of(scope: Scope) -> ClientCertificate | None:
    """The certificate that the caller showed, if any. Only behind `introduce`."""
    certificate: ClientCertificate | None = scope.get(_CERTIFICATE)
    return certificate


def shown_directly(scope: Scope, der: bytes | None) -> None:
    """Note the certificate of a handshake that ended here. A new request on a connection has a new scope."""
    scope[_SHOWN_DIRECTLY] = der


def _behind(peer: IPv4Address | IPv6Address, scope: Scope, proxies: Sequence[Network]) -> IPv4Address | IPv6Address:
    """The last address that no proxy of ours wrote about itself. What stands before it, anybody may have written."""
    named = b",".join(_values(scope, b"x-forwarded-for")).decode("latin-1").split(",")
    for text in reversed(named):
        address = _address(text.strip())
        if address is None:
            break
        peer = address
        if not _is_one(address, proxies):
            break
    return peer


def _is_one(address: IPv4Address | IPv6Address, proxies: Sequence[Network]) -> bool:
    return any(address in network for network in proxies)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for given, value in scope["headers"] if given == name]


def _read(item: bytes) -> bytes:
    """RFC 8941 3.3.5: base64 between colons. Parameters have no meaning here, so there are none."""
    text = item.strip()
    if len(text) > _CHARS_MAX or len(text) < 3 or not (text.startswith(b":") and text.endswith(b":")):  # noqa: PLR2004 - two colons around something
        raise RakkanError(Code.MALFORMED, "Client-Cert is no byte sequence (RFC 9440)")
    try:
        return base64.b64decode(text[1:-1], validate=True)
    except (binascii.Error, ValueError):
        raise RakkanError(Code.MALFORMED, "Client-Cert is no byte sequence (RFC 9440)") from None
