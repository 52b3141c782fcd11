"""CSC 2.2.0.0: its names for what is asked and answered, and the names of v1 as aliases, never both at once.

pyHanko and others turn to `/csc/v2` and keep v1's `hash`, `hashAlgo`, `PIN` and `OTP` in the body.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from services.gateway.csc import describing, examples, issuing, reading, v1, writing
from services.gateway.csc.facade import Facade, Limits, Method
from services.gateway.csc.model import (
    SAD,
    AskFactor,
    Authorize,
    AuthorizeOnce,
    DescribeCredential,
    Extend,
    ListCredentials,
    SignHash,
    Version,
)
from services.gateway.csc.parameters import Parameters, refuse
from services.gateway.csc.reading import Hashes
from shared.contracts.sam import CredentialDescribed, CredentialPage

_URI_MAX = 2048
_AUTHORITIES_MAX = 64
_VALIDITY_PERIOD_MAX_MS = 7 * 24 * 3600 * 1000


def _either(parameters: Parameters, name: str, alias: str) -> str:
    """The name that carries the value: v2's own unless only the alias is there."""
    if not parameters.has(alias):
        return name
    if parameters.has(name):
        refuse(f"Both {alias} and {name} parameters passed")
    return alias


def read_list(parameters: Parameters, limits: Limits) -> ListCredentials:
    user_id = parameters.optional_string("userID", most=255)
    shape = reading.shape(parameters)
    results_max = parameters.optional_integer("maxResults")
    page_token = parameters.optional_string("pageToken", most=255)
    call = ListCredentials(
        user_id=user_id,
        only_valid=parameters.boolean("onlyValid"),
        results_max=min(results_max or v1.PAGE_MAX, v1.PAGE_MAX),
        page_token=page_token,
        # v2 dropped paging; who still pages is given pages.
        whole=results_max is None and page_token is None,
        shape=shape if parameters.boolean("credentialInfo") else None,
        authorities=_authorities(parameters, limits),
    )
    parameters.optional_string("lang", most=64)
    reading.client_data(parameters)
    return call


def _authorities(parameters: Parameters, limits: Limits) -> tuple[str, ...] | None:
    """Of which CAs credentials are wanted, by the extension; without it the member is one of those nobody knows."""
    names = parameters.raw("certificationAuthorities") if limits.extension else None
    if names is None:
        return None
    if not isinstance(names, list) or not names or len(names) > _AUTHORITIES_MAX:
        refuse("Invalid parameter certificationAuthorities")
    for name in names:
        if not isinstance(name, str) or not reading.NAME.fullmatch(name):
            refuse("Invalid parameter certificationAuthorities")
    return tuple(names)


def write_list(call: ListCredentials, answer: CredentialPage, limits: Limits) -> Mapping[str, Any]:
    shown: dict[str, Any] = {"credentialIDs": [facts.credential_id for facts in answer.credentials]}
    if call.shape is not None:
        shape = call.shape
        shown["credentialInfos"] = [
            {"credentialID": facts.credential_id, **describing.credential(facts, shape, limits)}
            for facts in answer.credentials
        ]
    if call.only_valid:
        shown["onlyValid"] = True
    if answer.next_page_token is not None:
        shown["nextPageToken"] = answer.next_page_token
    return shown


def read_info(parameters: Parameters, limits: Limits) -> DescribeCredential:
    return replace(reading.describe(parameters), authorities=_authorities(parameters, limits))


def write_info(call: DescribeCredential, answer: CredentialDescribed, limits: Limits) -> Mapping[str, Any]:
    return describing.credential(answer.credential, call.shape, limits)


def _optional_hashes(parameters: Parameters, limits: Limits) -> Hashes:
    name = _either(parameters, "hashes", "hash")
    if not parameters.has(name):
        return Hashes(None, None)
    digests = parameters.digests(name, most=limits.hashes_max)
    oid_name = _either(parameters, "hashAlgorithmOID", "hashAlgo")
    oid = reading.hash_oid(parameters, oid_name)
    if oid is None and name == "hashes":
        # Whoever writes v1's name follows v1, where hashes come without an OID.
        refuse("Missing (or invalid type) string parameter hashAlgorithmOID")
    return Hashes(digests, oid)


def read_authorize(parameters: Parameters, limits: Limits) -> Authorize | AuthorizeOnce:
    """With a signatureQualifier in the place of the credentialID: by a key that is made for this (our extension)."""
    for_once = limits.extension and not parameters.has("credentialID") and parameters.has("signatureQualifier")
    credential = "" if for_once else reading.credential_id(parameters)
    signatures = parameters.number_of_signatures()
    hashes = _optional_hashes(parameters, limits)
    factors = _factors(parameters)
    call = reading.authorize(
        parameters,
        credential=credential,
        signatures=signatures,
        hashes=hashes,
        pin=factors.get(writing.PIN_ID),
        otp=factors.get(writing.OTP_ID),
    )
    if not for_once:
        return call
    qualifier = parameters.string("signatureQualifier", most=255)
    return AuthorizeOnce(qualifier, parameters.optional_string("userID", most=255), call)


