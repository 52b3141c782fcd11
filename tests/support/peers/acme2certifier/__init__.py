"""acme2certifier with a CA of its own behind it: an ACME server that leaves the subject of a request as it is."""

from pathlib import Path
from typing import Any

from cryptography import x509

from deploy.local.program import wait_until
from tests.support.openssl import openssl
from tests.support.peers import Lack, example
from tests.support.peers.environments import environment
from tests.support.peers.pebble import account_key
from tests.support.peers.running import free_port, listening, program, write_secrets

EMAIL_PROTECTION = "1.3.6.1.5.5.7.3.4"
"""It knows a few purposes by name, and that of document signing is none of them."""
_CONFIGURATION = """
[DEFAULT]
debug: False
[Nonce]
nonce_check_disable: False
[CAhandler]
handler_module: acme2certifier.cahandlers.openssl_ca_handler
issuing_ca_key: {folder}/ca.key
issuing_ca_cert: {folder}/ca.pem
issuing_ca_crl: {folder}/ca.crl
ca_cert_chain_list: []
cert_validity_days: 300
cert_save_path: {folder}/certificates
openssl_conf: {folder}/extensions.cnf
[DBhandler]
handler_module: acme2certifier.dbhandlers.wsgi_handler
dbfile: {folder}/acme.db
[Challenge]
challenge_validation_disable: True
[Certificate]
csr_binding_strict: False
[Order]
tnauthlist_support: False
"""
_EXTENSIONS = """
[extensions]
basicConstraints: critical, CA:FALSE
keyUsage: critical, nonRepudiation
extendedKeyUsage: emailProtection
authorityKeyIdentifier: keyid
"""


class Acme2Certifier:
    name = "acme2certifier"
    lacks: frozenset[Lack] = frozenset()

    def start(self, folder: Path) -> None:
        python = environment("acme2certifier") / "python"
        self.folder = folder
        (folder / "certificates").mkdir()
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ca.key", folder=folder)
        openssl("req", "-x509", "-new", "-key", "ca.key", "-out", "ca.pem", "-days", "700",
                "-subj", "/CN=Example CA behind ACME", folder=folder)  # fmt: skip
        (folder / "acme_srv.cfg").write_text(_CONFIGURATION.format(folder=folder))
        (folder / "extensions.cnf").write_text(_EXTENSIONS)
        self.secrets = write_secrets(folder / "secrets", account=account_key())
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.program = program("acme2certifier", folder)
        environment_ = {
            "ACME_SRV_CONFIGFILE": str(folder / "acme_srv.cfg"),
            "ACME2CERTIFIER_I_KNOW_THE_RISK": "1",
            "PATH": "/usr/bin:/bin",
        }
        script = Path(__file__).parent / "serve.py"
        self.program.start([str(python), str(script), str(port)], environment_, folder=folder)
        wait_until(lambda: listening(f"{self.url}/directory"), self.program, timeout_s=30)

    def stop(self) -> None:
        self.program.stop()

    def entry(self) -> dict[str, Any]:
        account = {"account_key": "account", "binding_key_id": None, "binding_key": None}
        entry = example("acme", directory=f"{self.url}/directory", **account)
        entry["profiles"]["signing"]["extended_key_usages"] = [EMAIL_PROTECTION]
        return entry | {"anchors": [(self.folder / "ca.pem").read_text()]}

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        file = self.folder / "ca.crl"
        if not file.exists():  # it writes one when it revokes for the first time
            return False
        crl = x509.load_pem_x509_crl(file.read_bytes())
        return crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
