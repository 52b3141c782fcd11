"""What can be said at the operator's door, and how a refusal is put in words. Knows no bus."""

import argparse
from typing import Any, get_args

from services.operator import certification, time_stamping
from shared.algorithms import KeyAlgorithm, Profile
from shared.contracts.authentication import ClientFlag, ClientProfile
from shared.errors import Code, RakkanError

Words = argparse.Namespace

WAIT_S = 120.0

_MENDED_BY = {
    Code.NOT_FOUND: "You can mend it: `list` shows what there is.",
    Code.CONFLICT: "You can mend it: choose another name, or use what `list` shows.",
    Code.PIN_INVALID: "The signer can mend it: choose another PIN.",
    Code.FACTOR_UNKNOWN: "You can mend it: enroll the signer with --totp.",
    Code.AUTHORITY_UNKNOWN: "You can mend it: the authority must be in the registry; `ca` shows which there are.",
    Code.TSA_UNKNOWN: "You can mend it: `tsa` shows which there are and in which classes they stand.",
    Code.TSA_POLICY_REFUSED: "You can mend it: ask for another --policy; the registry says which TSA has which.",
    Code.SIGN_ALGORITHM_REFUSED: "You can mend it: choose another --key or --profile.",
    Code.MALFORMED: "You can mend it: correct what you gave.",
    Code.FORBIDDEN: "The administrator can mend it: the suite does not trust the keys of this door.",
    Code.EXPIRED: "Ask again; if it stays so, the administrator must compare the clocks of the machines.",
    Code.UNAVAILABLE: "The administrator can mend it: is the suite up? `list` shows whether it was done all the same.",
    Code.OVERLOADED: "It mends itself: ask again in a minute.",
    Code.HSM_UNAVAILABLE: "The administrator can mend it: the HSM does not answer.",
    Code.RECORD_DAMAGED: "The security officer must look: a record was changed outside the SAM.",
}
_ELSE = "The administrator can mend it: the log of the room tells more."


def describe(refusal: RakkanError) -> str:
    """What went wrong and who can mend it."""
    what = f"{refusal.code}: {refusal.detail}" if refusal.detail else str(refusal.code)
    return f"Refused: {what}.\n{_MENDED_BY.get(refusal.code, _ELSE)}"


