"""What this authorization server says of itself (RFC 8414 and its extensions), and its public keys. Pure values."""

from typing import Any

from services.authentication.asking import SCOPES
from services.authentication.certificates import METHODS
from services.authentication.changes import TYPES
from services.authentication.clients import ALGORITHMS
from services.authentication.documents import DETAIL_TYPES
from services.authentication.settings import Settings
from shared import dpop
from shared.tokens import verifying_keys
from shared.trust import Trust

_AUTHENTICATION_METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")


def describe(settings: Settings) -> dict[str, Any]:
    """RFC 8414, with PAR (RFC 9126), RAR (9396), DPoP (9449), `iss` (9207) and, where certificates are seen, 8705.

    `require_pushed_authorization_requests` is false for the server and true for every hardened client.
    """
    issuer = settings.issuer
    methods = [*_AUTHENTICATION_METHODS, *_certificate_methods(settings)]
    algorithms = list(ALGORITHMS)
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/oauth2/authorize",
        "pushed_authorization_request_endpoint": f"{issuer}/oauth2/pushed_authorize",
        "token_endpoint": f"{issuer}/oauth2/token",
        "revocation_endpoint": f"{issuer}/oauth2/revoke",
        "jwks_uri": f"{issuer}/oauth2/jwks",
        "scopes_supported": list(SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_details_types_supported": [*DETAIL_TYPES, *TYPES],
        "authorization_response_iss_parameter_supported": True,
        "require_pushed_authorization_requests": False,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "dpop_signing_alg_values_supported": list(dpop.ALGORITHMS),
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
        "ui_locales_supported": ["ja", "en"],
        "tls_client_certificate_bound_access_tokens": settings.sees_certificates,
    } | _aliases(settings)


def _certificate_methods(settings: Settings) -> tuple[str, ...]:
    if not settings.sees_certificates:
        return ()
    return METHODS if settings.mtls.ca_file else ("self_signed_tls_client_auth",)


def _aliases(settings: Settings) -> dict[str, Any]:
    """RFC 8705 5."""
    url = settings.mtls.url
    if not settings.sees_certificates or url is None:
        return {}
    endpoints = {
        "pushed_authorization_request_endpoint": f"{url}/oauth2/pushed_authorize",
        "token_endpoint": f"{url}/oauth2/token",
        "revocation_endpoint": f"{url}/oauth2/revoke",
    }
    return {"mtls_endpoint_aliases": endpoints}


def jwks(trust: Trust) -> dict[str, Any]:
    """The coming key and the going one too (RFC 7517)."""
    keys = verifying_keys(trust).as_dict(private=False)["keys"]
    return {"keys": [{**key, "alg": "Ed25519"} for key in keys]}
