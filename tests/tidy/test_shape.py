"""The shape of the house: rooms alike, routes served, codes in CSC words, generated files as their sources say."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from deploy import settings_page
from deploy.rabbitmq import __main__ as rabbitmq_definitions
from shared.errors import Code
from shared.messaging.topology import LISTENERS, ROOMS, ROUTES

ROOT = Path(__file__).parents[2]
SERVICES = ROOT / "services"


def trees(folder: Path) -> list[ast.Module]:
    return [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))]


def imported(tree: ast.Module) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


def test_every_room_has_the_same_file_names() -> None:
    for room in ROOMS:
        folder = SERVICES / room
        for file in ("__init__.py", "__main__.py", "settings.py", "README.md"):
            assert (folder / file).exists(), f"services/{room}/{file} is missing"
        if room in LISTENERS:
            assert (folder / "handlers.py").exists() or (folder / "handlers").is_dir(), (
                f"services/{room} has no handlers"
            )


def test_no_folder_of_services_is_unknown() -> None:
    folders = {path.name for path in SERVICES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= {*ROOMS, "operator"}


def test_shared_is_shared() -> None:
    users: dict[str, set[str]] = {}
    for place in [*(SERVICES / room for room in (*ROOMS, "operator")), ROOT / "shared", ROOT / "deploy"]:
        for path in place.rglob("*.py"):
            for module in imported(ast.parse(path.read_text(encoding="utf-8"))):
                users.setdefault(module, set()).add(place.name)
    lonely = []
    for path in sorted((ROOT / "shared").rglob("*.py")):
        if path.name == "__init__.py":
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        by = users.get(module, set())
        if len(by) < 2 and not by & {"shared"}:
            lonely.append(f"{module} is used by {', '.join(sorted(by)) or 'nobody'} alone: move it there")
    assert not lonely, "\n".join(lonely)


def test_every_route_has_a_handler_at_its_listener() -> None:
    missing = []
    for listener in LISTENERS:
        handled = {
            key.attr if isinstance(key, ast.Attribute) else getattr(key, "id", "")
            for tree in trees(SERVICES / listener)
            for node in ast.walk(tree)
            if isinstance(node, ast.Dict)
            for key in node.keys
        }
        mine = [route.message for route in ROUTES.values() if route.listener == listener]
        missing += [f"nothing handles {message.TYPE}" for message in mine if message.__name__ not in handled]
    assert not missing, "\n".join(missing)


def test_every_message_has_a_route() -> None:
    for listener in LISTENERS:
        contracts = importlib.import_module(f"shared.contracts.{listener}")
        for name, value in vars(contracts).items():
            type_ = getattr(value, "TYPE", None)
            if isinstance(type_, str) and value.__module__ == contracts.__name__:
                assert type_ in ROUTES, f"shared.contracts.{listener}.{name} has no route"
                assert ROUTES[type_].message is value


def test_every_error_code_has_a_row_in_csc_words() -> None:
    refusals = importlib.import_module("services.gateway.refusals").REFUSALS
    assert [code for code in Code if code not in refusals] == []


def test_every_setting_is_documented() -> None:
    written = settings_page.FILE.read_text(encoding="utf-8")
    assert written == settings_page.page(), "run: python -m deploy.settings_page --write"


def test_rabbitmq_definitions_equal_the_topology() -> None:
    written = rabbitmq_definitions.FILE.read_text(encoding="utf-8")
    assert written == rabbitmq_definitions.text(), "run: python -m deploy.rabbitmq --write"


LOCKS = ("requirements.lock", "requirements-dev.lock")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_place_to_fetch_from(name: str) -> None:
    lock = (ROOT / name).read_text(encoding="utf-8")
    assert "http://" not in lock
    assert "https://" not in lock
    assert "--index-url" not in lock


def test_what_is_tested_is_what_runs() -> None:
    runs, tested = (
        set(re.findall(r"^(\S+==\S+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)) for name in LOCKS
    )
    assert runs <= tested
