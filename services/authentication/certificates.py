"""Clients that prove themselves by a certificate (RFC 8705 2), an authority's or their own. Rules only, no I/O."""

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from shared.errors import Code, RakkanError
from shared.mtls import ClientCertificate

METHODS = ("tls_client_auth", "self_signed_tls_client_auth")
_CHAIN_MAX = 4
_KEYS_MAX = 8
_KINDS: dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


def check_issued(shown: ClientCertificate, name: str, anchors: Sequence[x509.Certificate], *, now: datetime) -> None:
    """CLIENT_REFUSED unless one of the authorities issued it, to this name, and it holds now (RFC 8705 2.1).

    A proxy may have looked as well. It is looked at here all the same: a proxy that lets clients in who have a
    certificate of their own lets any certificate through.
    """
    if not anchors:
        raise RakkanError(Code.CLIENT_REFUSED, "no authority is trusted for client certificates")
    # Names are compared below, with what was registered; the library would ask for one of a certain form.
    leaf = (
        ExtensionPolicy.permit_all()
        .may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_no_authority)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _is_for_clients)
    )
    issuing = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
    verifier = (
        PolicyBuilder()
        .store(Store(list(anchors)))
        .time(now)
        .max_chain_depth(_CHAIN_MAX)
        .extension_policies(ca_policy=issuing, ee_policy=leaf)
        .build_client_verifier()
    )
    try:
        verifier.verify(shown.certificate, list(shown.chain))
    except VerificationError:
        raise RakkanError(Code.CLIENT_REFUSED, "not issued by an authority for clients, or not valid now") from None
    if not _is_named(shown.certificate, name):
        raise RakkanError(Code.CLIENT_REFUSED, "the certificate has another name")


def check_own(shown: ClientCertificate, jwks: str, *, now: datetime) -> None:
    """CLIENT_REFUSED unless the client registered this very certificate and it holds now (RFC 8705 2.2)."""
    der = shown.certificate.public_bytes(Encoding.DER)
    if der not in [one.public_bytes(Encoding.DER) for one in _registered(jwks)]:
        raise RakkanError(Code.CLIENT_REFUSED, "the certificate is none that the client registered")
    if not shown.is_in_time(now=now):
        raise RakkanError(Code.CLIENT_REFUSED, "the certificate has expired or is not valid yet")


def check_registered_name(name: str) -> None:
    """MALFORMED unless it is one that certificates can be asked for: `dn:CN=…`, `dns:…`, `uri:…`, `ip:…`, `email:…`."""
    kind, _, value = name.partition(":")
    if kind not in ("dn", "dns", "uri", "ip", "email") or not value:
        raise RakkanError(Code.MALFORMED, "a certificate's name is dn:, dns:, uri:, ip: or email: and a value")
    try:
        if kind == "dn":
            x509.Name.from_rfc4514_string(value)
        if kind == "ip":
            ip_address(value)
    except ValueError:
        raise RakkanError(Code.MALFORMED, f"not a certificate's name of the kind {kind}") from None


def check_registered_certificates(jwks: str) -> None:
    """MALFORMED unless each key of the set stands with its certificate (`x5c`, RFC 8705 2.2.2)."""
    try:
        found = _registered(jwks)
        keys = json.loads(jwks)["keys"]
        for certificate, jwk in zip(found, keys, strict=True):
            key = _KINDS[jwk["kty"]].import_key({k: v for k, v in jwk.items() if k not in ("x5c", "use", "alg")})
            if key.is_private or _spki(key.public_key) != _spki(certificate.public_key()):
                raise RakkanError(Code.MALFORMED, "a private key, or a certificate of another key")
    except (JoseError, ValueError, KeyError, TypeError, AttributeError):
        raise RakkanError(Code.MALFORMED, "not a JWK Set of public keys with their certificates (x5c)") from None
    if not 1 <= len(found) <= _KEYS_MAX:
        raise RakkanError(Code.MALFORMED, f"a JWK Set has one to {_KEYS_MAX} keys")


def _registered(jwks: str) -> list[x509.Certificate]:
    try:
        return [x509.load_der_x509_certificate(_der(key["x5c"])) for key in json.loads(jwks)["keys"]]
    except binascii.Error:
        raise ValueError("x5c is no base64") from None


def _der(x5c: Any) -> bytes:
    if not isinstance(x5c, list) or not x5c or not isinstance(x5c[0], str):
        raise ValueError("x5c is a list of texts")
    return base64.b64decode(x5c[0], validate=True)


def _spki(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _is_named(certificate: x509.Certificate, name: str) -> bool:
    kind, _, value = name.partition(":")
    if kind == "dn":
        return certificate.subject == x509.Name.from_rfc4514_string(value)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    if kind == "dns":
        return value.lower() in [one.lower() for one in names.get_values_for_type(x509.DNSName)]
    if kind == "ip":
        return ip_address(value) in names.get_values_for_type(x509.IPAddress)
    of_kind = x509.UniformResourceIdentifier if kind == "uri" else x509.RFC822Name
    return value in names.get_values_for_type(of_kind)


def _is_authority(_: Any, __: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("not an authority")


def _is_no_authority(_: Any, __: x509.Certificate, constraints: x509.BasicConstraints | None) -> None:
    if constraints is not None and constraints.ca:
        raise ValueError("an authority is no client")


def _is_for_clients(_: Any, __: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    if usage is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise ValueError("not for clients")