def write_authorize(call: Authorize | AuthorizeOnce, answer: SAD, _limits: Limits) -> Mapping[str, Any]:
    if isinstance(call, AuthorizeOnce):
        # The client cannot know it otherwise, and needs it to sign.
        return {**writing.sad(answer), "credentialID": answer.credential_id}
    return writing.sad(answer)


def _factors(parameters: Parameters) -> dict[str, str]:
    """authData as id to value, or the members PIN and OTP of v1."""
    given = {
        name: text
        for name in (writing.PIN_ID, writing.OTP_ID)
        if (text := parameters.typed_string(name, most=reading.SECRET_MAX)) is not None
    }
    if not parameters.has("authData"):
        return given
    if given:
        refuse(f"Both {' and '.join(given)} and authData parameters passed")
    objects = parameters.raw("authData")
    if not isinstance(objects, list):
        refuse("Missing (or invalid type) array parameter authData")
    for found in objects:
        if not isinstance(found, dict):
            refuse("Invalid parameter authData")
        name, value = found.get("id"), found.get("value")
        fits = isinstance(value, str) and value.isprintable() and 0 < len(value) <= reading.SECRET_MAX
        if name not in (writing.PIN_ID, writing.OTP_ID) or name in given or not fits:
            refuse("Invalid parameter authData")
        given[str(name)] = str(value)
    return given


def read_extend(parameters: Parameters, limits: Limits) -> Extend:
    credential = reading.credential_id(parameters)
    hashes = _optional_hashes(parameters, limits)
    return reading.extend(parameters, credential=credential, hashes=hashes)


def read_challenge(parameters: Parameters, _limits: Limits) -> AskFactor:
    credential = reading.credential_id(parameters)
    factor = parameters.string("authObjectID", most=64)
    reading.client_data(parameters)
    return AskFactor(credential, factor)


def read_sign_hash(parameters: Parameters, limits: Limits) -> SignHash:
    # Who has a token of one authorization needs no SAD; one sent all the same is refused later, not overlooked.
    sad = None if limits.token_authorizes and not parameters.has("SAD") else reading.sad(parameters)
    credential = reading.credential_id(parameters)
    digests = parameters.digests(_either(parameters, "hashes", "hash"), most=limits.hashes_max)
    oid = _either(parameters, "hashAlgorithmOID", "hashAlgo")
    call = reading.sign_hash(parameters, sad_text=sad, credential=credential, digests=digests, oid=oid)
    _check_synchronous(parameters)
    return call


def _check_synchronous(parameters: Parameters) -> None:
    """Only mode S is offered (`asynchronousOperationMode` is false); what belongs to A must still be well formed."""
    if parameters.raw("operationMode") not in (None, "S"):
        refuse("Invalid parameter operationMode")
    period_ms = parameters.raw("validity_period")
    if period_ms is not None:
        if isinstance(period_ms, bool) or not isinstance(period_ms, int):
            refuse("Invalid parameter validity_period")
        if not 1 <= period_ms <= _VALIDITY_PERIOD_MAX_MS:
            refuse("Out of bounds parameter validity_period")
    response_uri = parameters.raw("response_uri")
    if response_uri is not None and not _is_https(response_uri):
        refuse("Invalid parameter response_uri")


def _is_https(uri: object) -> bool:
    if not isinstance(uri, str) or len(uri) > _URI_MAX:
        return False
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname)


FACADE = Facade(
    Version.V2,
    "2.2.0.0",
    (
        Method(
            "credentials/list",
            "List the credentials of a signer, described when credentialInfo is true",
            read_list,
            write_list,
            examples.LIST | {"credentialInfo": False, "onlyValid": True},
            examples.LIST_ANSWER | {"onlyValid": True},
        ),
        Method(
            "credentials/info",
            "Describe a credential: key, certificates, how it is authorized",
            read_info,
            write_info,
            examples.INFO,
            examples.INFO_ANSWER_V2,
        ),
        Method(
            "credentials/authorize",
            "Authorize signatures with the factors in authData; answers a SAD",
            read_authorize,
            write_authorize,
            examples.AUTHORIZE_V2,
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
        Method(
            "credentials/getChallenge",
            "Ask for a factor. The signer's own app makes it, so this only says whether it may be asked for now",
            read_challenge,
            lambda _call, _answer, _limits: None,
            examples.CHALLENGE,
            None,
        ),
        v1.SEND_OTP,
        Method(
            "signatures/signHash",
            "Sign one or more hashes under a SAD, or with the access token of an authorization and no SAD",
            read_sign_hash,
            lambda _call, answer, _limits: writing.signatures(answer),
            examples.SIGN_V2,
            examples.SIGN_ANSWER,
        ),
        v1.TIMESTAMP,
        *issuing.METHODS,
    ),
)
