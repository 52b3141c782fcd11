"""Where a stack keeps its data: `.run` in the checkout, or elsewhere when its user could not walk there."""

import hashlib
import tempfile
from pathlib import Path

from deploy.local.account import Account, passable
from deploy.local.program import StackError

CHECKOUT = Path(__file__).resolve().parents[2]


def run_folder(account: Account, checkout: Path = CHECKOUT) -> Path:
    """The folder, made if missing. A checkout under /root gets one in /var/tmp, and `.run` is a link to it."""
    here = checkout / ".run"
    if not account.dropped or passable(checkout):
        if here.is_symlink():
            here.unlink()
        folder = here
    else:
        folder = Path("/var/tmp") / f"rakkan-{hashlib.sha256(str(checkout).encode()).hexdigest()[:12]}"  # noqa: S108 - its owner is checked below
        if not here.exists() and not here.is_symlink():
            here.symlink_to(folder)
    if folder.is_symlink() or (folder.exists() and folder.stat().st_uid not in {account.uid, Account.of_caller().uid}):
        raise StackError(f"{folder} belongs to somebody else. Remove it, or run as its owner.")
    # Ours, not the account's: what runs there must not be able to replace our pid files.
    return Account.of_caller().folder(folder, mode=0o711)


def temporary_run_folder() -> Path:
    """For tests: a short path that an unprivileged account can walk to, which pytest's own is not."""
    return Account.of_caller().folder(Path(tempfile.mkdtemp(prefix="rakkan-")).resolve(), mode=0o711)
