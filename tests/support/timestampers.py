"""Clients of time-stamping authorities, none of them ours, each let loose on an address; OpenSSL judges the tokens."""

import asyncio
import hashlib
import subprocess
import zipfile
from pathlib import Path

import httpx
from asn1crypto import cms
from pyhanko.sign.timestamps.requests_client import HTTPTimeStamper

from tests.support.openssl import openssl
from tests.support.peers.environments import program

QUERY = {"Content-Type": "application/timestamp-query"}
DOCUMENT = b"the document that is time-stamped"
_PASSWORD = "changeit"


def verified(folder: Path, anchors_file: Path, *, data: bytes, token: bytes) -> str:
    """What `openssl ts -verify` says of a token over the data."""
    (folder / "data").write_bytes(data)
    (folder / "token").write_bytes(token)
    told = ("ts", "-verify", "-data", "data", "-token_in", "-in", "token", "-CAfile", anchors_file)
    return openssl(*told, folder=folder)


async def by_openssl(url: str, folder: Path, anchors_file: Path) -> bytes:
    """`openssl ts -query`, curl's part by httpx, and `-verify` with the query, nonce and all."""
    (folder / "document").write_bytes(DOCUMENT)
    openssl("ts", "-query", "-data", "document", "-sha256", "-cert", "-out", "query", folder=folder)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        answer = await http.post(url, content=(folder / "query").read_bytes(), headers=QUERY)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/timestamp-reply"), answer.text
    (folder / "reply").write_bytes(answer.content)
    verify = ("ts", "-verify", "-queryfile", "query", "-in", "reply", "-CAfile", anchors_file)
    assert "Verification: OK" in openssl(*verify, folder=folder)
    openssl("ts", "-reply", "-in", "reply", "-token_out", "-out", "token.only", folder=folder)
    return (folder / "token.only").read_bytes()


async def by_pyhanko(url: str, folder: Path, anchors_file: Path) -> bytes:
    """HTTPTimeStamper, which checks nonce and imprint itself."""
    digest = hashlib.sha256(DOCUMENT).digest()
    stamper = HTTPTimeStamper(url)
    token: cms.ContentInfo = await asyncio.to_thread(asyncio.run, stamper.async_timestamp(digest, "sha256"))
    der = bytes(token.dump())
    assert "Verification: OK" in verified(folder, anchors_file, data=DOCUMENT, token=der)
    return der


async def by_jarsigner(url: str, folder: Path, anchors_file: Path) -> bytes:
    """`jarsigner -tsa`; the token is taken out of the signature it put into the archive."""
    jar = folder / "program.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("hello.txt", DOCUMENT)
    if not (folder / "keys").exists():
        await _run(
            "keytool", "-genkeypair", "-keystore", "keys", "-storepass", _PASSWORD, "-alias", "signer", "-dname",
            "CN=Signer", "-keyalg", "EC", "-groupname", "secp256r1", folder=folder,
        )  # fmt: skip
    told = await _run(
        "jarsigner", "-keystore", "keys", "-storepass", _PASSWORD, "-tsa", url, jar.name, "signer", folder=folder
    )
    assert "jar signed." in told, told
    checked = await _run("jarsigner", "-verify", "-verbose", jar.name, folder=folder)
    assert "jar verified." in checked, checked
    assert "Timestamped by" in checked, checked
    with zipfile.ZipFile(jar) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".EC"))
        signer = cms.ContentInfo.load(archive.read(name))["content"]["signer_infos"][0]
    (token,) = (a["values"][0] for a in signer["unsigned_attrs"] if a["type"].native == "signature_time_stamp_token")
    der = bytes(token.dump())
    assert "Verification: OK" in verified(folder, anchors_file, data=signer["signature"].native, token=der)
    return der


async def _run(name: str, *arguments: str, folder: Path) -> str:
    argv = [program(name, package="default-jdk-headless"), "-J-XX:TieredStopAtLevel=1", *arguments]
    ran = await asyncio.to_thread(
        subprocess.run, argv, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    return str(ran.stdout + ran.stderr)


CLIENTS = {
    "openssl": by_openssl,
    "pyhanko": by_pyhanko,
    "jarsigner": by_jarsigner,
}
