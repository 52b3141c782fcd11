"""The one error of the suite and its codes. Knows no transport and no CSC word."""

from enum import StrEnum


class Code(StrEnum):
    """Why something was refused. A code exists because a caller acts differently on it."""

    # Messages between rooms
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    FORBIDDEN = "forbidden"
    EXPIRED = "expired"
    UNAVAILABLE = "unavailable"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"

    # Who asks
    TOKEN_INVALID = "token_invalid"
    TOKEN_EXPIRED = "token_expired"
    CLIENT_REFUSED = "client_refused"
    SCOPE_REFUSED = "scope_refused"
    USER_ID_REQUIRED = "user_id_required"
    USER_ID_UNKNOWN = "user_id_unknown"
    PAGE_TOKEN_INVALID = "page_token_invalid"

    # What is to be signed with
    CREDENTIAL_UNKNOWN = "credential_unknown"
    CREDENTIAL_DISABLED = "credential_disabled"
    CERTIFICATE_EXPIRED = "certificate_expired"
    FACTOR_UNKNOWN = "factor_unknown"
    PIN_INVALID = "pin_invalid"
    PIN_LOCKED = "pin_locked"
    OTP_INVALID = "otp_invalid"
    OTP_LOCKED = "otp_locked"

    # What the signer approves with
    AUTHENTICATOR_REQUIRED = "authenticator_required"
    CONTEXT_UNKNOWN = "context_unknown"
    CONTEXT_EXPIRED = "context_expired"
    CONTEXT_SPENT = "context_spent"
    EVIDENCE_REFUSED = "evidence_refused"
    TICKET_REFUSED = "ticket_refused"
    ASSURANCE_REFUSED = "assurance_refused"

    # What is to be signed
    SAD_INVALID = "sad_invalid"
    SAD_EXPIRED = "sad_expired"
    HASHES_REQUIRED = "hashes_required"
    HASH_NOT_AUTHORIZED = "hash_not_authorized"
    DIGEST_LENGTH = "digest_length"
    HASH_ALGORITHM_REFUSED = "hash_algorithm_refused"
    HASH_ALGORITHM_REQUIRED = "hash_algorithm_required"
    SIGN_ALGORITHM_REFUSED = "sign_algorithm_refused"
    SIGN_PARAMETERS_REFUSED = "sign_parameters_refused"
    TOO_MANY_SIGNATURES = "too_many_signatures"

    # The HSM and its keys
    ACTIVATION_REFUSED = "activation_refused"
    ACTIVATION_SPENT = "activation_spent"
    INDETERMINATE = "indeterminate"
    KEY_UNKNOWN = "key_unknown"
    KEY_DAMAGED = "key_damaged"
    HSM_UNAVAILABLE = "hsm_unavailable"
    RECORD_DAMAGED = "record_damaged"

    # Administration, CAs and TSAs
    CONFLICT = "conflict"
    NOT_FOUND = "not_found"
    CERTIFICATE_REFUSED = "certificate_refused"
    AUTHORITY_UNKNOWN = "authority_unknown"
    AUTHORITY_UNAVAILABLE = "authority_unavailable"
    AUTHORITY_REFUSED = "authority_refused"
    AUTHORITY_UNTRUSTED = "authority_untrusted"
    AUTHORITY_FORBIDDEN = "authority_forbidden"
    PROFILE_UNKNOWN = "profile_unknown"
    POLICY_UNKNOWN = "policy_unknown"
    QUALIFIER_UNKNOWN = "qualifier_unknown"
    ISSUANCE_PENDING = "issuance_pending"
    TSA_UNKNOWN = "tsa_unknown"
    TSA_POLICY_REFUSED = "tsa_policy_refused"
    TSA_QUOTA = "tsa_quota"
    TSA_UNAVAILABLE = "tsa_unavailable"
    TSA_UNTRUSTED = "tsa_untrusted"
    TSA_REFUSED = "tsa_refused"


RETRYABLE = frozenset(
    {Code.UNAVAILABLE, Code.OVERLOADED, Code.HSM_UNAVAILABLE, Code.AUTHORITY_UNAVAILABLE, Code.EXPIRED}
)
"""Codes after which the same job may succeed later."""


class RakkanError(Exception):
    """A refusal with a code. `detail` is for the reader of a log or an operator; it never holds a secret."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else str(code))
        self.code = code
        self.detail = detail
