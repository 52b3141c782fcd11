"""Makes what an operator makes in production, for the compose file: secrets, trust, broker configuration, HSM tokens.

`python -m deploy.prepare FOLDER`, as the user the rooms run as. Run again, it adds only what is missing.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.local import tsa
from deploy.local.account import Account
from deploy.local.keys import Keys
from deploy.local.registry import LocalRegistry, LocalTSA, local_registry
from deploy.local.softhsm import LABELS, SoftHSM, find_module
from deploy.rabbitmq.definitions import definitions, password_hash
from shared.messaging.topology import SENDERS


def prepare(folder: Path) -> None:
    """Everything, in this folder."""
    account = Account.of_caller()
    keys = Keys(folder, account)
    keys.make()
    _ = keys.administrator_password
    trust = account.folder(folder / "trust")
    shutil.copyfile(keys.bundle_file, trust / "trust.json")
    account.folder(folder / "tsa")
    authority = tsa.make(folder / "tsa" / "authority")
    broker = account.folder(folder / "rabbitmq")
    if not (broker / "definitions.json").exists():
        hashes = {sender: password_hash(keys.password(sender, "broker")) for sender in SENDERS}
        account.write(broker / "definitions.json", json.dumps(definitions(hashes), indent=2))
    account.write(broker / "rabbitmq.conf", f"load_definitions = {broker}/definitions.json\nlog.console = true\n")
    for room in LABELS:
        _ceremony(folder, room, keys, account)
    clock = LocalTSA("local", tsa.NAME, "http://tsa:8080/", authority.anchors_file)
    LocalRegistry(trust, keys, account).write(local_registry(ca_anchor=trust / "local-ca.pem", tsas=[clock]))


def _ceremony(folder: Path, room: str, keys: Keys, account: Account) -> None:
    token = SoftHSM(folder, room, account, pin=keys.pin(room), so_pin=keys.so_pin(room))
    token.make()
    environment = {
        **token.environment(),
        "RAKKAN_HSM__MODULE": str(find_module()),
        "RAKKAN_HSM__TOKEN_LABEL": token.label,
        "RAKKAN_HSM__PIN_FILE": str(keys.pin_file(room)),
    }
    if room == "svg":
        environment["RAKKAN_CEREMONY__SO_PIN_FILE"] = str(keys.so_pin_file(room))
    if room == "ca_connector":
        environment["RAKKAN_CEREMONY__CERTIFICATE_FILE"] = str(folder / "trust" / "local-ca.pem")
    subprocess.run([sys.executable, "-m", f"services.{room}.ceremony"], env=environment, check=True)  # noqa: S603 - our own module


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
