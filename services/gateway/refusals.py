"""Every refusal in the words of the CSC: status, error and description, for v1 and v2. Tables only.

A text in these tables is mandated by CSC 1.0.4.0 or 2.0.0.2 unless the standard is silent; clients compare them, so
they are kept to the letter. Refusals that are the operator's to mend are answered `server_error` without words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from services.gateway.csc.model import Version
from shared.errors import Code

_BUSY_S = 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a client is told. An empty description is left out."""

    status: int
    error: str
    description: str = ""
    retry_after_s: int | None = None


class CSCError(Exception):
    """A refusal that the door itself decides on, before any room is asked."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.description)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Row:
    """One code in both versions."""

    v1: Refusal
    v2: Refusal

    def of(self, version: Version) -> Refusal:
        return self.v1 if version is Version.V1 else self.v2


def invalid(description: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, "invalid_request", description)


def _same(refusal: Refusal) -> Row:
    return Row(refusal, refusal)


def _invalid(v1: str, v2: str | None = None) -> Row:
    return Row(invalid(v1), invalid(v1 if v2 is None else v2))


def _bad_request(error: str, description: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, error, description)


def _unavailable(description: str) -> Row:
    return _same(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily_unavailable", description, _BUSY_S))


_WRONG_DATA = _bad_request("invalid_authentication_data", "The authentication data is invalid")
_WORDLESS = _same(Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "server_error"))
_LATER = _unavailable("The service is temporarily unavailable. The same request may be sent again.")

REFUSALS: Mapping[Code, Row] = {
    # Messages between rooms
    Code.MALFORMED: _WORDLESS,
    Code.TOO_LARGE: _WORDLESS,
    Code.FORBIDDEN: _WORDLESS,
    Code.EXPIRED: _LATER,
    Code.UNAVAILABLE: _LATER,
    Code.OVERLOADED: _LATER,
    Code.INTERNAL: _WORDLESS,
    # Who asks
    Code.TOKEN_INVALID: _same(
        Refusal(
            HTTPStatus.UNAUTHORIZED, "invalid_token", "The token provided is not a valid OAuth access or refresh token"
        )
    ),
    Code.TOKEN_EXPIRED: _same(
        Refusal(HTTPStatus.UNAUTHORIZED, "expired_token", "The access or refresh token is expired or has been revoked")
    ),
    Code.CLIENT_REFUSED: _same(
        _bad_request("unauthorized_client", "The client is not authorized to use this method of the service")
    ),
    Code.SCOPE_REFUSED: _same(
        Refusal(HTTPStatus.FORBIDDEN, "access_denied", "The scope of the access token does not cover this method")
    ),
    Code.USER_ID_REQUIRED: _invalid("Missing (or invalid type) string parameter userID"),
    Code.USER_ID_UNKNOWN: _invalid("Invalid parameter userID"),
    Code.PAGE_TOKEN_INVALID: _invalid("Invalid parameter pageToken"),
    # What is to be signed with
    Code.CREDENTIAL_UNKNOWN: _invalid("Invalid parameter credentialID"),
    Code.CREDENTIAL_DISABLED: _invalid("The credential identified by credentialID is disabled"),
    Code.CERTIFICATE_EXPIRED: _invalid("Signing certificate '{subject}' is expired.", "Signing certificate is expired"),
    Code.FACTOR_UNKNOWN: _invalid("Invalid parameter credentialID", "Invalid parameter authObjectID"),
    Code.PIN_INVALID: Row(_bad_request("invalid_pin", "The PIN is invalid"), _WRONG_DATA),
    Code.PIN_LOCKED: _invalid("PIN locked", "Credential locked"),
    Code.OTP_INVALID: Row(_bad_request("invalid_otp", "The OTP is invalid"), _WRONG_DATA),
    Code.OTP_LOCKED: _invalid("OTP locked", "Credential locked"),
    # What the signer approves with. Only authentication asks for these, so only ASSURANCE_REFUSED is met here.
    Code.ASSURANCE_REFUSED: _invalid(
        "The credential identified by credentialID is authorized at oauth2/authorize only"
    ),
    Code.AUTHENTICATOR_REQUIRED: _WORDLESS,
    Code.CONTEXT_UNKNOWN: _WORDLESS,
    Code.CONTEXT_EXPIRED: _WORDLESS,
    Code.CONTEXT_SPENT: _WORDLESS,
    Code.EVIDENCE_REFUSED: _WORDLESS,
    Code.TICKET_REFUSED: _WORDLESS,
    # What is to be signed
    Code.SAD_INVALID: _invalid("Invalid parameter SAD"),
    Code.SAD_EXPIRED: _invalid("SAD expired"),
    Code.HASHES_REQUIRED: _invalid("Missing (or invalid type) array parameter hash"),
    Code.HASH_NOT_AUTHORIZED: _invalid("Hash is not authorized by the SAD"),
    Code.DIGEST_LENGTH: _invalid("Invalid digest value length"),
    Code.HASH_ALGORITHM_REFUSED: _invalid("Invalid parameter hashAlgo", "Invalid parameter hashAlgorithmOID"),
    Code.HASH_ALGORITHM_REQUIRED: _invalid(
        "Missing (or invalid type) string parameter hashAlgo",
        "Missing (or invalid type) string parameter hashAlgorithmOID",
    ),
    Code.SIGN_ALGORITHM_REFUSED: _invalid("Invalid parameter signAlgo"),
    Code.SIGN_PARAMETERS_REFUSED: _invalid("Invalid parameter signAlgoParams"),
    Code.TOO_MANY_SIGNATURES: _invalid("Numbers of signatures is too high"),
    # The HSM and its keys: ours to mend
    Code.ACTIVATION_REFUSED: _WORDLESS,
    Code.ACTIVATION_SPENT: _WORDLESS,
    Code.INDETERMINATE: _WORDLESS,
    Code.KEY_UNKNOWN: _WORDLESS,
    Code.KEY_DAMAGED: _WORDLESS,
    Code.HSM_UNAVAILABLE: _LATER,
    Code.RECORD_DAMAGED: _WORDLESS,
    # Administration, CAs and TSAs
    Code.CONFLICT: _WORDLESS,
    Code.NOT_FOUND: _WORDLESS,
    Code.CERTIFICATE_REFUSED: _WORDLESS,
    Code.AUTHORITY_UNKNOWN: _invalid("Invalid parameter certificationAuthority"),
    Code.AUTHORITY_UNAVAILABLE: _unavailable("The certification authority is temporarily unavailable"),
    Code.AUTHORITY_REFUSED: _WORDLESS,
    Code.AUTHORITY_UNTRUSTED: _WORDLESS,
    Code.AUTHORITY_FORBIDDEN: _same(
        Refusal(HTTPStatus.FORBIDDEN, "access_denied", "The certification authority is not open to this client")
    ),
    Code.PROFILE_UNKNOWN: _invalid("Invalid parameter certificateProfile"),
    Code.POLICY_UNKNOWN: _invalid("Invalid parameter certificatePolicy"),
    Code.QUALIFIER_UNKNOWN: _invalid("Invalid parameter signatureQualifier"),
    Code.ISSUANCE_PENDING: _unavailable("The certificate is not issued yet"),
    Code.TSA_UNKNOWN: _invalid("Invalid parameter timeStampingAuthority"),
    Code.TSA_POLICY_REFUSED: _invalid("Invalid parameter reqPolicy"),
    Code.TSA_QUOTA: _unavailable("The time-stamping authorities have no quota left"),
    Code.TSA_UNAVAILABLE: _unavailable("The time-stamping authority is temporarily unavailable"),
    Code.TSA_UNTRUSTED: _WORDLESS,
    Code.TSA_REFUSED: _invalid("The time-stamping authority refused the request"),
}
"""What each code becomes. Exhaustive; a test holds it so."""

_NOT_ISSUED = _invalid("The certification authority did not issue the certificate")
_UNUSABLE = _invalid("The signer has nothing to authorize this credential with")

METHOD_REFUSALS: Mapping[tuple[str, Code], Row] = {
    ("credentials/create", Code.CERTIFICATE_REFUSED): _NOT_ISSUED,
    ("credentials/createCheck", Code.CERTIFICATE_REFUSED): _NOT_ISSUED,
    ("credentials/authorize", Code.CERTIFICATE_REFUSED): _NOT_ISSUED,
    ("credentials/create", Code.FACTOR_UNKNOWN): _UNUSABLE,
    ("credentials/authorize", Code.FACTOR_UNKNOWN): _UNUSABLE,
    ("credentials/create", Code.SIGN_ALGORITHM_REFUSED): _invalid("Invalid parameter certificateProfile"),
    ("credentials/createCheck", Code.CREDENTIAL_UNKNOWN): _invalid("Invalid parameter handle"),
    # What an external CA issued and the checks refused: the client can mend it, or have it mended.
    ("credentials/certificate", Code.CERTIFICATE_REFUSED): _invalid("Invalid parameter certificates"),
    # A factor checked late, at signing, keeps its name in v2 too (CSC 2.0 11.11).
    ("signatures/signHash", Code.OTP_INVALID): _same(_bad_request("invalid_otp", "The OTP is invalid")),
    # sendOTP is v1's and says what v1 says, also where v2 keeps it as an alias.
    ("credentials/sendOTP", Code.FACTOR_UNKNOWN): _invalid("Invalid parameter credentialID"),
    ("credentials/sendOTP", Code.OTP_LOCKED): _invalid("OTP locked"),
    # timestamp keeps the names of v1 in v2 (CSC 2.0 11.14).
    ("signatures/timestamp", Code.HASH_ALGORITHM_REFUSED): _invalid("Invalid parameter hashAlgo"),
}
"""Where one method says it differently."""

MALFORMED_HEADER = _invalid(
    "The request is missing a required parameter, includes an invalid parameter value, includes a parameter more than "
    "once, or is otherwise malformed.",
    "Malformed authorization header",
)
"""CSC 1.0.4.0 8.2 puts a header that is not `Bearer …` at 400, not 401."""

NOT_IMPLEMENTED = Refusal(
    HTTPStatus.NOT_IMPLEMENTED, "not_implemented", "The method is not implemented by this service"
)
UNKNOWN_METHOD = Refusal(HTTPStatus.NOT_FOUND, "invalid_request", "There is no such method")
UNKNOWN_SERVICE = Refusal(HTTPStatus.NOT_FOUND, "invalid_request", "There is no such service")
"""Of a base URL `/s/<service>/csc/…` that names none of ours."""
FOREIGN_SERVICE = Refusal(HTTPStatus.FORBIDDEN, "access_denied", "The client is not allowed to use this service")
FOREIGN_ADDRESS = Refusal(HTTPStatus.FORBIDDEN, "access_denied", "This service makes no time-stamps for your network")
NO_QUERY = Refusal(
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "invalid_request",
    "Send a TimeStampReq as application/timestamp-query",
)
LONG_QUERY = Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "invalid_request", "The query is too long")
"""At the plain RFC 3161 endpoint. What is wrong in a query itself is answered by RFC 3161, with 200."""
WRONG_VERB = Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "invalid_request", "The method takes HTTP POST with a JSON body")


def too_many_requests(retry_after_s: int) -> Refusal:
    return Refusal(
        HTTPStatus.TOO_MANY_REQUESTS,
        "temporarily_unavailable",
        "Too many requests: slow down and try again after the time in Retry-After",
        retry_after_s,
    )


def no_timestamp(*, authority: str | None, assurance_class: str | None) -> Refusal:
    """Who does not answer. Of a name nobody else was asked, and of a class nobody outside it."""
    if authority is not None:
        words = f"The time-stamping authority {authority} is temporarily unavailable"
    elif assurance_class is not None:
        words = f"No time-stamping authority of the class {assurance_class} is available now"
    else:
        words = "The time-stamping authority is temporarily unavailable"
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily_unavailable", words, _BUSY_S)


def refusal_of(code: Code, version: Version, method: str) -> Refusal:
    """What this method of this version answers for the code."""
    row = METHOD_REFUSALS.get((method, code)) or REFUSALS[code]
    return row.of(version)
