"""What every manifest has to say about a room: its settings in a container, its doors, its neighbors."""

from dataclasses import dataclass
from pathlib import Path

from shared.messaging.topology import ROOMS
from shared.trust import Purpose

SERVICES = Path(__file__).parents[2] / "services"
SIDE_PORT = 9090
HTTP_PORT = 8080
UID = 10001
SECRETS = "/var/run/rakkan/secrets"
"""Where a container finds the files of its room, and no other's."""
TRUST = "/var/run/rakkan/trust"
"""The trust bundle, the registry and the CAs' anchors: public, the same in every container."""
REGISTRY = ("gateway", "authentication", "sam", "ca_connector", "tsa_connector")
"""Who works by the registry of trust services."""
TOKENS = ("svg", "sam", "ca_connector")
DOORS = ("gateway", "authentication")
OUTWARD = ("ca_connector", "tsa_connector")
"""Who calls servers outside."""


@dataclass(frozen=True)
class Room:
    """A room in a container."""

    name: str

    @property
    def host(self) -> str:
        """A DNS label: no underscore."""
        return self.name.replace("_", "-")

    @property
    def has_database(self) -> bool:
        return any((SERVICES / self.name / "schema").glob("*.sql"))

    @property
    def has_token(self) -> bool:
        return self.name in TOKENS

    @property
    def has_door(self) -> bool:
        return self.name in DOORS

    @property
    def calls_outside(self) -> bool:
        return self.name in OUTWARD

    def settings(self) -> dict[str, str]:
        """Its environment but for addresses of servers and of the public."""
        environment = {
            "RAKKAN_BROKER__PASSWORD_FILE": f"{SECRETS}/broker_password",
            "RAKKAN_TRUST__BUNDLE_FILE": f"{TRUST}/trust.json",
            "RAKKAN_TRUST__MESSAGES_KEY_FILE": f"{SECRETS}/{Purpose.MESSAGES}.pem",
            "RAKKAN_TRUST__SEALING_KEY_FILE": f"{SECRETS}/{Purpose.SEALING}.pem",
            "RAKKAN_HEALTH__HOST": "0.0.0.0",  # noqa: S104 - inside its container; the network policy says who gets there
            "RAKKAN_HEALTH__PORT": str(SIDE_PORT),
        }
        if self.has_database:
            environment["RAKKAN_DATABASE__PASSWORD_FILE"] = f"{SECRETS}/database_password"
        if self.has_door:
            environment["RAKKAN_HTTP__HOST"] = "0.0.0.0"  # noqa: S104 - likewise
            environment["RAKKAN_HTTP__PORT"] = str(HTTP_PORT)
        if self.has_token:
            environment["RAKKAN_HSM__PIN_FILE"] = f"{SECRETS}/pin"
        if self.name in REGISTRY:
            environment["RAKKAN_REGISTRY__FILE"] = f"{TRUST}/registry.json"
            environment["RAKKAN_REGISTRY__SIGNATURES_FILE"] = f"{TRUST}/registry.json.sig"
            if self.calls_outside:
                environment["RAKKAN_REGISTRY__SECRETS_FOLDER"] = f"{SECRETS}/registry"
        own = {
            "authentication": {"RAKKAN_TOKENS_KEY_FILE": f"{SECRETS}/{Purpose.TOKENS}.pem"},
            "sam": {"RAKKAN_ACTIVATIONS_KEY_FILE": f"{SECRETS}/{Purpose.ACTIVATIONS}.pem"},
        }
        return environment | own.get(self.name, {})


def rooms() -> tuple[Room, ...]:
    return tuple(Room(name) for name in ROOMS)
