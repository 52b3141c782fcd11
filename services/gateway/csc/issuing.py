"""How credentials come and go: `credentials/create` and `delete` of CSC 2.2, and what our extension adds. v2 only."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from services.gateway.csc import describing, examples, reading
from services.gateway.csc.encoding import encode_base64
from services.gateway.csc.facade import Limits, Method, Told
from services.gateway.csc.model import (
    CheckCreation,
    CreateCredential,
    DeleteCredential,
    InstallCertificate,
    ReadRequest,
    RenewCredential,
    StopCredential,
)
from services.gateway.csc.parameters import Parameters, refuse
from shared.contracts.issuance import IssuanceChecked, RequestRead
from shared.contracts.sam import CredentialFacts
from shared.registry.choosing import CertificateWish

_NAME_MAX = 63
_QUALIFIER_MAX = 255
_SUBJECT_DATA_MAX = 65_536
_CHAIN_MAX = 10
_REVOCATION_REASONS = frozenset({0, 1, 2, 3, 4, 5, 9, 10})
"""RFC 5280 5.3.1 without 6 and 8: a hold is `credentials/suspend`. 7 does not exist."""
EXTENDED = ("certificationAuthority", "certificateProfile")


@dataclass(frozen=True, slots=True)
class Created:
    """What came of a wish for a credential, and the credential itself where it was asked for."""

    checked: IssuanceChecked
    credential: CredentialFacts | None = None


def wish_of(parameters: Parameters, *, extension: bool) -> CertificateWish:
    """The CA and profile as far as they are named; the names of the extension only where it is on."""
    if not extension and (named := [name for name in EXTENDED if parameters.has(name)]):
        # Whoever names a CA must not get another one's certificate without a word.
        refuse(f"Invalid parameter {named[0]}")
    return CertificateWish(
        authority=parameters.typed_string("certificationAuthority", most=_NAME_MAX),
        profile=parameters.typed_string("certificateProfile", most=_NAME_MAX),
        policy=reading.object_identifier(parameters, "certificatePolicy"),
        qualifier=parameters.typed_string("signatureQualifier", most=_QUALIFIER_MAX),
    )


def read_create(parameters: Parameters, limits: Limits) -> CreateCredential:
    wanted = parameters.nested("credentialCreationRequest")
    if wanted is None:
        refuse("Missing required parameter credentialCreationRequest")
    shape = reading.shape(parameters)
    call = CreateCredential(
        wish=wish_of(wanted, extension=limits.extension),
        user_id=parameters.optional_string("userID", most=255),
        has_subject_data=_has_subject_data(wanted),
        waits=_waits(parameters, limits),
        shape=shape if parameters.boolean("credentialInfo") else None,
    )
    parameters.optional_string("lang", most=64)
    reading.client_data(parameters)
    return call


def write_created(call: CreateCredential | CheckCreation, answer: Created, limits: Limits) -> Told:
    """201, or 202 with a handle for who asked for that. What was said of the subject and not taken is named."""
    found = answer.checked
    shown: dict[str, Any] = {"credentialID": found.credential_id}
    if isinstance(call, CreateCredential) and call.has_subject_data and limits.extension:
        shown["ignored"] = ["subjectData"]
    if found.state == "pending":
        return Told(HTTPStatus.ACCEPTED, {"handle": found.credential_id} | shown)
    if isinstance(call, CheckCreation):
        return Told(HTTPStatus.OK, shown)
    if answer.credential is not None and call.shape is not None:
        shown |= describing.credential(answer.credential, call.shape, limits)
    elif answer.credential is not None and limits.extension:
        facts = answer.credential
        shown["issuance"] = {
            "certificationAuthority": facts.authority,
            "certificateProfile": facts.certificate_profile,
        }
    return Told(HTTPStatus.CREATED, shown)


def read_check(parameters: Parameters, _limits: Limits) -> CheckCreation:
    return CheckCreation(parameters.string("handle", most=reading.CREDENTIAL_ID_MAX))


def read_delete(parameters: Parameters, _limits: Limits) -> DeleteCredential:
    """The object of CSC 2.2, or its members flat, as clients of the drafts send them."""
    wanted = parameters.nested("credentialDeletionRequest") or parameters
    credential = reading.credential_id(wanted)
    reason = wanted.raw("revocationReason")
    if not wanted.boolean("revoke"):
        return DeleteCredential(credential, None)
    if isinstance(reason, bool) or not isinstance(reason, int):
        refuse("Missing (or invalid type) integer parameter revocationReason")
    if reason not in _REVOCATION_REASONS:
        refuse("Invalid parameter revocationReason")
    return DeleteCredential(credential, reason)


def read_renew(parameters: Parameters, *, rekey: bool) -> RenewCredential:
    return RenewCredential(reading.credential_id(parameters), rekey)


def read_stop(parameters: Parameters, *, stopped: bool) -> StopCredential:
    return StopCredential(reading.credential_id(parameters), stopped)


def read_request(parameters: Parameters, _limits: Limits) -> ReadRequest:
    return ReadRequest(reading.credential_id(parameters))


def write_request(_call: ReadRequest, answer: RequestRead, _limits: Limits) -> Mapping[str, Any]:
    return {"csr": encode_base64(answer.csr), "keyOrigin": encode_base64(answer.origin)}


def read_certificate(parameters: Parameters, _limits: Limits) -> InstallCertificate:
    credential = reading.credential_id(parameters)
    chain = parameters.base64_array("certificates", most=_CHAIN_MAX)
    return InstallCertificate(credential, chain)


def _waits(parameters: Parameters, limits: Limits) -> bool:
    """Mode A (202 and a handle) only for who asks for it: all others know 201 alone."""
    mode = parameters.raw("operationMode")
    if mode not in ((None, "S", "A") if limits.extension else (None, "S")):
        refuse("Invalid parameter operationMode")
    return bool(mode != "A")


def _has_subject_data(wanted: Parameters) -> bool:
    """It is not used: in a certificate stands what was verified of the signer, and nothing that a client says."""
    data = wanted.raw("subjectData")
    if data is None:
        return False
    if not isinstance(data, dict) or len(json.dumps(data)) > _SUBJECT_DATA_MAX:
        refuse("Invalid parameter subjectData")
    return bool(data)


def _written_nothing(_call: object, _answer: object, _limits: Limits) -> None:
    return None


METHODS = (
    Method(
        "credentials/create",
        "Have a key made and certified for a signer, with her word on it or as her organization's own client",
        read_create,
        write_created,
        examples.CREATE,
        examples.CREATE_ANSWER,
        good=(HTTPStatus.CREATED, HTTPStatus.ACCEPTED),
    ),
    Method(
        "credentials/delete",
        "End a credential: its key is destroyed, its certificate revoked where that is wanted",
        read_delete,
        _written_nothing,
        examples.DELETE,
        None,
    ),
    Method(
        "credentials/createCheck",
        "Ask whether a credential that was answered with a handle is there",
        read_check,
        write_created,
        examples.CREATE_CHECK,
        examples.CREATE_ANSWER,
        extension=True,
        good=(HTTPStatus.OK, HTTPStatus.ACCEPTED),
    ),
    Method(
        "credentials/csr",
        "Get the certification request of a credential that waits for its CA, and the statement on its key's origin",
        read_request,
        write_request,
        examples.CREDENTIAL,
        examples.CSR_ANSWER,
        extension=True,
    ),
    Method(
        "credentials/certificate",
        "Install a certificate that an external CA issued; it must be all that its profile says",
        read_certificate,
        _written_nothing,
        examples.CERTIFICATE,
        None,
        extension=True,
    ),
    Method(
        "credentials/renew",
        "Order a new certificate for the same key; the old one works until the new one is there",
        lambda parameters, _limits: read_renew(parameters, rekey=False),
        lambda _call, answer, _limits: Told(HTTPStatus.ACCEPTED, {"credentialID": answer.credential_id}),
        examples.CREDENTIAL,
        examples.CREDENTIAL,
        extension=True,
        good=(HTTPStatus.ACCEPTED,),
    ),
    Method(
        "credentials/rekey",
        "Order a certificate for a new key; the old key works until then, and is destroyed after",
        lambda parameters, _limits: read_renew(parameters, rekey=True),
        lambda _call, answer, _limits: Told(HTTPStatus.ACCEPTED, {"credentialID": answer.credential_id}),
        examples.CREDENTIAL,
        examples.CREDENTIAL,
        extension=True,
        good=(HTTPStatus.ACCEPTED,),
    ),
    Method(
        "credentials/suspend",
        "Stop a credential until it is resumed",
        lambda parameters, _limits: read_stop(parameters, stopped=True),
        _written_nothing,
        examples.CREDENTIAL,
        None,
        extension=True,
    ),
    Method(
        "credentials/resume",
        "Let a credential work again that was suspended by credentials/suspend",
        lambda parameters, _limits: read_stop(parameters, stopped=False),
        _written_nothing,
        examples.CREDENTIAL,
        None,
        extension=True,
    ),
)
