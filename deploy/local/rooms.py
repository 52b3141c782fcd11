"""The rooms as processes of the local stack: their settings, ceremonies, start and readiness. Knows no server inside.

A room gets exactly the settings it knows; an unknown one would stop it.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.local.account import Account
from deploy.local.home import CHECKOUT
from deploy.local.keys import Keys
from deploy.local.ports import Ports
from deploy.local.program import Program, StackError
from deploy.local.registry import TSAS, LocalRegistry, LocalTSA, local_connection, local_registry
from deploy.local.softhsm import LABELS, SoftHSM, find_module
from shared.messaging.topology import OPERATOR, ROOMS
from shared.trust import Purpose

DOORS = ("gateway", "authentication")
DATABASES = ("gateway", "authentication", "sam", "svg", "ca_connector", "tsa_connector")


def exists(room: str) -> bool:
    return (CHECKOUT / "services" / room / "__main__.py").exists()


class Rooms:
    """Their processes run as the stack's account when it can read the code, else as the caller."""

    def __init__(self, run_folder: Path, ports: Ports, keys: Keys, account: Account) -> None:
        self._run_folder = run_folder
        self._ports = ports
        self._keys = keys
        python = [sys.executable, "-c", "import shared.runtime"]
        # Under /root, say, nobody else can start Python: then the rooms stay what we are.
        self.account = account if not account.dropped or account.can_run(python, CHECKOUT) else Account.of_caller()
        self._programs = {room: Program(room, run_folder, self.account) for room in ROOMS if exists(room)}
        self.tsas = {name: Program(f"tsa-{name}", run_folder, self.account) for name in TSAS}
        self.foreign_ca = Program("cfssl", run_folder, self.account)
        self.registry = LocalRegistry(run_folder, keys, account)
        self._data_account = account

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['gateway http']}"

    @property
    def authentication_url(self) -> str:
        # A passkey belongs to a name, and browsers take no address for one; over http they take only this name.
        return f"http://localhost:{self._ports['authentication http']}"

    @property
    def anchors_file(self) -> Path:
        """Of the local CA, made by its ceremony."""
        return self._run_folder / "anchors" / "local-ca.pem"

    @property
    def tsa(self) -> Program:
        """The first of the time-stamping authorities, the one asked by default."""
        return self.tsas["local"]

    @property
    def tsa_anchors_file(self) -> Path:
        """Of all the local TSAs, whichever of them stamped."""
        return self._run_folder / "tsa" / "anchors.pem"

    def anchors_file_of(self, tsa: str) -> Path:
        """Of one of the local TSAs, by its name in the registry."""
        return self._run_folder / "tsa" / tsa / "root.pem"

    def tsa_url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[_tsa_port(name)]}/"

    def program(self, room: str) -> Program:
        """For tests of faults, which kill it."""
        return self._programs[room]

    def running(self, room: str) -> bool:
        return room in self._programs and self._programs[room].running()

    def health_url(self, room: str) -> str:
        return f"http://127.0.0.1:{self._ports[f'{room} health']}"

    def environment(self, room: str) -> dict[str, str]:
        """Everything the room's process gets; nothing of the caller's own environment but PATH."""
        keys = self._keys
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(self._run_folder),
            "PYTHONUNBUFFERED": "1",
            "RAKKAN_BROKER__PORT": str(self._ports["rabbitmq"]),
            "RAKKAN_BROKER__PASSWORD_FILE": str(keys.password_file(room, "broker")),
            "RAKKAN_TRUST__BUNDLE_FILE": str(keys.bundle_file),
            "RAKKAN_TRUST__MESSAGES_KEY_FILE": str(keys.key_file(room, Purpose.MESSAGES)),
            "RAKKAN_TRUST__SEALING_KEY_FILE": str(keys.key_file(room, Purpose.SEALING)),
        }
        if room != OPERATOR:
            environment["RAKKAN_HEALTH__PORT"] = str(self._ports[f"{room} health"])
        if room in DATABASES and _has_schema(room):
            environment["RAKKAN_DATABASE__PORT"] = str(self._ports["postgres"])
            environment["RAKKAN_DATABASE__PASSWORD_FILE"] = str(keys.password_file(room, "database"))
        if room in LABELS:
            environment |= self._token_environment(room)
        return environment | self._own_settings(room)

    def hold_ceremony(self, room: str) -> None:
        """Make the keys the room's token must hold, unless this very ceremony was held for it."""
        code = (CHECKOUT / "services" / room / "ceremony.py").read_bytes()
        held = self._run_folder / "softhsm" / room / "ceremony"
        if held.exists() and held.read_text() == hashlib.sha256(code).hexdigest():
            return
        environment = _plain_environment() | self._token_environment(room)
        if room == "svg":
            environment["RAKKAN_CEREMONY__SO_PIN_FILE"] = str(self._keys.so_pin_file(room))
        if room == "ca_connector":
            self.account.folder(self.anchors_file.parent)
            environment["RAKKAN_CEREMONY__CERTIFICATE_FILE"] = str(self.anchors_file)
        done = subprocess.run(
            [sys.executable, "-m", f"services.{room}.ceremony"],
            env=environment,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
            **self.account.identity(),
        )
        if done.returncode != 0:
            raise StackError(f"The key ceremony of {room} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        held.write_text(hashlib.sha256(code).hexdigest())

    def operator(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """The operator's command and its environment; it runs as `account`."""
        terminal = {name: os.environ[name] for name in ("TERM", "LANG") if name in os.environ}
        return [sys.executable, "-m", "services.operator", *arguments], self.environment(OPERATOR) | terminal

    def start_tsas(self) -> None:
        for name in TSAS:
            self.start_tsa(name)

    def start_tsa(self, name: str = "local") -> None:
        """A time-stamping authority that the TSA connector asks."""
        program = self.tsas[name]
        if program.running():
            return
        port = _tsa_port(name)
        self._ports.renew([port])
        anchors_file = self.anchors_file_of(name)
        self.account.folder(anchors_file.parent.parent)
        argv = [sys.executable, "-m", "deploy.local.tsa", "--folder", str(anchors_file.parent)]
        argv += ["--name", TSAS[name], "--port", str(self._ports[port])]
        program.start(argv, _plain_environment(), folder=CHECKOUT)
        deadline = time.monotonic() + 20
        while not anchors_file.exists() and time.monotonic() < deadline:
            program.check_running()
            time.sleep(0.05)
        present = [file for one in TSAS if (file := self.anchors_file_of(one)).exists()]
        self._data_account.write(self.tsa_anchors_file, "".join(file.read_text() for file in present), mode=0o644)

    def write_registry(self) -> None:
        """After the TSAs started and the CA's ceremony was held: all have made their anchors by then."""
        tsas = [LocalTSA(name, label, self.tsa_url(name), self.anchors_file_of(name)) for name, label in TSAS.items()]
        ca_url = self.health_url("ca_connector")
        self.registry.write(local_registry(ca_anchor=self.anchors_file, tsas=tsas, ca_url=ca_url))

    def _publish_ca_address(self) -> None:
        """In the registry, whose CA `local` publishes on a port that may have changed."""
        registry = self.registry.read()
        registry.pop("version", None)
        if "local" in registry.get("certification_authorities", {}):
            ca = registry["certification_authorities"]["local"]
            ca["connection"] = local_connection(self.health_url("ca_connector"))
            self.registry.write(registry)

    def start(self, room: str) -> None:
        """Start it; `wait_ready` tells when it works."""
        program = self._programs[room]
        if program.running():
            return
        ports = [f"{room} health", f"{room} http"] if room in DOORS else [f"{room} health"]
        self._ports.renew(ports)
        if room == "ca_connector":
            self._publish_ca_address()
        argv = [sys.executable, "-m", f"services.{room}"]
        program.start(argv, self.environment(room), folder=CHECKOUT)

    def wait_ready(self, room: str, *, timeout_s: float = 60.0) -> None:
        program = self._programs[room]
        deadline = time.monotonic() + timeout_s
        while (faults := self.faults(room)) is None or faults:
            program.check_running()
            if time.monotonic() > deadline:
                told = "" if faults is None else f" It says: {faults}."
                raise StackError(f"{room} is not ready after {timeout_s:.0f} s.{told}\n{program.log_tail()}")
            time.sleep(0.05)

    def faults(self, room: str) -> Mapping[str, str] | None:
        """What the room says is not ready; None when it says nothing."""
        try:
            with urllib.request.urlopen(f"{self.health_url(room)}/readyz", timeout=5) as answer:  # noqa: S310 - our own loopback URL
                text = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read()
        except OSError:
            return None
        try:
            faults: Mapping[str, str] = json.loads(text)["faults"]
        except (ValueError, KeyError):
            return None
        return faults

    def stop(self) -> None:
        """The doors first, then those they ask; all drain at once within their group."""
        for group in (DOORS, tuple(room for room in ROOMS if room not in DOORS)):
            _stop_together([self._programs[room] for room in group if room in self._programs])
        for program in (*self.tsas.values(), self.foreign_ca):
            program.stop()

    def _own_settings(self, room: str) -> dict[str, str]:
        """What is this room's alone."""
        own = {
            OPERATOR: self._operator_settings,
            "gateway": self._gateway_settings,
            "authentication": self._authentication_settings,
            "sam": self._sam_settings,
            "ca_connector": self._ca_connector_settings,
            "tsa_connector": self._tsa_connector_settings,
        }
        return own[room]() if room in own else {}

    def _operator_settings(self) -> dict[str, str]:
        return {"RAKKAN_AUTHENTICATION_URL": self.authentication_url}

    def _gateway_settings(self) -> dict[str, str]:
        return {
            "RAKKAN_HTTP__PORT": str(self._ports["gateway http"]),
            "RAKKAN_PUBLIC_URL": self.gateway_url,
            "RAKKAN_AUTHENTICATION_URL": self.authentication_url,
            **self.registry.settings("gateway"),
        }

    def _authentication_settings(self) -> dict[str, str]:
        return {
            "RAKKAN_HTTP__PORT": str(self._ports["authentication http"]),
            "RAKKAN_ISSUER": self.authentication_url,
            "RAKKAN_TOKENS_KEY_FILE": str(self._keys.key_file("authentication", Purpose.TOKENS)),
            "RAKKAN_SECRETS_KEY_FILE": str(self._keys.secrets_key_file("authentication")),
            **self.registry.settings("authentication"),
        }

    def _sam_settings(self) -> dict[str, str]:
        return {
            "RAKKAN_ACTIVATIONS_KEY_FILE": str(self._keys.key_file("sam", Purpose.ACTIVATIONS)),
            "RAKKAN_WEBAUTHN__RP_ID": "localhost",
            "RAKKAN_WEBAUTHN__ORIGINS": json.dumps([self.authentication_url]),
            **self.registry.settings("sam"),
        }

    def _ca_connector_settings(self) -> dict[str, str]:
        return self.registry.settings("ca_connector")

    def _tsa_connector_settings(self) -> dict[str, str]:
        return self.registry.settings("tsa_connector")

    def _token_environment(self, room: str) -> dict[str, str]:
        module = find_module()
        if module is None:
            raise StackError("softhsm2 is not installed")
        token = SoftHSM(self._run_folder, room, self._data_account, pin="", so_pin="")
        return {
            **token.environment(),
            "RAKKAN_HSM__MODULE": str(module),
            "RAKKAN_HSM__TOKEN_LABEL": token.label,
            "RAKKAN_HSM__PIN_FILE": str(self._keys.pin_file(room)),
        }


def _has_schema(room: str) -> bool:
    return any((CHECKOUT / "services" / room / "schema").glob("*.sql"))


def _tsa_port(name: str) -> str:
    return f"tsa {name} http"


def _plain_environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}


def _stop_together(programs: list[Program]) -> None:
    for program in programs:
        program.ask_to_end()
    for program in programs:
        program.wait_end(timeout_s=45.0)
