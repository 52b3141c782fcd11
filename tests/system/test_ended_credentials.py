"""Stopping and ending a credential by the operator, and what is left of it: no key, a revoked certificate, no use."""

import asyncio
import secrets
import urllib.request

from cryptography import x509

from tests.support.waiting import until
from tests.support.world import MIDORI, PINS, World

DISABLED = (400, "invalid_request", "The credential identified by credentialID is disabled")


async def test_a_suspended_credential_stops_at_once_and_a_resumed_one_signs(world: World) -> None:
    await world.add_credential("midori-paused", MIDORI)
    digest = secrets.token_bytes(32)
    sad = await world.acme.authorize("midori-paused", digest, pin=PINS[MIDORI])
    await world.operate("suspend", "credential", "midori-paused")
    assert (await world.acme.sign("midori-paused", sad, digest)).refusal == DISABLED
    assert (await world.acme.ask_sad("midori-paused", [digest], pin=PINS[MIDORI])).refusal == DISABLED
    await world.operate("resume", "credential", "midori-paused")
    assert (await world.acme.sign("midori-paused", sad, digest)).status == 200


async def test_a_deleted_credential_leaves_no_key_a_revoked_certificate_and_no_use(world: World) -> None:
    await world.add_credential("midori-ended", MIDORI)
    signed, unsigned = secrets.token_bytes(32), secrets.token_bytes(32)
    sad = await world.acme.authorize("midori-ended", signed, unsigned, pin=PINS[MIDORI])
    assert (await world.acme.sign("midori-ended", sad, signed)).status == 200
    certificate = await world.acme.certificate("midori-ended")
    assert certificate.serial_number not in await revoked(certificate)

    await world.operate("delete", "credential", "midori-ended", "--yes")
    assert (await world.acme.sign("midori-ended", sad, unsigned)).refusal == DISABLED

    async def on_the_crl() -> bool:
        return certificate.serial_number in await revoked(certificate)

    await until(on_the_crl, within_s=30)
    rows = await world.fetch(
        """
        select k.key_id, k.state, k.wrapped, k.resident, c.state as credential_state, c.share
        from sam.credentials c join svg.keys k using (key_id) where c.credential_id = 'midori-ended'
        """
    )
    assert [tuple(row)[1:] for row in rows] == [("destroyed", None, None, "destroyed", None)]
    for room in ("sam", "svg"):
        assert await world.leaves(room, "key.destroyed", subject_key_id=rows[0]["key_id"]) == 1
    for method in (world.acme.sign("midori-ended", sad, signed), world.acme.sign("midori-ended", sad, unsigned)):
        assert (await method).refusal == DISABLED
    assert (await world.acme.ask_sad("midori-ended", [signed], pin=PINS[MIDORI])).refusal == DISABLED


async def revoked(certificate: x509.Certificate) -> set[int]:
    """The serial numbers on the CRL that the certificate names."""
    points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    url = points[0].full_name[0].value
    return {entry.serial_number for entry in x509.load_der_x509_crl(await asyncio.to_thread(_fetch, url))}


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own loopback URL
        body: bytes = answer.read()
    return body
