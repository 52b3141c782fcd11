"""What a browser's WebAuthn calls hand in, from form fields to contracts. Checks nothing: the SAM does."""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from shared.contracts.approval import AddAuthenticator, PasskeyAssertion
from shared.errors import Code, RakkanError

_ASSERTION = ("credential_id", "client_data_json", "authenticator_data", "signature", "user_handle")
_ALGORITHMS = (-7, -8, -257)  # COSE: ES256, EdDSA, RS256


def is_there(form: Mapping[str, str]) -> bool:
    """Whether the page's script ran: without it the form comes with these fields empty."""
    return bool(form.get("signature") or form.get("attestation_object"))


def assertion(form: Mapping[str, str]) -> PasskeyAssertion:
    fields: dict[str, bytes | None] = {name: field_bytes(form, name) for name in _ASSERTION}
    fields["user_handle"] = fields["user_handle"] or None
    try:
        return PasskeyAssertion.model_validate(fields)
    except ValidationError:
        raise RakkanError(Code.MALFORMED, "no assertion") from None


def addition(form: Mapping[str, str], *, enrollment_id: str, label: str) -> AddAuthenticator:
    fields = {
        "enrollment_id": enrollment_id,
        "label": label,
        "client_data_json": field_bytes(form, "new_client_data_json"),
        "attestation_object": field_bytes(form, "attestation_object"),
        "approving": assertion(form) if form.get("signature") else None,
    }
    try:
        return AddAuthenticator.model_validate(fields)
    except ValidationError:
        raise RakkanError(Code.MALFORMED, "no authenticator") from None


def field_bytes(form: Mapping[str, str], name: str) -> bytes:
    text = form.get(name, "")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise RakkanError(Code.MALFORMED, f"{name} is not base64url") from None


def asking(challenge: bytes, *, allow: Iterable[bytes] = ()) -> dict[str, Any]:
    """What `navigator.credentials.get` is called with."""
    return {"challenge": _text(challenge), "allow": [_text(key) for key in allow]}


def making(
    challenge: bytes, *, service: str, handle: bytes, name: str, display_name: str, exclude: Iterable[bytes]
) -> dict[str, Any]:
    """What `navigator.credentials.create` is called with."""
    return {
        "challenge": _text(challenge),
        "service": service,
        "handle": _text(handle),
        "name": name,
        "displayName": display_name,
        "exclude": [_text(key) for key in exclude],
        "algorithms": list(_ALGORITHMS),
    }


def written(options: Mapping[str, Any] | None) -> str:
    """For a data attribute; the template escapes it."""
    return json.dumps(options, ensure_ascii=True)


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
