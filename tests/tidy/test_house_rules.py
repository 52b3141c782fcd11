"""House rules that a reader can check in one file: words that are banned, sizes, first lines, reasons for opt-outs."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = sorted(path for top in ("shared", "services", "deploy") for path in (ROOT / top).rglob("*.py"))
EVERYTHING = PRODUCT + sorted((ROOT / "tests").rglob("*.py"))
FUNCTION_LINES_MAX = 50
MODULE_LINES_MAX = 400
TALKS_TO_A_TERMINAL = ("deploy/local", "services/operator")

BANNED_CALLS = {
    "time.time": "datetime.now(UTC), or time.monotonic() for durations",
    "datetime.utcnow": "datetime.now(UTC)",
    "eval": "a parser",
    "exec": "a function",
}
BANNED_IMPORTS = {
    "pickle": "a pydantic model in JSON",
    "random": "secrets",
    "aio_pika.patterns": "shared.messaging (it pickles)",
    "oscrypto": "cryptography",
}
BANNED_ATTRIBUTES = {"default_exchange": "the listener's own exchange: nobody may write to the default one"}
ONLY_IN = {
    "aio_pika": ("shared/messaging",),
    "aiormq": ("shared/messaging",),
    "pkcs11": ("shared/hsm",),
    "webauthn": ("services/sam/evidence",),
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules(paths: list[Path]) -> Iterator[tuple[Path, ast.Module]]:
    for path in paths:
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def found(faults: Iterator[str]) -> None:
    listed = sorted(set(faults))
    if listed:
        pytest.fail("\n".join(listed), pytrace=False)


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_a_file_says_in_its_first_line_what_it_knows() -> None:
    found(f"{name(path)}: no docstring" for path, tree in modules(EVERYTHING) if not ast.get_docstring(tree))


def test_modules_and_functions_stay_small() -> None:
    def faults() -> Iterator[str]:
        for path, tree in modules(PRODUCT):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > MODULE_LINES_MAX:
                yield f"{name(path)}: {lines} lines, more than {MODULE_LINES_MAX}"
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    size = (node.end_lineno or node.lineno) - node.lineno + 1
                    if size > FUNCTION_LINES_MAX:
                        yield f"{name(path)}:{node.lineno}: {node.name} has {size} lines, not {FUNCTION_LINES_MAX}"

    found(faults())


def test_banned_modules_are_not_imported() -> None:
    found(
        f"{name(path)}:{line}: not {module}, but {instead}"
        for path, tree in modules(PRODUCT)
        for line, module in imports(tree)
        for banned, instead in BANNED_IMPORTS.items()
        if module == banned or module.startswith(f"{banned}.")
    )


def test_one_adapter_knows_each_foreign_library() -> None:
    found(
        f"{name(path)}:{line}: only {' and '.join(homes)} may import {library}"
        for path, tree in modules(PRODUCT)
        for line, module in imports(tree)
        for library, homes in ONLY_IN.items()
        if module.split(".")[0] == library and not name(path).startswith(homes)
    )


def test_banned_calls_are_not_made() -> None:
    def faults() -> Iterator[str]:
        for path, tree in modules(PRODUCT):
            for node in ast.walk(tree):
                where = f"{name(path)}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.Attribute) and node.attr in BANNED_ATTRIBUTES:
                    yield f"{where}: not {node.attr}, but {BANNED_ATTRIBUTES[node.attr]}"
                if not isinstance(node, ast.Call):
                    continue
                called = ast.unparse(node.func)
                if called in BANNED_CALLS:
                    yield f"{where}: not {called}(), but {BANNED_CALLS[called]}"
                if called.endswith("datetime.now") and not node.args and not node.keywords:
                    yield f"{where}: not {called}(), but datetime.now(UTC)"
                if called.endswith("message.process"):
                    yield f"{where}: not message.process(), but ack and reject where they are decided"
                if called == "print" and not name(path).startswith(TALKS_TO_A_TERMINAL):
                    yield f"{where}: not print(), but a log event"

    found(faults())


def test_input_is_never_checked_by_assert() -> None:
    found(
        f"{name(path)}:{node.lineno}: not assert, but a refusal: python -O leaves assertions out"
        for path, tree in modules(PRODUCT)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    )


def test_broad_catches_stand_only_at_dispatch_and_at_the_http_edge() -> None:
    allowed = ("shared/messaging/", "shared/http.py", "shared/health.py")
    found(
        f"{name(path)}:{node.lineno}: catch what you can answer, not {ast.unparse(node.type) if node.type else 'all'}"
        for path, tree in modules(PRODUCT)
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"})
        and not name(path).startswith(allowed)
        and not (node.body and isinstance(node.body[-1], ast.Raise))
    )


def test_sql_names_its_columns() -> None:
    star = re.compile(r"select\s+\*|returning\s+\*", re.IGNORECASE)
    texts = [*PRODUCT, *(ROOT / "services").rglob("*.sql"), *(ROOT / "shared").rglob("*.sql")]
    found(
        f"{name(path)}:{number}: name the columns"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if star.search(line)
    )


def test_an_opt_out_carries_its_reason() -> None:
    opt_out = re.compile(r"#\s*(noqa|type:\s*ignore|pragma|fmt:\s*(?:skip|off))(?P<rest>.*)", re.IGNORECASE)
    reason = re.compile(r"(?:\s+-\s|\s*#\s+)\S")

    def faults() -> Iterator[str]:
        for path in EVERYTHING:
            readline = io.StringIO(path.read_text(encoding="utf-8")).readline
            for token in tokenize.generate_tokens(readline):
                match = opt_out.match(token.string) if token.type == tokenize.COMMENT else None
                if match and not match[1].lower().startswith("fmt") and not reason.search(match["rest"]):
                    yield f"{name(path)}:{token.start[0]}: {token.string} (say why, on the same line)"

    found(faults())


def test_nothing_is_left_to_do() -> None:
    marker = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    here = Path(__file__)
    found(
        f"{name(path)}:{number}: do it now, or open an issue"
        for path in EVERYTHING
        if path != here
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marker.search(line)
    )
