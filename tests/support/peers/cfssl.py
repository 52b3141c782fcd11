"""cfssl as Debian has it (of 2016): a CA in a folder, with the database it needs to revoke and its OCSP answers."""

import base64
import json
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509 import ocsp

from deploy.local.program import wait_until
from tests.support.openssl import openssl
from tests.support.peers import POLICY, Lack, example
from tests.support.peers.environments import program as path_of
from tests.support.peers.running import NOBODY_LISTENS, changed, free_port, listening, program, write_secrets

_KEY = "00112233445566778899aabbccddeeff"
# `blob`, for in a column of another type sqlite makes floating-point numbers of serial numbers.
_SCHEMA = """
create table certificates (serial_number blob not null, authority_key_identifier blob not null, ca_label blob,
    status blob not null, reason int, expiry timestamp, revoked_at timestamp, pem blob not null,
    primary key (serial_number, authority_key_identifier));
create table ocsp_responses (serial_number blob not null, authority_key_identifier blob not null, body blob not null,
    expiry timestamp, primary key (serial_number, authority_key_identifier));
"""
# "committment": this version knows the usage by no other spelling, and drops what it does not know without a word.
_PROFILE = {
    "usages": ["content committment"],
    "expiry": "8760h",
    "auth_key": "ra",
    "policies": [{"id": POLICY}],
}
_CONFIGURATION = {
    "signing": {
        "default": _PROFILE,
        "profiles": {
            "docsign": _PROFILE,
            "nobody": {**_PROFILE, "name_whitelist": "^nobody at all$"},
            "careless": {**_PROFILE, "usages": ["content commitment", "signing"]},
        },
    },
    "auth_keys": {"ra": {"type": "standard", "key": _KEY}},
}


class CFSSL:
    name = "cfssl"
    lacks: frozenset[Lack] = frozenset()

    def start(self, folder: Path) -> None:
        self.folder = folder
        self.path = path_of("cfssl", package="golang-cfssl")
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ca.key", folder=folder)
        openssl("req", "-x509", "-new", "-key", "ca.key", "-out", "ca.pem", "-subj", "/CN=cfssl CA", "-days", "3650",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign", folder=folder)  # fmt: skip
        self.certificate = (folder / "ca.pem").read_text()
        with sqlite3.connect(folder / "certs.db") as database:
            database.executescript(_SCHEMA)
        database.close()
        (folder / "db.json").write_text(json.dumps({"driver": "sqlite3", "data_source": str(folder / "certs.db")}))
        (folder / "configuration.json").write_text(json.dumps(_CONFIGURATION))
        self.secrets = write_secrets(folder / "secrets", cfssl_key=_KEY, wrong="00" * 16)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.program = program("cfssl", folder)
        self.program.start(
            [self.path, "serve", "-address", "127.0.0.1", "-port", str(port), "-ca", "ca.pem", "-ca-key", "ca.key",
             "-config", "configuration.json", "-db-config", "db.json"],
            {"PATH": "/usr/bin:/bin"}, folder=folder,
        )  # fmt: skip
        wait_until(lambda: listening(self.url), self.program, timeout_s=20)

    def stop(self) -> None:
        self.program.stop()

    def entry(self) -> dict[str, Any]:
        entry = example("cfssl", url=self.url) | {"anchors": [self.certificate]}
        entry["profiles"] |= {
            "careless": {"label": "Asks for a usage by a name it does not know", "ca_profile": "careless"},
            "refused": {"label": "For names that nobody has", "ca_profile": "nobody"},
        }
        return entry

    def estranged(self) -> dict[str, Any]:
        return changed(self.entry(), key="wrong")

    def away(self) -> dict[str, Any]:
        return changed(self.entry(), url=f"http://{NOBODY_LISTENS}")

    def attend(self) -> None:
        """It has issued already."""

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """By the OCSP responses that it prepares from its database."""
        self._run("ocsprefresh", "-db-config", "db.json", "-responder", "ca.pem", "-responder-key", "ca.key",
                  "-ca", "ca.pem")  # fmt: skip
        prepared = self._run("ocspdump", "-db-config", "db.json").split()
        answers = [ocsp.load_der_ocsp_response(base64.b64decode(one)) for one in prepared]
        stated = [one.certificate_status for one in answers if one.serial_number == certificate.serial_number]
        return stated == [ocsp.OCSPCertStatus.REVOKED]

    def _run(self, *arguments: str) -> str:
        command = [self.path, *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True, timeout=30)  # noqa: S603 - our own
        return done.stdout
