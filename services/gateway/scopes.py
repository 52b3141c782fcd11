"""Which token does for which call: of a client, of a signer, or of one authorization. Rules only, no I/O.

The SAM decides all of this again from the token itself; here a client is told at once, in the words of the CSC.
"""

from services.gateway.csc import model
from services.gateway.csc.model import Call, Version
from services.gateway.refusals import CSCError, invalid
from shared.contracts.issuance import CREATION, DELETION
from shared.errors import Code, RakkanError
from shared.tokens import AccessToken

SERVICE = "service"
CREDENTIAL = "credential"


_GRANTED: dict[str, tuple[type, ...]] = {
    CREATION: (model.CreateCredential, model.CheckCreation),
    DELETION: (model.DeleteCredential,),
}
"""What a signer's word on one thing does, and nothing else."""
_NAMING_A_USER = (model.ListCredentials, model.CreateCredential, model.AuthorizeOnce)


def authorizes(token: AccessToken, version: Version) -> bool:
    """Whether the token stands for a SAD where signHash wants one: v2 only (CSC 2.0 11.11)."""
    return token.scope == CREDENTIAL and version is Version.V2


def check_scope(token: AccessToken, call: Call, version: Version) -> None:
    """Raise unless the token may make this call."""
    if token.scope == CREDENTIAL:
        _check_credential_token(token, call, version)
    elif token.scope in _GRANTED:
        if not isinstance(call, _GRANTED[token.scope]):
            raise RakkanError(Code.SCOPE_REFUSED, f"scope {token.scope}")
    elif SERVICE not in token.scope.split():
        raise RakkanError(Code.SCOPE_REFUSED, f"scope {token.scope}")
    elif isinstance(call, model.CreateCredential) and token.user_id is not None:
        raise RakkanError(Code.SCOPE_REFUSED, "the signer grants a creation through authorization_details")
    if token.user_id is not None and isinstance(call, _NAMING_A_USER) and call.user_id is not None:
        # The signer is named by the token (CSC 11.4); even the same name again is refused, as the standard says.
        raise CSCError(invalid("userID parameter MUST be null"))


def _check_credential_token(token: AccessToken, call: Call, version: Version) -> None:
    if not isinstance(call, model.DescribeCredential | model.SignHash):
        raise RakkanError(Code.SCOPE_REFUSED, "a token of one authorization")
    if isinstance(call, model.SignHash):
        if version is Version.V1:
            raise RakkanError(Code.SCOPE_REFUSED, "v1 takes it as SAD, beside a token of scope service")
        if call.sad is not None:
            raise CSCError(invalid("SAD parameter MUST be null"))
    if call.credential_id != token.credential_id:
        raise RakkanError(Code.CREDENTIAL_UNKNOWN, "not the credential of the token")
