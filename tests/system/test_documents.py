"""The examples in README and docs, typed in as they stand, against a whole suite."""

import asyncio
import base64
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from asn1crypto import pem
from asn1crypto.x509 import Certificate
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.validation import async_validate_pdf_signature
from pyhanko_certvalidator import ValidationContext

from deploy.local.document import write_document
from tests.support.world import MIDORI, P256, PINS, World

ROOT = Path(__file__).parents[2]


async def run(argv: list[str], environment: dict[str, str]) -> str:
    """What the program printed; its complaint is the test's failure."""
    done = await asyncio.to_thread(
        subprocess.run, argv, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def root_of(world: World) -> Certificate:
    """Of the local certification authority."""
    _, _, der = pem.unarmor(world.stack.rooms.anchors_file.read_bytes())
    return Certificate.load(der)


async def test_the_readmes_first_signature_with_curl_verifies(world: World, tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```sh\n(TOKEN=.*?)```", page, re.DOTALL)
    secret = tmp_path / "secret"
    secret.write_text(world.acme.client.secret)
    script = (
        script.replace("acme-app:", f"{world.acme.client.client_id}:")
        .replace("/tmp/acme-app.secret", str(secret))  # noqa: S108 - as the page has it
        .replace("contracts-1", P256)
    )
    environment = {
        "GATEWAY": world.stack.rooms.gateway_url,
        "AUTH": world.stack.rooms.authentication_url,
        "PIN": PINS[MIDORI],
    }
    printed = await run(["sh", "-euc", script], environment)
    (value,) = re.findall(r'"signatures": \["([^"]+)"\]', printed)
    key = (await world.acme.certificate(P256)).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(base64.b64decode(value), b"the contract", ec.ECDSA(hashes.SHA256()))


async def test_the_partners_pyhanko_program_signs(world: World, tmp_path: Path) -> None:
    source, target = tmp_path / "contract.pdf", tmp_path / "signed.pdf"
    source.write_bytes(write_document(now=datetime.now(UTC)))
    program = str(ROOT / "docs" / "examples" / "sign_pdf.py")
    token = world.acme.token
    arguments = [world.stack.rooms.gateway_url, token, P256, PINS[MIDORI], str(source), str(target)]
    await run([sys.executable, program, *arguments], {})
    with target.open("rb") as signed:
        (signature,) = PdfFileReader(signed).embedded_signatures
        status = await async_validate_pdf_signature(signature, ValidationContext(trust_roots=[root_of(world)]))
    assert status.bottom_line
