"""A private RabbitMQ node and its epmd, on loopback, as an ordinary user. Knows no route: definitions are handed in.

Debian's wrappers in /usr/sbin refuse every user but root and rabbitmq, so the real scripts are used.
"""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from deploy.local.account import Account
from deploy.local.ports import Ports, answers
from deploy.local.program import Program, wait_until

_SCRIPTS = ("/usr/lib/rabbitmq/bin", "/usr/lib/rabbitmq/sbin", "/opt/rabbitmq/sbin")
_AMQP_HEADER = b"AMQP\x00\x00\x09\x01"


def find_server() -> Path | None:
    """The script `rabbitmq-server` that any user may run."""
    return next((Path(f) / "rabbitmq-server" for f in _SCRIPTS if (Path(f) / "rabbitmq-server").exists()), None)


class RabbitMQ:
    """`kill` is for tests of faults. A quorum queue younger than about five seconds does not survive it."""

    def __init__(self, run_folder: Path, ports: Ports, account: Account) -> None:
        self._folder = run_folder / "rabbitmq"
        self._ports = ports
        self._account = account
        self._node = Program("rabbitmq", run_folder, account)
        # Started by us and not by Erlang: Erlang would leave it behind as a daemon for ever.
        self._epmd = Program("epmd", run_folder, account)

    @property
    def port(self) -> int:
        return self._ports["rabbitmq"]

    def start(self, definitions: dict[str, Any] | None = None, *, timeout_s: float = 60.0) -> None:
        """Boot, or do nothing when it runs. Definitions given now replace those of the last start."""
        if self.running() and self.answers():
            return
        self._node.kill()
        self._epmd.kill()
        self._ports.renew(["rabbitmq", "rabbitmq distribution", "epmd"])
        server = find_server()
        if server is None:
            raise FileNotFoundError("rabbitmq-server is not installed")
        self._account.folder(self._folder)
        self._configure(definitions)
        environment = self._environment()
        epmd = shutil.which("epmd", path=environment["PATH"]) or "epmd"
        epmd_port = str(self._ports["epmd"])
        self._epmd.start([epmd, "-address", "127.0.0.1", "-port", epmd_port], environment, folder=self._folder)
        wait_until(lambda: answers(int(epmd_port)), self._epmd, timeout_s=5.0, every_s=0.02)
        self._node.start([str(server)], environment, folder=self._folder)
        wait_until(self.answers, self._node, timeout_s=timeout_s)

    def answers(self) -> bool:
        """Listeners open at the end of the boot: who greets has loaded its definitions."""
        return answers(self.port, _AMQP_HEADER)

    def running(self) -> bool:
        return self._node.running()

    def stop(self) -> None:
        self._node.stop(timeout_s=20.0)
        self._epmd.stop(by=signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL: what a power cut does to it."""
        self._node.kill()
        self._epmd.kill()

    def node_pid(self) -> int:
        """Of the Erlang machine, for tests that freeze it."""
        pid = self._node.pid
        if pid is None:
            raise ProcessLookupError("the node does not run")
        return pid

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` on this node; what it printed."""
        server = find_server()
        if server is None:
            raise FileNotFoundError("rabbitmq-server is not installed")
        return subprocess.run(
            [str(server.with_name("rabbitmqctl")), *arguments],
            env=self._environment(),
            cwd=self._folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            **self._account.identity(),
        ).stdout

    def _configure(self, definitions: dict[str, Any] | None) -> None:
        if definitions is not None:
            self._account.write(self._folder / "definitions.json", json.dumps(definitions, indent=2))
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            "log.console = true",
            "log.console.level = warning",
            "log.file = false",
            f"load_definitions = {self._folder}/definitions.json",
            "vm_memory_high_watermark.absolute = 512MB",
            "disk_free_limit.absolute = 50MB",
        ]
        self._account.write(self._folder / "rabbitmq.conf", "\n".join(lines) + "\n")
        self._account.write(self._folder / "enabled_plugins", "[].\n")

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", "") + ":/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "HOME": str(self._folder),  # of the Erlang cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._ports["epmd"]),
            "RABBITMQ_NODENAME": "rakkan@localhost",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{self._folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self._folder}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{self._folder}/data",
            "RABBITMQ_LOG_BASE": f"{self._folder}/log",
            "RABBITMQ_PID_FILE": f"{self._folder}/rabbitmq.pid",
            "RABBITMQ_DIST_PORT": str(self._ports["rabbitmq distribution"]),
            # Two schedulers and the distribution on loopback: this node is small and private.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}",
            # No shell between us and the node: our signals reach it, and it stops in order on SIGTERM.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
