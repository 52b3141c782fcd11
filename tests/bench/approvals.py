"""How many approvals one SAM process verifies in a second: `python -m tests.bench.approvals`.

`verified` is the cryptography alone; `approved` is the whole of `ApproveContext` with its PostgreSQL: context and
authenticator locked, evidence and authorization written, audited.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Callable, Iterator
from itertools import count

import uvloop
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploy.local.stack import Stack
from services.sam import evidence
from services.sam.evidence import RelyingParty
from services.sam.rows import PASSKEY
from shared.algorithms import Hash
from shared.audit import AuditWriter
from shared.contracts.approval import (
    AddAuthenticator,
    ApproveContext,
    ContextOpened,
    Document,
    IssueTicket,
    OpenContext,
    OpenEnrollment,
)
from shared.contracts.sam import AddSigner
from shared.database import connect_pool
from shared.messaging import operation
from shared.sealing import seal, unseal
from shared.settings import Database
from tests.bench import report
from tests.support.authenticator import DeviceKey, Passkey, PrivateKey
from tests.support.certificates import authority, issue, name
from tests.support.sam import ORIGIN, RP_ID, MemoryToken, SAMUnderTest

_PARTY = RelyingParty(RP_ID, (ORIGIN,), allow_backed_up=True)
_KEYS: dict[str, Callable[[], PrivateKey]] = {
    "passkey, ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "passkey, EdDSA": Ed25519PrivateKey.generate,
    "passkey, RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
}
_CALLERS = 8


def verified(seconds: float) -> Iterator[tuple[str, float]]:
    """Assertions and device signatures verified per second, by kind of key."""
    challenge = os.urandom(32)
    for kind, new_key in _KEYS.items():
        passkey = Passkey(RP_ID, ORIGIN, key=new_key())
        assertion, public_key = passkey.answer(challenge), passkey.cose_key()
        end = (began := time.perf_counter()) + seconds
        for done in count(1):
            evidence.verify_assertion(
                assertion,
                party=_PARTY,
                challenge=challenge,
                webauthn_id=passkey.credential_id,
                public_key=public_key,
                sign_count=0,
                backup_eligible=False,
                user_handle=b"",
            )
            if time.perf_counter() >= end:
                yield kind, done / (time.perf_counter() - began)
                break
    device = DeviceKey()
    signature = device.prove(challenge)
    end = (began := time.perf_counter()) + seconds
    for done in count(1):
        evidence.verify_device_signature(signature, public_key=device.public_key, data=challenge)
        if time.perf_counter() >= end:
            yield "device key, Ed25519", done / (time.perf_counter() - began)
            break


async def approved(stack: Stack, contexts_each: int) -> float:
    """Contexts approved per second, each by another passkey's first answer; `_CALLERS` signers at once."""
    settings = Database(port=stack.postgres.port, password_file=stack.keys.password_file("sam", "database"))
    pool = await connect_pool(settings, "sam")
    try:
        audit = AuditWriter("sam", os.urandom(4).hex())
        await audit.start(pool)
        sam = SAMUnderTest(pool, audit, os.urandom(32), MemoryToken())
        waiting = await asyncio.gather(*(_prepared(sam, contexts_each) for _ in range(_CALLERS)))
        began = time.perf_counter()
        await asyncio.gather(*(_approve_all(sam, passkey, contexts) for passkey, contexts in waiting))
        return _CALLERS * contexts_each / (time.perf_counter() - began)
    finally:
        await pool.close()


async def _prepared(sam: SAMUnderTest, contexts_each: int) -> tuple[Passkey, list[ContextOpened]]:
    """A signer with a passkey, and contexts that wait for it."""
    user_id, passkey = f"user-{os.urandom(4).hex()}", Passkey(RP_ID, ORIGIN)
    with operation.begin("operator", timeout_s=600):
        secrets = sam.sealed(AddSigner, user_id)
        signer = await sam.enrolling.add_signer(
            AddSigner(tenant_id="acme", user_id=user_id, common_name="Hanako", secrets=secrets)
        )
        issued = await sam.authenticators.issue_ticket(IssueTicket(tenant_id="acme", user_id=user_id))
        ticket = unseal(issued.ticket, key=sam.keys["operator"], message=IssueTicket.TYPE, subject=user_id)
        to = sam.keys["sam"].public_key()
        opened = await sam.authenticators.open_enrollment(
            OpenEnrollment(secrets=seal(ticket, to=to, message=OpenEnrollment.TYPE))
        )
        registration = passkey.register(opened.challenge)
        await sam.authenticators.add_authenticator(
            AddAuthenticator(enrollment_id=opened.enrollment_id, label="bench", **registration)
        )
        root = authority("Bench CA", now=sam.clock.now())
        leaf = issue(root, name("Hanako"), ec.generate_private_key(ec.SECP256R1()), now=sam.clock.now())
        chain = (leaf.public_bytes(serialization.Encoding.DER),)
        contexts = []
        for number in range(contexts_each):
            if number % 10 == 0:  # not more than may wait for one credential
                credential = await sam.add_credential(signer.signer_id, assurance=PASSKEY, chain=chain)
            contexts.append(
                await sam.approving.open_context(
                    OpenContext(
                        tenant_id="acme",
                        user_id=user_id,
                        client_id="partner",
                        client_name="Partner",
                        credential_id=credential.credential_id,
                        signatures=1,
                        documents=(Document(digest=os.urandom(32), label="contract.pdf"),),
                        hash=Hash.SHA256,
                    )
                )
            )
    return passkey, contexts


async def _approve_all(sam: SAMUnderTest, passkey: Passkey, contexts: list[ContextOpened]) -> None:
    with operation.begin("authentication", timeout_s=600):
        for context in contexts:
            answer = passkey.answer(context.challenge)
            await sam.approving.approve_context(ApproveContext(context_id=context.context_id, passkey=answer))


async def _approved(contexts_each: int) -> float:
    stack = Stack.temporary()
    try:
        stack.keys.make()
        await asyncio.to_thread(stack.start_postgres)
        await stack.prepare_database()
        return await approved(stack, contexts_each)
    finally:
        await asyncio.to_thread(stack.postgres.stop)
        stack.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each kind of key (3)")
    parser.add_argument("--contexts", type=int, default=100, help="for each of 8 signers (100)")
    given = parser.parse_args()
    rows = [(kind, f"{rate:.0f}") for kind, rate in verified(given.seconds)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows.append(("ApproveContext, 8 signers at once", f"{runner.run(_approved(given.contexts)):.0f}"))
    print(report.table("Approvals verified by one SAM process", ("evidence", "per s"), rows))  # noqa: T201  # a command's result


if __name__ == "__main__":
    main()
