"""`./rakkan demo`: the whole way once, from nothing to a signed PDF that three validators accept."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from deploy.local import authorities, clocks
from deploy.local.document import AGREED, FORGED, forge, write_document
from deploy.local.enrollment import CREDENTIAL, Enrollment
from deploy.local.home import CHECKOUT
from deploy.local.packages import FOR_APPROVALS, ensure, may_install, missing_for_approvals, words_for
from deploy.local.partner import sign_pdf
from deploy.local.program import StackError
from deploy.local.progress import Progress
from deploy.local.stack import Stack
from deploy.local.validators import Verdict, validate

SIGNED = CHECKOUT / "demo-signed.pdf"


def run(stack: Stack, progress: Progress, *, file: Path = SIGNED, may_use_sudo: bool = False) -> None:
    """Leave the signed page in the file. Raise StackError when anything is not as it should be."""
    progress.say("\nThe rooms and what they stand on, private to this folder:")
    stack.up(progress)
    enrollment = Enrollment(stack)
    progress.say("\nOnce: who may sign")
    if enrollment.is_done():
        progress.say(f"  ✓ the credential `{CREDENTIAL}` is there from an earlier run")
    else:
        enrollment.make(progress)
    progress.say("\nA signature, the way a partner's program makes one:")
    document = write_document(now=datetime.now(UTC))
    with progress.step("an access token from authentication (OAuth 2, client_credentials)"):
        token = enrollment.token()
    with progress.step("pyHanko's own CSC client signs a PDF through the gateway, with a time-stamp"):
        signed = asyncio.run(
            sign_pdf(
                document,
                gateway_url=stack.rooms.gateway_url,
                token=token,
                credential_id=CREDENTIAL,
                pin=enrollment.pin,
            )
        )
    file.write_bytes(signed)
    _judge(stack, signed, progress)
    clocks.run(stack, progress, token=token, document=signed)
    authorities.run(stack, progress, token=token, now=datetime.now(UTC))
    _second_act(stack, progress, folder=file.parent, may_use_sudo=may_use_sudo)
    progress.say(_farewell(stack, file, progress.seconds))


def _second_act(stack: Stack, progress: Progress, *, folder: Path, may_use_sudo: bool) -> None:
    progress.say("\nAnother signature, approved by its signer with a passkey (SCAL2):")
    if may_install(may_use_sudo=may_use_sudo):
        ensure(progress, may_use_sudo=may_use_sudo, needed=FOR_APPROVALS)
    absent = missing_for_approvals()
    if absent:
        progress.say(f"  left out: it needs a browser. To see it: {words_for(absent)}")
        return
    from deploy.local import approved  # noqa: PLC0415 - Playwright takes a while to load, and only this act needs it

    enrollment = Enrollment(stack)
    if not enrollment.is_done_for_the_page():
        redirect_uri = f"http://localhost:{stack.ports['demo partner']}/back"
        enrollment.make_for_the_page([redirect_uri], progress)
    signed = asyncio.run(approved.sign(stack, progress, pictures=folder / "demo-approval-{}.png"))
    file = folder / "demo-approved.pdf"
    file.write_bytes(signed)
    _judge(stack, signed, progress)
    progress.say(f"\nThe signed page: {file}\nWhat the signer saw: {folder / 'demo-approval-en.png'} and -ja.png")


def _judge(stack: Stack, signed: bytes, progress: Progress) -> None:
    anchors = {"anchors_file": stack.rooms.anchors_file, "tsa_anchors_file": stack.rooms.tsa_anchors_file}
    progress.say("\nThree validators that we did not write:")
    verdicts = validate(signed, **anchors)
    for verdict in verdicts:
        progress.say(_line(verdict))
    changed = f"{AGREED.decode()} -> {FORGED.decode()}"
    progress.say(f"\nThe same file with one byte changed ({changed}):")
    forged = validate(forge(signed), **anchors)
    for verdict in forged:
        progress.say(_line(verdict))
    wrong = [v.validator for v in verdicts if not v.accepted] + [v.validator for v in forged if v.accepted]
    if wrong:
        raise StackError(f"Not the verdict that was expected: {', '.join(wrong)}")


def _line(verdict: Verdict) -> str:
    return f"  {verdict.validator:<12} {'accepts' if verdict.accepted else 'REFUSES'}   {verdict.words}"


def _farewell(stack: Stack, file: Path, seconds: float) -> str:
    return f"""
Done after {seconds:.1f} s. The signed page: {file}

What to try next
  ./rakkan status                 what runs and where
  {stack.rooms.gateway_url}/docs     the partners' door, described
  ./rakkan operator list          who may sign
  ./rakkan operator --help        add your own tenant, client, signer, credential
  docs/life-of-a-signature.md     what happened just now, file by file
  ./rakkan down                   stop everything"""
