"""The HSM: the only package that imports pkcs11. Foreign types, exceptions and threads stop here."""

from shared.hsm.session import Session
from shared.hsm.token import Token

__all__ = ["Session", "Token"]
