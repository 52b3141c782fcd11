"""Which TSAs may be asked for a token, in which order, and why each of the others may not. Rules only.

The same wish, registry, conditions and moment always give the same route: the weight of a TSA decides by the digest
that is to be stamped, not by a die. A TSA outside the class that is wanted is never in the route, whatever is down.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.tsa_connector.memory import Condition, State, is_slow
from shared.algorithms import Hash
from shared.errors import Code, RakkanError
from shared.registry import Registry, TimeStampingAuthority


@dataclass(frozen=True)
class Wish:
    """What somebody wants a token for, as far as it matters for whom to ask."""

    digest: bytes
    hash: Hash
    tenant_id: str
    authority: str | None = None
    assurance_class: str | None = None
    policy: str | None = None
    distinct: int = 1
    for_archive: bool = False


class Standing(StrEnum):
    ASKED = "asked"
    IF_NEEDED = "if needed"
    LEFT_OUT = "left out"


@dataclass(frozen=True)
class Verdict:
    """What the rules say of one TSA for one wish."""

    authority: str
    standing: Standing
    why: str


@dataclass(frozen=True)
class Route:
    choice: str
    """What was chosen by, in words: whom an error names."""
    is_named: bool
    order: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    exhausted: bool = False
    """Every TSA that could have been asked has its quota used up."""


@dataclass(frozen=True)
class Pool:
    """Those that the wish, or the default, leaves to choose from, each open to the tenant."""

    choice: str
    names: tuple[str, ...]
    is_named: bool


def route(registry: Registry, pool: Pool, conditions: Mapping[str, Condition], wish: Wish) -> Route:
    """Whom of the pool to ask, best first. TSA_POLICY_REFUSED or HASH_ALGORITHM_REFUSED when none can ever do it.

    A route without anybody is no refusal of the rules: those who could do it are away for now.
    """
    tsas = {name: registry.time_stamping_authorities[name] for name in pool.names}
    fit = {name: tsa for name, tsa in tsas.items() if _unfit(tsa, wish) is None}
    if not fit:
        raise _nobody_fits(pool, tsas.values(), wish)
    usable = {name: tsa for name, tsa in fit.items() if _away(tsa, conditions[name]) is None}
    fastest_s = min((c.usual_s for name in usable if (c := conditions[name]).usual_s is not None), default=None)
    order = sorted(
        usable,
        key=lambda name: (
            _tier(conditions[name], fastest_s),
            usable[name].cost,
            _turn(name, usable[name].weight, wish.digest),
            name,
        ),
    )
    verdicts = [
        _asked(name, usable[name], conditions[name], fastest_s, is_first=index < wish.distinct)
        for index, name in enumerate(order)
    ]
    for name in sorted(tsas.keys() - usable.keys()):
        why = _unfit(tsas[name], wish) or _away(tsas[name], conditions[name]) or ""
        verdicts.append(Verdict(name, Standing.LEFT_OUT, why))
    if not pool.is_named:
        others = sorted(registry.time_stamping_authorities.keys() - tsas.keys())
        verdicts += [Verdict(name, Standing.LEFT_OUT, f"not in {pool.choice}") for name in others]
    exhausted = all(conditions[name].is_exhausted for name in fit)
    return Route(pool.choice, pool.is_named, tuple(order), tuple(verdicts), exhausted)


def pool_of(registry: Registry, wish: Wish, *, now: datetime) -> Pool:
    """Who is meant. TSA_UNKNOWN when nobody can be."""
    authority, assurance_class, by_default = _choice(registry, wish)
    known = registry.time_stamping_authorities
    open_to = {name for name, tsa in known.items() if tsa.serves(wish.tenant_id)}
    today = now.date()
    if authority is not None:
        # A TSA of others is as unknown as one that is not there.
        if authority not in open_to:
            raise RakkanError(Code.TSA_UNKNOWN, f"there is no time-stamping authority {authority}")
        if assurance_class is not None and not known[authority].in_class(assurance_class, today):
            raise RakkanError(Code.TSA_UNKNOWN, f"{authority} does not stand in the class {assurance_class}")
        return Pool(f"the authority {authority}{by_default}", (authority,), is_named=True)
    assurance_class = assurance_class or ""
    names = sorted(name for name in open_to if known[name].in_class(assurance_class, today))
    if not names:
        raise RakkanError(Code.TSA_UNKNOWN, f"no time-stamping authority stands in the class {assurance_class}")
    return Pool(f"the class {assurance_class}{by_default}", tuple(names), is_named=False)


def _choice(registry: Registry, wish: Wish) -> tuple[str | None, str | None, str]:
    """Authority and class, from the wish or else from the default, and the words for where they are from."""
    if wish.authority is not None or wish.assurance_class is not None:
        return wish.authority, wish.assurance_class, ""
    default = registry.defaults.timestamps
    if default is None:
        raise RakkanError(Code.TSA_UNKNOWN, "neither an authority nor a class was named, and there is no default")
    if wish.for_archive and default.archive_authority is not None:
        return default.archive_authority, None, ", the default for archives"
    return default.authority, default.assurance_class, ", the default"


def _unfit(tsa: TimeStampingAuthority, wish: Wish) -> str | None:
    """Why it can never do this; nothing when it can."""
    if wish.hash not in tsa.hashes:
        return f"takes no {wish.hash} digests"
    if wish.policy is not None and not _can_name(tsa, wish.policy):
        return f"does not stamp under {wish.policy}"
    return None


def _can_name(tsa: TimeStampingAuthority, policy: str) -> bool:
    if policy in tsa.policies:
        return True
    return not tsa.policies and not tsa.ignores_policy


def _nobody_fits(pool: Pool, tsas: Iterable[TimeStampingAuthority], wish: Wish) -> RakkanError:
    if not any(wish.hash in tsa.hashes for tsa in tsas):
        return RakkanError(Code.HASH_ALGORITHM_REFUSED, f"{pool.choice} takes no {wish.hash} digests")
    return RakkanError(Code.TSA_POLICY_REFUSED, f"{pool.choice} does not stamp under {wish.policy}")


def _away(tsa: TimeStampingAuthority, condition: Condition) -> str | None:
    """Why it is not to be asked now; nothing when it is."""
    if tsa.status == "maintenance":
        return "in maintenance"
    if condition.state is State.RESTING:
        return condition.why
    if condition.is_exhausted:
        return "its quota is used up"
    return None


def _tier(condition: Condition, fastest_s: float | None) -> int:
    """Those who work well first and one that is being tried again with them; then the slow, then the doubtful."""
    if condition.state is State.BEING_TRIED:
        return 2
    if condition.state is State.ON_TRIAL:
        return 0
    return 1 if is_slow(condition.usual_s, fastest_s) else 0


def _turn(name: str, weight: int, digest: bytes) -> float:
    """Smaller is earlier. Over many digests each is first as often as its weight says (rendezvous hashing)."""
    drawn = hashlib.sha256(name.encode() + b"\0" + digest).digest()[:8]
    share = (int.from_bytes(drawn, "big") + 1) / (2**64 + 1)
    return -math.log(share) / weight


def _asked(
    name: str, tsa: TimeStampingAuthority, condition: Condition, fastest_s: float | None, *, is_first: bool
) -> Verdict:
    words = [f"cost {tsa.cost}", f"weight {tsa.weight}", condition.why]
    if condition.usual_s is not None:
        slow = "slow, " if is_slow(condition.usual_s, fastest_s) else ""
        words.append(f"{slow}usually {condition.usual_s * 1000:.0f} ms")
    return Verdict(name, Standing.ASKED if is_first else Standing.IF_NEEDED, ", ".join(filter(None, words)))
