"""PIN and TOTP: what is acceptable, how a try is charged, when a code counts. Rules and hashing, no I/O.

A try is charged before it is verified, in a statement of its own that is committed first: of many guesses at once,
no more are verified than there were tries.
"""

import hmac
from dataclasses import replace
from itertools import pairwise

import pyotp
from argon2.low_level import Type, hash_secret_raw

from services.sam.rows import Signer
from shared.errors import Code, RakkanError

PIN_CHARACTERS = range(6, 65)
SALT_BYTES = 16
_STEP_S = 30
_STEPS_AROUND = 1


def check_new_pin(pin: str) -> None:
    """PIN_INVALID with the reason unless the PIN is long enough and not the first one a thief tries."""
    if len(pin) not in PIN_CHARACTERS:
        raise RakkanError(Code.PIN_INVALID, f"a PIN has {PIN_CHARACTERS.start} to {PIN_CHARACTERS.stop - 1} characters")
    steps = {ord(after) - ord(before) for before, after in pairwise(pin)}
    if steps in ({0}, {1}, {-1}):
        raise RakkanError(Code.PIN_INVALID, "a PIN is neither one character repeated nor a simple sequence")


def hash_pin(pin: str, salt: bytes) -> bytes:
    """Argon2id, 64 MiB, 3 passes (RFC 9106 second choice): slow on purpose, call it in a bounded pool."""
    return hash_secret_raw(
        pin.encode(), salt, time_cost=3, memory_cost=65_536, parallelism=1, hash_len=32, type=Type.ID
    )


def charge_pin(signer: Signer) -> Signer:
    """The signer with one PIN try less; PIN_LOCKED when none is left."""
    if signer.pin_tries_left == 0:
        raise RakkanError(Code.PIN_LOCKED)
    return replace(signer, pin_tries_left=signer.pin_tries_left - 1)


def charge_otp(signer: Signer) -> Signer:
    """The signer with one OTP try less; OTP_LOCKED when none is left, FACTOR_UNKNOWN without TOTP."""
    if signer.totp_secret is None:
        raise RakkanError(Code.FACTOR_UNKNOWN, "the signer has no TOTP")
    if signer.otp_tries_left == 0:
        raise RakkanError(Code.OTP_LOCKED)
    return replace(signer, otp_tries_left=signer.otp_tries_left - 1)


def check_pin(signer: Signer, verifier: bytes) -> None:
    """PIN_INVALID unless this is the verifier of the signer's PIN. Without a PIN nothing is."""
    if not signer.pin_verifier or not hmac.compare_digest(signer.pin_verifier, verifier):
        raise RakkanError(Code.PIN_INVALID)


def check_otp(secret: str, otp: str, *, last_step: int, unix_s: float) -> int:
    """The time step of a code that counts: right, within a step of now, and later than the last one that was used.

    RFC 6238 5.2: a code is accepted once. OTP_INVALID otherwise.
    """
    totp = pyotp.TOTP(secret, interval=_STEP_S)
    now_step = int(unix_s) // _STEP_S
    for step in range(now_step - _STEPS_AROUND, now_step + _STEPS_AROUND + 1):
        if step > last_step and hmac.compare_digest(totp.at(step * _STEP_S).encode(), otp.encode()):
            return step
    raise RakkanError(Code.OTP_INVALID)
