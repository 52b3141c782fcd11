"""Our own stand-in for an EST server, which strongSwan's client has judged (tests/interop/test_est.py)."""

from pathlib import Path
from typing import Any

from cryptography import x509

from tests.support.est_server import PASSWORD, USER, ESTServer
from tests.support.peers import DOCUMENT_SIGNING, POLICY, Lack, example
from tests.support.peers.running import NOBODY_LISTENS, changed, write_secrets


class EST:
    name = "est-stand-in"
    lacks: frozenset[Lack] = frozenset({Lack.REVOCATION, Lack.STATUS})

    def start(self, folder: Path) -> None:
        self.secrets = write_secrets(folder / "secrets", password=PASSWORD, wrong="guessed")
        self.server = ESTServer(self.secrets, policy=POLICY, purpose=DOCUMENT_SIGNING)
        self.server.__enter__()

    def stop(self) -> None:
        self.server.__exit__()

    def entry(self) -> dict[str, Any]:
        root = self.server.root_pem
        entry = example("est", url=self.server.url, username=USER, password="password", tls_anchors=[root])
        entry["profiles"]["refused"] = {"label": "For people that nobody knows", "ca_profile": "refused"}
        return entry | {"anchors": [root]}

    def by_certificate(self) -> dict[str, Any]:
        return changed(self.entry(), username=None, password=None, client_certificate="ra")

    def behaving(self, label: str) -> dict[str, Any]:
        """The entry with one more profile, under whose label the server behaves so."""
        entry = self.entry()
        entry["profiles"][label] = {"label": label, "ca_profile": label}
        return entry

    def estranged(self) -> dict[str, Any]:
        return changed(self.entry(), password="wrong")

    def away(self) -> dict[str, Any]:
        return changed(self.entry(), url=f"https://{NOBODY_LISTENS}")

    def attend(self) -> None:
        """It issues at the second time of asking."""

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        raise NotImplementedError
