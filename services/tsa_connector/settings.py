"""What an operator can set for the TSA connector. The TSAs themselves stand in the registry."""

from pydantic import Field

from shared.settings import Database, RegistryFiles, RoomSettings, Section


class Readers(Section):
    """The processes in which everything from outside is parsed: what one of them may use up."""

    processes: int = Field(default=2, ge=1, le=64)
    memory_bytes: int = Field(default=134_217_728, ge=33_554_432)
    """Beyond the program itself."""
    cpu_s: float = Field(default=1.0, gt=0)
    """For one answer, in processor time."""
    wait_s: float = Field(default=3.0, gt=0)
    """For one answer, by the clock."""


class Settings(RoomSettings):
    database: Database
    registry: RegistryFiles
    readers: Readers = Readers()
