"""The words of the OAuth endpoints: how a request is read and every way it is refused. Knows no client and no token.

RFC 6749, RFC 7009, and CSC API 4.4 and 4.5, whose error strings are mandated.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_plus

from shared.mtls import ClientCertificate

_FORM = "application/x-www-form-urlencoded"
_FIELDS_MAX = 50
_SECRET = frozenset({"client_secret", "client_assertion", "token", "refresh_token"})
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Refusal(Exception):
    """What an OAuth endpoint answers instead of what was asked for."""

    def __init__(self, error: str, description: str, *, status: int = 400, retry_after_s: int | None = None) -> None:
        super().__init__(f"{error}: {description}")
        self.status = status
        self.error = error
        self.description = description
        self.retry_after_s = retry_after_s


def missing(name: str) -> Refusal:
    return Refusal("invalid_request", f"Missing parameter {name}")


def invalid(name: str) -> Refusal:
    return Refusal("invalid_request", f"Invalid parameter {name}")


CLIENT_AUTHORIZATION_REQUIRED = "Client authorization required"


@dataclass(frozen=True)
class Presented:
    """How a client says who it is. At most one proof (RFC 6749 2.3)."""

    client_id: str | None
    secret: str | None = field(default=None, repr=False)
    assertion: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Call:
    """A POST of a client to one of the endpoints where clients authenticate."""

    form: Mapping[str, str] = field(repr=False)
    presented: Presented
    address: str
    url: str
    """Of the endpoint, as a DPoP proof must name it."""
    proofs: tuple[str, ...] = field(default=(), repr=False)
    certificate: ClientCertificate | None = field(default=None, repr=False)
    """What the client showed in TLS, here or at a proxy of ours."""
    in_query: bool = False
    """Whether any parameter stood in the query string."""


def read_form(body: bytes, content_type: str, query: str) -> Mapping[str, str]:
    """The parameters. An empty one counts as left out, a doubled one is refused (RFC 6749 3.2).

    Real clients send all of them in the query string, so that is taken too, but no secrets: a query string is written
    into the logs of every proxy on the way.
    """
    if body.strip() and content_type.split(";", maxsplit=1)[0].strip().lower() != _FORM:
        raise Refusal("invalid_request", f"The request body must be {_FORM}")
    try:
        in_body = parse_qsl(body.decode(), max_num_fields=_FIELDS_MAX, errors="strict")
        in_query = parse_qsl(query, max_num_fields=_FIELDS_MAX, errors="strict")
    except ValueError:  # also what UnicodeDecodeError is
        raise Refusal("invalid_request", "The parameters cannot be read") from None
    form: dict[str, str] = {}
    for name, value in in_body + in_query:
        if name in form:
            raise Refusal("invalid_request", "A parameter is there twice")
        form[name] = value
    if _SECRET & {name for name, _ in in_query}:
        raise Refusal("invalid_request", "Secrets and tokens must not be sent in the query string")
    return form


def read_client(form: Mapping[str, str], authorization: str | None) -> Presented:
    """Who the client says it is, and by what proof, if by any."""
    client_id, secret, assertion = form.get("client_id"), form.get("client_secret"), form.get("client_assertion")
    if authorization is not None:
        if secret or assertion:
            raise Refusal("invalid_request", "A client authenticates in one way only")
        named, secret = _basic(authorization)
        if client_id not in (None, named):
            raise invalid("client_id")
        return Presented(client_id=named, secret=secret)
    if secret and assertion:
        raise Refusal("invalid_request", "A client authenticates in one way only")
    if assertion:
        given = form.get("client_assertion_type")
        if given is None:
            raise missing("client_assertion_type")
        if given != JWT_BEARER:
            raise invalid("client_assertion_type")
    return Presented(client_id=client_id, secret=secret, assertion=assertion)


def _basic(authorization: str) -> tuple[str, str]:
    refused = Refusal("invalid_client", "Invalid authorization header", status=401)
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise refused
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        raise refused from None
    # RFC 6749 2.3.1 wants both parts form-encoded, most clients do not: ids hold colons, our secrets never do, and
    # neither holds what decoding would change.
    client_id, colon, secret = text.rpartition(":")
    if not colon or not client_id or not secret:
        raise refused
    return unquote_plus(client_id), unquote_plus(secret)
