"""What may be registered of a client: where signers are sent back to, and which promises go together. Rules only."""

import re
from urllib.parse import urlsplit

from services.authentication.certificates import check_registered_certificates, check_registered_name
from services.authentication.clients import check_jwks
from shared.contracts.authentication import AddClient
from shared.errors import Code, RakkanError

_LOOPBACK = ("127.0.0.1", "[::1]", "localhost")
# What a browser would run, open or send instead of going there.
_SCHEMES_REFUSED = frozenset(
    {
        "about",
        "blob",
        "data",
        "file",
        "filesystem",
        "ftp",
        "javascript",
        "mailto",
        "vbscript",
        "view-source",
        "ws",
        "wss",
    }
)
_PLAIN = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()+,;=%]+")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")


def check_registration(client: AddClient) -> None:
    """MALFORMED unless what is asked for goes together."""
    _check_proof(client)
    if client.profile == "hardened" and client.method == "client_secret":
        raise RakkanError(Code.MALFORMED, "a hardened client has keys or certificates and no secret")
    if client.profile == "hardened" and client.flags:
        raise RakkanError(Code.MALFORMED, "a hardened client has no flags: nothing is forgiven it")
    if "account-tokens" in client.flags and client.method != "client_secret":
        raise RakkanError(Code.MALFORMED, "account tokens are made with a client secret")
    if len({*client.redirect_uris}) != len(client.redirect_uris) or len({*client.flags}) != len(client.flags):
        raise RakkanError(Code.MALFORMED, "something is there twice")
    for uri in client.redirect_uris:
        check_redirect_uri(uri, https_only=client.profile == "hardened")


def _check_proof(client: AddClient) -> None:
    has_keys = client.method in ("private_key_jwt", "self_signed_tls_client_auth")
    if has_keys != (client.jwks is not None):
        raise RakkanError(Code.MALFORMED, "a JWK Set belongs to private_key_jwt or self_signed_tls_client_auth")
    if (client.method == "tls_client_auth") != (client.certificate_name is not None):
        raise RakkanError(Code.MALFORMED, "a certificate's name belongs to tls_client_auth and only there")
    if client.method == "self_signed_tls_client_auth":
        check_registered_certificates(client.jwks or "")
    elif client.jwks is not None:
        check_jwks(client.jwks)
    if client.certificate_name is not None:
        check_registered_name(client.certificate_name)


def check_redirect_uri(uri: str, *, https_only: bool) -> None:
    """MALFORMED unless every browser reads it as it is written, and it leads to nobody else.

    https; http on loopback (RFC 8252 7.3), or the scheme of an app, unless `https_only`. No wildcards: what is
    registered is compared as it stands.
    """
    parts = urlsplit(uri)
    if not _PLAIN.fullmatch(uri) or _BROKEN_ESCAPE.search(uri) or "#" in uri:
        raise RakkanError(Code.MALFORMED, "a redirect URI is plain ASCII without fragment, wildcard and backslash")
    if any(part in (".", "..") for part in re.split(r"[/;]", re.sub("%2e", ".", parts.path, flags=re.IGNORECASE))):
        raise RakkanError(Code.MALFORMED, "a redirect URI has no dot segments")
    if parts.scheme in ("https", "http"):
        _check_web(parts.netloc, is_tls=parts.scheme == "https", https_only=https_only)
    elif https_only:
        raise RakkanError(Code.MALFORMED, "the redirect URIs of a hardened client are https")
    elif not parts.scheme or parts.scheme in _SCHEMES_REFUSED or not uri.startswith(f"{parts.scheme}:"):
        raise RakkanError(Code.MALFORMED, "a redirect URI is absolute, and of a scheme that leads back to the client")


def _check_web(netloc: str, *, is_tls: bool, https_only: bool) -> None:
    host, _, port = (
        (netloc, "", "") if netloc.endswith("]") else netloc.rpartition(":") if ":" in netloc else (netloc, "", "")
    )
    if "@" in netloc or not _HOST.fullmatch(host) or ".." in host or (":" in netloc and port and not port.isdigit()):
        raise RakkanError(Code.MALFORMED, "a redirect URI names a host, in lower case, and no user")
    if not is_tls and (https_only or host not in _LOOPBACK):
        raise RakkanError(Code.MALFORMED, "a redirect URI is https; http is for loopback, and not for hardened clients")
