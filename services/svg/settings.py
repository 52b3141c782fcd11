"""What the SVG is told from outside."""

from shared.algorithms import KeyAlgorithm
from shared.settings import HSM, Database, RoomSettings, Section


class KeyPool(Section):
    """RSA keys made in advance while the room is idle: making one takes 0.2 s to several seconds of the HSM."""

    rsa2048: int = 0
    rsa3072: int = 2
    rsa4096: int = 0
    idle_s: float = 5.0
    """How long nobody must have asked for anything before one key is made."""

    @property
    def targets(self) -> dict[KeyAlgorithm, int]:
        return {
            KeyAlgorithm.RSA2048: self.rsa2048,
            KeyAlgorithm.RSA3072: self.rsa3072,
            KeyAlgorithm.RSA4096: self.rsa4096,
        }


class Settings(RoomSettings):
    database: Database
    hsm: HSM
    kek: str = "kek-1"
    """Label of the KEK for new keys. Older keys name their own."""
    key_pool: KeyPool = KeyPool()
    workers: int = 1
    """Processes on this host, each with its own PKCS#11 thread; more than one are supervised."""
