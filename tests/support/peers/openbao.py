"""OpenBao, a real one in memory: a root, an issuing CA below it, a role for document signing and an AppRole for us."""

from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from deploy.local.program import wait_until
from tests.support.peers import DOCUMENT_SIGNING, POLICY, Lack, example
from tests.support.peers.environments import environment
from tests.support.peers.running import NOBODY_LISTENS, changed, free_port, listening, program, write_secrets

_ROLE = {
    "allow_any_name": True,
    "enforce_hostnames": False,
    "allowed_serial_numbers": ["*"],
    "cn_validations": ["disabled"],
    "use_csr_sans": False,
    "key_type": "any",
    "server_flag": False,
    "client_flag": False,
    "key_usage": ["ContentCommitment"],
    "ext_key_usage_oids": [DOCUMENT_SIGNING],
    "policy_identifiers": [POLICY],
    "country": ["JP"],
    "organization": ["Example"],
    "max_ttl": "8760h",
}
_POLICY = """
path "pki_int/sign/+" { capabilities = ["create", "update"] }
path "pki_int/revoke" { capabilities = ["create", "update"] }
"""


class OpenBao:
    name = "openbao"
    lacks: frozenset[Lack] = frozenset()
    login_seconds = 3600

    def start(self, folder: Path) -> None:
        bao = environment("openbao") / "bao"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.program = program("openbao", folder)
        listen = f"-dev-listen-address=127.0.0.1:{port}"
        self.program.start(
            [str(bao), "server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root", listen],
            {"HOME": str(folder), "PATH": "/usr/bin:/bin"},
            folder=folder,
        )
        wait_until(lambda: listening(f"{self.url}/v1/sys/health"), self.program, timeout_s=30)
        self._make_authorities()
        self.secrets = write_secrets(folder / "secrets", bao_secret_id=self._make_login(), wrong="no-such-secret")

    def stop(self) -> None:
        self.program.stop()

    def entry(self) -> dict[str, Any]:
        approle = {"role_id": self.role_id, "secret_id": "bao-secret-id"}
        entry = example("vault", url=self.url, approle=approle) | {"anchors": [self.root]}
        entry["profiles"]["refused"] = {"label": "Of a role that is not there", "ca_profile": "nosuch"}
        entry["revocation"] = {
            "crl_url": f"{self.url}/v1/pki_int/crl",
            "ocsp_url": f"{self.url}/v1/pki_int/ocsp",
        }
        return entry

    def estranged(self) -> dict[str, Any]:
        return changed(self.entry(), approle={"role_id": self.role_id, "secret_id": "wrong"})

    def away(self) -> dict[str, Any]:
        return changed(self.entry(), url=f"http://{NOBODY_LISTENS}")

    def attend(self) -> None:
        """It has issued already."""

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """By both of what it publishes."""
        crl = x509.load_der_x509_crl(httpx.get(f"{self.url}/v1/pki_int/crl", trust_env=False).content)
        question = ocsp.OCSPRequestBuilder().add_certificate(certificate, self.issuing, hashes.SHA256()).build()
        answer = httpx.post(
            f"{self.url}/v1/pki_int/ocsp",
            content=question.public_bytes(Encoding.DER),
            headers={"content-type": "application/ocsp-request"},
            trust_env=False,
        )
        stated = ocsp.load_der_ocsp_response(answer.content).certificate_status is ocsp.OCSPCertStatus.REVOKED
        listed = crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
        if stated is not listed:
            raise AssertionError(f"OCSP says {stated}, the CRL {listed}")
        return stated

    def api(self, path: str, body: dict[str, Any] | None = None, *, method: str = "POST") -> Any:
        """As its administrator."""
        answer = httpx.request(
            method, f"{self.url}/v1/{path}", json=body, headers={"X-Vault-Token": "root"}, timeout=30, trust_env=False
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def _make_authorities(self) -> None:
        for mount in ("pki", "pki_int"):
            self.api(f"sys/mounts/{mount}", {"type": "pki", "config": {"max_lease_ttl": "87600h"}})
        ec = {"key_type": "ec", "key_bits": 256, "exclude_cn_from_sans": True}
        root = self.api("pki/root/generate/internal", {"common_name": "Bao Root", "ttl": "87600h", **ec})
        self.root = root["data"]["certificate"]
        csr = self.api("pki_int/intermediate/generate/internal", {"common_name": "Bao Issuing", **ec})["data"]["csr"]
        issuing = self.api("pki/root/sign-intermediate", {"csr": csr, "ttl": "43800h", "exclude_cn_from_sans": True})
        self.issuing = x509.load_pem_x509_certificate(issuing["data"]["certificate"].encode())
        self.api("pki_int/intermediate/set-signed", {"certificate": issuing["data"]["certificate"]})
        urls = {
            "issuing_certificates": [f"{self.url}/v1/pki_int/ca"],
            "crl_distribution_points": [f"{self.url}/v1/pki_int/crl"],
            "ocsp_servers": [f"{self.url}/v1/pki_int/ocsp"],
        }
        self.api("pki_int/config/urls", urls)
        self.api("pki_int/roles/docsign", _ROLE)

    def _make_login(self) -> str:
        """Sets `role_id`, and gives the secret id."""
        self.api("sys/auth/approle", {"type": "approle"})
        self.api("sys/policies/acl/rakkan", {"policy": _POLICY}, method="PUT")
        role = {"token_policies": ["rakkan"], "token_ttl": f"{self.login_seconds}s", "token_max_ttl": "24h"}
        self.api("auth/approle/role/rakkan", role)
        self.role_id = self.api("auth/approle/role/rakkan/role-id", method="GET")["data"]["role_id"]
        return str(self.api("auth/approle/role/rakkan/secret-id", {})["data"]["secret_id"])