class _Command(argparse.ArgumentParser):
    """No abbreviations: `--pin 1234` was taken for `--pin-file 1234`, and the PIN was in the complaint."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="operator",
        description="The operator's door. PINs are asked for or read from files, never taken from the command line.",
        epilog="Exit status: 0 done, 1 refused, 2 not understood.",
        allow_abbrev=False,
    )
    top.add_argument("--json", action="store_true", help="answer in JSON")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Command)
    _tenants_and_clients(commands)
    _signers(commands)
    _authenticators(commands)
    _credentials(commands)
    _states(commands)
    time_stamping.add_words(commands)
    certification.add_words(commands)
    return top


def _tenants_and_clients(commands: "argparse._SubParsersAction[_Command]") -> None:
    tenant = commands.add_parser("add-tenant", help="add an organization whose signers and clients belong together")
    tenant.add_argument("tenant")
    tenant.add_argument("--name", required=True)
    client = commands.add_parser("add-client", help="add a partner's program that may ask for access tokens")
    client.add_argument("client")
    client.add_argument("--tenant", required=True)
    client.add_argument("--name", required=True)
    proof = client.add_mutually_exclusive_group()
    proof.add_argument(
        "--jwks-file", help="the program's public keys (a JWK Set): it then has no secret (private_key_jwt)"
    )
    proof.add_argument(
        "--certificate-file",
        help="the program's own client certificate in PEM: it then has no secret (self_signed_tls_client_auth)",
    )
    proof.add_argument(
        "--certificate-name",
        metavar="NAME",
        help="whom an authority issued its client certificate to, as dns:…, dn:CN=…, uri:…, ip:… or email:… "
        "(tls_client_auth)",
    )
    client.add_argument(
        "--redirect-uri",
        action="append",
        default=[],
        metavar="URI",
        help="where signers may be sent back to, to the letter; may be given again",
    )
    client.add_argument(
        "--profile",
        choices=get_args(ClientProfile),
        default="csc-compat",
        help="hardened: FAPI 2.0, so pushed requests, no secret, and bound tokens only",
    )
    client.add_argument(
        "--flag",
        action="append",
        default=[],
        choices=get_args(ClientFlag),
        help="what a client of an older kind needs (docs/partners/README.md); may be given again",
    )
    _secret(client, "the client secret")


def _signers(commands: "argparse._SubParsersAction[_Command]") -> None:
    signer = commands.add_parser("add-signer", help="enroll a signer with a PIN")
    signer.add_argument("user", help="the userID by which clients name the signer")
    signer.add_argument("--tenant", required=True)
    signer.add_argument("--name", required=True, help="the common name in the certificates")
    signer.add_argument("--organization")
    signer.add_argument("--country", default="JP")
    signer.add_argument("--organization-identifier", help="ETSI EN 319 412-1 5.1.4, such as NTRJP-0100-01-123456")
    signer.add_argument(
        "--subject-type",
        choices=["natural", "legal", "seal"],
        default="natural",
        help="a person, an organization, or its seal: only certificate profiles of this kind can be ordered",
    )
    signer.add_argument("--pin-file", help="read the PIN from here instead of asking for it")
    signer.add_argument("--totp", action="store_true", help="with one-time passwords as well")
    _secret(signer, "the TOTP secret")
    unlock = commands.add_parser("unlock", help="give a locked signer the tries back")
    unlock.add_argument("user")
    unlock.add_argument("--tenant", required=True)
    new_pin = unlock.add_mutually_exclusive_group()
    new_pin.add_argument("--new-pin", action="store_true", help="ask for a new PIN")
    new_pin.add_argument("--pin-file", help="read a new PIN from here")


def _authenticators(commands: "argparse._SubParsersAction[_Command]") -> None:
    ticket = commands.add_parser("ticket", help="let a signer, whose identity you have checked, enroll a passkey")
    ticket.add_argument("user")
    ticket.add_argument("--tenant", required=True)
    _secret(ticket, "the enrollment address")
    address = commands.add_parser("notice-address", help="say where a signer is told of an added passkey")
    address.add_argument("user")
    address.add_argument("--tenant", required=True)
    where = address.add_mutually_exclusive_group(required=True)
    where.add_argument("--email", help="her e-mail address")
    where.add_argument("--none", action="store_true", help="take the address away")
    listing = commands.add_parser("authenticators", help="show what a signer approves with")
    listing.add_argument("user")
    listing.add_argument("--tenant", required=True)
    remove = commands.add_parser("remove-authenticator", help="stop a lost authenticator at once, for good")
    remove.add_argument("id", help="as `authenticators` shows it")
    remove.add_argument("--tenant", required=True)
    remove.add_argument("--user", required=True)
    remove.add_argument("--yes", action="store_true", help="do not ask to type the id")


def _credentials(commands: "argparse._SubParsersAction[_Command]") -> None:
    credential = commands.add_parser("add-credential", help="order a key and a certificate for a signer")
    credential.add_argument("credential", help="its credentialID; asking again with the same makes no second one")
    credential.add_argument("--tenant", required=True)
    credential.add_argument("--user", required=True)
    credential.add_argument("--description", default="Signing key")
    credential.add_argument("--key", choices=[key.value for key in KeyAlgorithm], default=KeyAlgorithm.P256.value)
    credential.add_argument("--profile", choices=[profile.value for profile in Profile], default=Profile.EU.value)
    credential.add_argument("--authority", default="local", help="a CA of the registry")
    credential.add_argument("--certificate-profile", help="one of that CA's profiles; without it, its default")
    credential.add_argument(
        "--assurance",
        choices=["SCAL1-pin", "SCAL2-passkey"],
        default="SCAL1-pin",
        help="SCAL2-passkey: the signer approves each signature with a passkey, and no PIN will do",
    )
    credential.add_argument("--otp", action="store_true", help="each authorization needs a one-time password")
    credential.add_argument("--hashes-required", action="store_true", help='link authorizations to hashes (SCAL "2")')
    credential.add_argument("--signatures-max", type=int, default=100, help="signatures in one authorization")
    credential.add_argument(
        "--wait",
        type=float,
        nargs="?",
        const=WAIT_S,
        metavar="SECONDS",
        help=f"until it can sign, or can never sign ({WAIT_S:.0f} s)",
    )


def _states(commands: "argparse._SubParsersAction[_Command]") -> None:
    listing = commands.add_parser("list", help="show tenants, clients, signers and credentials")
    listing.add_argument("--tenant", help="only this tenant's")
    for command, what in (("suspend", "stop"), ("resume", "let work again")):
        state = commands.add_parser(command, help=f"{what} a tenant, a client or a credential")
        state.add_argument("kind", choices=["tenant", "client", "credential"])
        state.add_argument("id")
    delete = commands.add_parser("delete", help="end a credential: its key is destroyed, its certificate revoked")
    delete.add_argument("kind", choices=["credential"])
    delete.add_argument("id")
    delete.add_argument("--yes", action="store_true", help="do not ask to type the id")


def _secret(command: argparse.ArgumentParser, what: str) -> None:
    where = command.add_mutually_exclusive_group()
    where.add_argument("--secret-file", help=f"write {what} into this new file, readable by its owner alone")
    where.add_argument("--show-secret", action="store_true", help=f"print {what}; it is shown this once")
