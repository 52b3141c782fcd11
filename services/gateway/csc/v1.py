"""CSC 1.0.4.0: its names for what is asked and answered. A thin façade over the model; it knows no name of v2."""

from collections.abc import Mapping
from typing import Any

from services.gateway.csc import examples, reading, writing
from services.gateway.csc.facade import Facade, Limits, Method
from services.gateway.csc.model import (
    AskFactor,
    Authorize,
    DescribeCredential,
    Extend,
    ListCredentials,
    Shape,
    SignHash,
    Version,
)
from services.gateway.csc.parameters import Parameters
from services.gateway.csc.reading import Hashes
from shared.contracts.sam import CredentialDescribed, CredentialFacts, CredentialPage

PAGE_MAX = 100


def read_list(parameters: Parameters, _limits: Limits) -> ListCredentials:
    user_id = parameters.optional_string("userID", most=255)
    results_max = parameters.optional_integer("maxResults") or PAGE_MAX
    page_token = parameters.optional_string("pageToken", most=255)
    reading.client_data(parameters)
    return ListCredentials(
        user_id=user_id,
        only_valid=False,
        results_max=min(results_max, PAGE_MAX),
        page_token=page_token,
        whole=False,
        shape=None,
    )


def write_list(_call: ListCredentials, answer: CredentialPage, _limits: Limits) -> Mapping[str, Any]:
    shown: dict[str, Any] = {"credentialIDs": [facts.credential_id for facts in answer.credentials]}
    if answer.next_page_token is not None:
        shown["nextPageToken"] = answer.next_page_token
    return shown


def read_info(parameters: Parameters, _limits: Limits) -> DescribeCredential:
    return reading.describe(parameters)


def write_info(call: DescribeCredential, answer: CredentialDescribed, limits: Limits) -> Mapping[str, Any]:
    facts = answer.credential
    shown = writing.credential(facts, call.shape, hashes_max=limits.hashes_max)
    if writing.is_approved_by_oauth(facts):
        return shown | {"authMode": "oauth2code"}
    shown["authMode"] = "explicit" if facts.pin_required or facts.otp_required else "implicit"
    return shown | _factors(facts, call.shape)


def _factors(facts: CredentialFacts, shape: Shape) -> dict[str, Any]:
    """The groups PIN and OTP, which belong to explicit authorization only."""
    if not shape.authorization_info or not (facts.pin_required or facts.otp_required):
        return {}
    shown: dict[str, Any] = {"PIN": {"presence": "false"}, "OTP": {"presence": "false"}}
    if facts.pin_required:
        shown["PIN"] = {
            "presence": "true",
            "format": "A",
            "label": writing.PIN_LABEL,
            "description": writing.PIN_DESCRIPTION,
        }
    if facts.otp_required:
        shown["OTP"] = {
            "presence": "true",
            # The signer's own app makes it: nothing needs to be sent.
            "type": "offline",
            "format": "N",
            "label": writing.OTP_LABEL,
            "description": writing.OTP_DESCRIPTION,
            "ID": writing.OTP_ID,
            "provider": writing.OTP_PROVIDER,
        }
    return shown


def read_authorize(parameters: Parameters, limits: Limits) -> Authorize:
    credential = reading.credential_id(parameters)
    signatures = parameters.number_of_signatures()
    hashes = _optional_hashes(parameters, limits)
    pin = parameters.typed_string("PIN", most=reading.SECRET_MAX)
    otp = parameters.typed_string("OTP", most=reading.SECRET_MAX)
    return reading.authorize(parameters, credential=credential, signatures=signatures, hashes=hashes, pin=pin, otp=otp)


def read_extend(parameters: Parameters, limits: Limits) -> Extend:
    credential = reading.credential_id(parameters)
    hashes = _optional_hashes(parameters, limits)
    return reading.extend(parameters, credential=credential, hashes=hashes)


def _optional_hashes(parameters: Parameters, limits: Limits) -> Hashes:
    digests = parameters.digests("hash", most=limits.hashes_max) if parameters.has("hash") else None
    return Hashes(digests, None)


def read_send_otp(parameters: Parameters, _limits: Limits) -> AskFactor:
    credential = reading.credential_id(parameters)
    reading.client_data(parameters)
    return AskFactor(credential, writing.OTP_ID)


def read_sign_hash(parameters: Parameters, limits: Limits) -> SignHash:
    sad = reading.sad(parameters)
    credential = reading.credential_id(parameters)
    digests = parameters.digests("hash", most=limits.hashes_max)
    return reading.sign_hash(parameters, sad_text=sad, credential=credential, digests=digests, oid="hashAlgo")


SEND_OTP = Method(
    "credentials/sendOTP",
    "Ask for a one-time password. The signer's own app makes it, so this only says whether it may be asked for now",
    read_send_otp,
    lambda _call, _answer, _limits: None,
    examples.CREDENTIAL,
    None,
)
TIMESTAMP = Method(
    "signatures/timestamp",
    "Get an RFC 3161 time-stamp token over a hash",
    lambda parameters, limits: reading.timestamp(parameters, extension=limits.extension),
    lambda _call, answer, limits: writing.timestamp(answer, extension=limits.extension),
    examples.TIMESTAMP,
    examples.TIMESTAMP_ANSWER,
)

FACADE = Facade(
    Version.V1,
    "1.0.4.0",
    (
        Method(
            "credentials/list",
            "List the credentials of a signer",
            read_list,
            write_list,
            examples.LIST,
            examples.LIST_ANSWER,
        ),
        Method(
            "credentials/info",
            "Describe a credential: key, certificates, how it is authorized",
            read_info,
            write_info,
            examples.INFO,
            examples.INFO_ANSWER_V1,
        ),
        Method(
            "credentials/authorize",
            "Authorize signatures with PIN and one-time password; answers a SAD",
            read_authorize,
            lambda _call, answer, _limits: writing.sad(answer),
            examples.AUTHORIZE_V1,
            examples.SAD_ANSWER,
        ),
        Method(
            "credentials/extendTransaction",
            "Change a SAD that is still good for a new one",
            read_extend,
            lambda _call, answer, _limits: writing.sad(answer),
            examples.EXTEND,
            examples.SAD_ANSWER,
        ),
        SEND_OTP,
        Method(
            "signatures/signHash",
            "Sign one or more hashes under a SAD, which may be the access token of an authorization",
            read_sign_hash,
            lambda _call, answer, _limits: writing.signatures(answer),
            examples.SIGN_V1,
            examples.SIGN_ANSWER,
        ),
        TIMESTAMP,
    ),
)
