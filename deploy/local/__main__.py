"""The commands behind `./rakkan`: what each does is in the file it calls."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deploy.local import packages
from deploy.local.home import CHECKOUT
from deploy.local.program import StackError
from deploy.local.progress import Progress
from deploy.local.stack import Stack

HELP = """\
Rakkan: a remote signing service. Signing keys stay in an HSM; partners sign through the CSC API.

  ./rakkan demo            starts everything, signs a real PDF, has another approved: the first thing to try
  ./rakkan up              starts everything and leaves it running; safe to repeat
  ./rakkan down            stops everything; the data stays in .run
  ./rakkan status          what runs, where, and whether it is ready
  ./rakkan logs [ROOM]     the last lines of all logs, or follows one
  ./rakkan operator ...    tenants, clients, signers, credentials (--help tells more)
  ./rakkan ca [orders]     tests the certification authorities and shows how they and their orders stand
  ./rakkan tsa [explain]   how the time-stamping authorities stand; whom it would ask for a token and why
  ./rakkan registry ...    which CAs and TSAs there are: check and sign (--help tells more)
  ./rakkan test [...]      the whole test suite; what follows goes to pytest
  ./rakkan check           style, types, imports and the house rules
  ./rakkan bench [...]     measures speed on this machine (--help tells more)

  --install                lets a command install missing Debian packages through sudo

Everything runs as private instances on free loopback ports, under .run; nothing of your system is changed.
To begin anew: ./rakkan down && rm -rf .run
"""


@dataclass(frozen=True)
class Words:
    """What followed the command's name, and whether missing packages may be installed."""

    arguments: tuple[str, ...]
    install: bool


Command = Callable[[Words], int]


def demo(words: Words) -> int:
    from deploy.local.demo import run  # noqa: PLC0415 - pyHanko takes a second to load, and only the demo needs it

    progress = Progress()
    packages.ensure(progress, may_use_sudo=words.install)
    run(Stack.of_checkout(), progress, may_use_sudo=words.install)
    return 0


def up(words: Words) -> int:
    progress = Progress()
    packages.ensure(progress, may_use_sudo=words.install)
    stack = Stack.of_checkout()
    stack.up(progress)
    progress.say(f"\nUp after {progress.seconds:.1f} s. Partners' door: {stack.rooms.gateway_url}")
    return 0


def down(_words: Words) -> int:
    Stack.of_checkout().down(Progress())
    return 0


def status(_words: Words) -> int:
    rows = Stack.of_checkout().state()
    for name, state, where in rows:
        print(f"{name:<15} {state:<18} {where}")
    return 0 if all(state in {"up", "ready"} for _, state, _ in rows) else 1


def logs(words: Words) -> int:
    folder = Stack.of_checkout().folder / "logs"
    files = [folder / f"{name}.log" for name in words.arguments] or sorted(folder.glob("*.log"))
    absent = [file.stem for file in files if not file.exists()]
    if absent or not files:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.log"))) or "none yet: ./rakkan up first"
        raise StackError(f"No log of {', '.join(absent) or 'anything'}. There are: {known}")
    follow = ["-F"] if words.arguments else []
    os.execvp("tail", ["tail", "-n", "40", *follow, *map(str, files)])  # noqa: S606 - no shell wanted


def operator(words: Words) -> int:
    stack = Stack.of_checkout()
    if not stack.rabbitmq.running():
        raise StackError("Rakkan is down. Start it first: ./rakkan up")
    argv, environment = stack.rooms.operator(words.arguments)
    identity = stack.rooms.account.identity()
    return subprocess.run(argv, env=environment, cwd=CHECKOUT, check=False, **identity).returncode


def ca(words: Words) -> int:
    return operator(Words(("ca", *words.arguments), words.install))


def tsa(words: Words) -> int:
    return operator(Words(("tsa", *words.arguments), words.install))


def registry(words: Words) -> int:
    """An officer's tool: it works with her files, as herself, and needs nothing that runs."""
    argv = [sys.executable, "-m", "services.operator.registry", *words.arguments]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(argv, env=environment, cwd=os.environ.get("OLDPWD"), check=False).returncode


def check(_words: Words) -> int:
    python = [sys.executable, "-m"]
    steps: Mapping[str, list[str]] = {
        "ruff check": [*python, "ruff", "check", "."],
        "ruff format --check": [*python, "ruff", "format", "--check", "."],
        "mypy --strict": [*python, "mypy"],
        "import-linter": [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        "house rules (tests/tidy)": [*python, "pytest", "-q", "-p", "no:cacheprovider", "tests/tidy"],
    }
    progress = Progress()
    failed = []
    for what, argv in steps.items():
        try:
            with progress.step(what):
                _run_quietly(argv)
        except StackError as error:
            progress.say(str(error))
            failed.append(what)
    progress.say(f"Failed: {', '.join(failed)}" if failed else f"All good after {progress.seconds:.0f} s.")
    return 1 if failed else 0


def _run_quietly(argv: list[str]) -> None:
    """Its output is shown only when it fails."""
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError((done.stdout + done.stderr).strip()[-6000:])


def test(words: Words) -> int:
    packages.ensure(Progress(), may_use_sudo=words.install, needed=packages.FOR_TESTS)
    return subprocess.run([sys.executable, "-m", "pytest", *words.arguments], cwd=CHECKOUT, check=False).returncode


def bench(words: Words) -> int:
    packages.ensure(Progress(), may_use_sudo=words.install)
    return subprocess.run([sys.executable, "-m", "tests.bench", *words.arguments], cwd=CHECKOUT, check=False).returncode


COMMANDS: Mapping[str, Command] = {
    "demo": demo,
    "up": up,
    "down": down,
    "status": status,
    "logs": logs,
    "operator": operator,
    "ca": ca,
    "tsa": tsa,
    "registry": registry,
    "test": test,
    "check": check,
    "bench": bench,
}


def main(argv: list[str]) -> int:
    """The exit status: 0 well, 1 a fault, 2 not understood."""
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(HELP, end="")
        return 0
    install = "--install" in argv[:2]
    rest = [word for word in argv[:2] if word != "--install"] + argv[2:]
    if not rest or rest[0] not in COMMANDS:
        sys.stderr.write(f"./rakkan does not know: {shlex.join(argv)}\n\n{HELP}")
        return 2
    try:
        return COMMANDS[rest[0]](Words(tuple(rest[1:]), install))
    except StackError as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. ./rakkan down stops what runs.\n")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
