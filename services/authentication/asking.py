"""What a client asks of a signer, read from the parameters of an authorization request. Rules only, no I/O.

RFC 6749 4.1.1, RFC 7636, RFC 9126, RFC 9396, and CSC API 8.4.2 with the names of v1 and v2.
"""

import re
from collections.abc import Mapping
from typing import Literal

from services.authentication.changes import Change, Scope
from services.authentication.clients import Client
from services.authentication.documents import Signing, check_text, read_details, read_parameters
from services.authentication.oauth import Refusal, invalid, missing
from shared.algorithms import Hash
from shared.contracts.approval import Document
from shared.contracts.base import Part

SCOPES = ("service", "credential")
STATE_CHARS_MAX = 4096
DESCRIPTION_CHARS_MAX = 500
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8}){0,3}")
_OF_SIGNING = (
    "credentialID",
    "signatureQualifier",
    "numSignatures",
    "hash",
    "hashes",
    "hashAlgorithmOID",
    "authorization_details",
)


class Asked(Part):
    """A request that may be shown to a signer. Stored as JSON."""

    redirect_uri: str
    redirect_uri_given: bool
    state: str | None = None
    scope: Literal["service", "credential", "credential-creation", "credential-deletion"]
    code_challenge: str | None = None
    key_thumbprint: str | None = None
    """RFC 9449 10: the key that the code is bound to."""
    credential_id: str | None = None
    signatures: int = 0
    documents: tuple[Document, ...] = ()
    hash: Hash | None = None
    description: str = ""
    lang: str | None = None
    user_id: str | None = None
    """The account that an account token named: nobody else may grant this."""
    details: str | None = None
    qualifier: str | None = None
    authority: str | None = None
    """The CA and the profile of what is to be made: of a new credential, or of a key for this one authorization."""
    certificate_profile: str | None = None


def read_redirect_uri(form: Mapping[str, str], client: Client) -> str:
    """Where the answer may go. A refusal from here is shown to the person and sent nowhere."""
    given = form.get("redirect_uri")
    if given is None:
        if client.is_hardened or len(client.redirect_uris) != 1:
            raise missing("redirect_uri")
        return client.redirect_uris[0]
    if given not in client.redirect_uris:
        raise invalid("redirect_uri")
    return given


def read_state(form: Mapping[str, str]) -> str | None:
    """As it came; a longer one than we keep is not echoed but refused."""
    state = form.get("state")
    return state if state is None or len(state) <= STATE_CHARS_MAX else None


def read_asked(
    form: Mapping[str, str],
    client: Client,
    *,
    redirect_uri: str,
    qualifiers: tuple[str, ...],
    user_id: str | None,
    key_thumbprint: str | None,
) -> Asked:
    """The whole request, or a Refusal that may be sent to the redirect URI."""
    if len(form.get("state", "")) > STATE_CHARS_MAX:
        raise invalid("state")
    _check_kind(form)
    scope, wanted, details = _read_wanted(form)
    signing = wanted if isinstance(wanted, Signing) else None
    if signing is not None:
        _check_credential(signing, qualifiers)
    lang = form.get("lang")
    if lang is not None and not _LANGUAGE.fullmatch(lang):
        raise invalid("lang")
    return Asked(
        redirect_uri=redirect_uri,
        redirect_uri_given="redirect_uri" in form,
        state=form.get("state"),
        scope=scope,
        code_challenge=_read_challenge(form, client),
        key_thumbprint=_read_thumbprint(form, key_thumbprint),
        credential_id=wanted.credential_id if wanted else None,
        signatures=signing.signatures if signing else 0,
        documents=signing.documents if signing else (),
        hash=signing.hash if signing else None,
        description=check_text(form.get("description"), "description", DESCRIPTION_CHARS_MAX) or "",
        lang=lang,
        user_id=user_id,
        details=details,
        qualifier=signing.qualifier if signing else None,
    )


def _check_kind(form: Mapping[str, str]) -> None:
    if "request" in form:
        raise Refusal("request_not_supported", "Request objects are not supported, push the request (RFC 9126)")
    response_type = form.get("response_type")
    if response_type is None:
        raise missing("response_type")
    if response_type != "code":
        raise Refusal("unsupported_response_type", "Invalid parameter response_type")
    if form.get("response_mode", "query") != "query":
        raise invalid("response_mode")


def _read_wanted(
    form: Mapping[str, str],
) -> tuple[Literal["service", "credential"] | Scope, Signing | Change | None, str | None]:
    text = form.get("authorization_details")
    scope = form.get("scope", "credential" if text is not None else "service")
    if scope not in SCOPES:
        raise Refusal("invalid_scope", "Invalid parameter scope")
    if scope == "service":
        if text is not None:
            raise Refusal("invalid_scope", "authorization_details are of scope credential")
        for name in _OF_SIGNING:
            if name in form:
                raise invalid(name)
        return "service", None, None
    if text is None:
        return "credential", read_parameters(form), None
    # Two lists of what is to be signed could differ, and only one would be shown.
    for name in _OF_SIGNING[:-1]:
        if name in form:
            raise invalid(name)
    wanted, details = read_details(text)
    return wanted.scope if isinstance(wanted, Change) else "credential", wanted, details


def _check_credential(signing: Signing, qualifiers: tuple[str, ...]) -> None:
    if signing.qualifier is not None and signing.qualifier not in qualifiers:
        raise invalid("signatureQualifier")
    if not signing.credential_id and signing.qualifier is None:
        raise missing("credentialID")


def _read_challenge(form: Mapping[str, str], client: Client) -> str | None:
    challenge, method = form.get("code_challenge"), form.get("code_challenge_method")
    if challenge is None:
        if method is None and "pkce-optional" in client.flags:
            return None
        raise missing("code_challenge")
    # Left out it would mean `plain` (RFC 7636 4.3), which protects from nobody who sees the request.
    if method != "S256":
        raise invalid("code_challenge_method")
    if not _CHALLENGE.fullmatch(challenge):
        raise invalid("code_challenge")
    return challenge


def _read_thumbprint(form: Mapping[str, str], proven: str | None) -> str | None:
    named = form.get("dpop_jkt")
    if named is not None and (not _CHALLENGE.fullmatch(named) or proven not in (None, named)):
        raise invalid("dpop_jkt")
    return proven or named
