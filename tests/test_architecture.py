"""The house keeps its shape: import contracts, budgets, words, and a deliberate violation of each.

In: the source tree as text (ast), and the recipes of `make lint` run on copies of it. Out: a failure that names the
file and the rule. A check that nothing can fail is no check, so each one here is also shown a tree that breaks it.
"""

from __future__ import annotations

import ast
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "appid"
BIN = Path(sys.executable).parent

FILE_CAP, FILE_MEDIAN, FUNCTION_P90 = 600, 160, 40
"""Physical lines: design's budgets."""

PROTOCOLS_WITHOUT_DECODER = {
    "icmp": "IP protocol 1; netfilter's word in chains",
    "gre": "IP protocol 47, named from the IP header",
    "esp": "IP protocol 50, named from the IP header",
    "6in4": "IP protocol 41, named from the IP header",
    "gtp": "encapsulation, named and not looked through",
    "teredo": "encapsulation, named and not looked through",
    "vxlan": "encapsulation, named and not looked through",
}
"""Names of rules/apps that code may say although no decoder is called so: they are protocols in their own right."""

STANDARD_TEXT = re.compile(r"jabber:[a-z:]+|etherx\.jabber\.org")
"""Names that a standard put on the wire: the namespaces of XMPP (RFC 6120 section 11.2) say what it was once called."""

UNMIRRORED: dict[str, str] = {"alg/names.py": "a question without an answer: those who answer it are tested"}
"""Modules with functions and no test file of the same name, with the reason: "cli/x.py": "why"."""


# ---- the tree as text ----------------------------------------------------------------------------------------------


def modules(package: Path = PACKAGE) -> list[Path]:
    return sorted(path for path in package.rglob("*.py") if "__pycache__" not in path.parts)


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines())


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def p90(values: list[int]) -> int:
    """The smallest value that at least nine in ten do not exceed."""
    return sorted(values)[math.ceil(0.9 * len(values)) - 1]


def docstrings(tree: ast.AST) -> set[int]:
    """Ids of the constants that are prose: docstrings, and bare strings that explain the assignment above them."""
    return {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def said(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of each identifier and each string that the program uses; comments and docstrings are prose."""
    tree = ast.parse(path.read_text())
    prose = docstrings(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Constant(value=str() as text) if id(node) not in prose:
                yield line, text
            case ast.Constant(value=bytes() as raw):
                yield line, raw.decode("latin-1")
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str() as name):
                yield line, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield line, name
            case ast.alias(name=name, asname=asname):
                yield line, f"{name} {asname or ''}"


def words(text: str) -> str:
    """ "FaceTimeRelay", "face_time.relay" -> lower-case words joined by "-", so that names compare as whole words."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", text)
    return "-" + re.sub(r"[^a-z0-9]+", "-", split.lower()).strip("-") + "-"


@cache
def spelled(raw: str) -> str:
    text = STANDARD_TEXT.sub("", raw)
    return f"{words(text)} {words(text.lower())}"  # FaceTime is written with a capital inside


def names_in(path: Path, names: set[str]) -> list[str]:
    """Which of `names` the program text of `path` uses, as "line: name"."""
    wanted = [(name, f"-{name}-") for name in sorted(names)]
    return [f"{line}: {name}" for line, raw in said(path) for name, part in wanted if part in spelled(raw)]


def applications() -> set[str]:
    return {path.stem for path in (ROOT / "rules" / "apps").glob("*.toml")}


def decoder_names() -> set[str]:
    """What decoders call themselves: their modules, and the layers they make."""
    names = set()
    for path in modules(PACKAGE / "decode"):
        names.add(path.stem)
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="Layer" | "Decoder"), args=[ast.Constant(value=str() as name), *_]):
                    names.add(name)
    return names


def tracked() -> list[Path]:
    """The files of the product: what git tracks, or all but build products where there is no git."""
    try:
        run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        return [ROOT / name for name in run.stdout.split("\0") if name and (ROOT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        skip = {".git", ".venv", "build", "dist", "__pycache__"}
        return [path for path in ROOT.rglob("*") if path.is_file() and not skip & set(path.relative_to(ROOT).parts)]


# ---- budgets -------------------------------------------------------------------------------------------------------


def test_no_file_is_longer_than_the_cap() -> None:
    long = {str(path.relative_to(ROOT)): lines_of(path) for path in modules() + modules(ROOT / "tests")}
    assert {path: count for path, count in long.items() if count > FILE_CAP} == {}


def test_the_median_module_is_short() -> None:
    assert statistics.median(lines_of(path) for path in modules()) <= FILE_MEDIAN


def test_nine_functions_in_ten_are_short() -> None:
    lengths = [length(node) for path in modules() for node in functions(ast.parse(path.read_text()))]
    assert p90(lengths) <= FUNCTION_P90


def test_p90_is_counted_from_the_top() -> None:
    assert p90([*range(1, 11)]) == 9
    assert p90([1] * 8 + [50, 60]) == 50


def test_each_module_opens_with_what_it_is() -> None:
    bare = [str(path.relative_to(ROOT)) for path in modules() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert bare == []


def test_each_function_is_annotated() -> None:
    """mypy --strict says so too; this holds for code that a `type: ignore` hides."""
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in modules()
        for node in functions(ast.parse(path.read_text()))
        if node.returns is None
    ]
    assert bare == []


# ---- words ---------------------------------------------------------------------------------------------------------


def test_code_names_no_application() -> None:
    """A new application costs one TOML file: code that says its name would have to change with it."""
    names = applications() - decoder_names() - PROTOCOLS_WITHOUT_DECODER.keys()
    assert applications() == set() or "facetime" in names
    found = [f"{path.relative_to(ROOT)}:{place}" for path in modules() for place in names_in(path, names)]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        'NAME = "facetime"',
        "def is_facetime() -> bool: ...",
        "FACETIME_PORTS = (16402,)",
        "class FaceTime: ...",
        "class FacetimeRelay: ...",
        'if name.startswith("facetime-"): ...',
        'RAW = b"facetime"',
        "from appid.identify import facetime",
    ],
)
def test_an_application_named_in_code_is_found(tmp_path: Path, line: str) -> None:
    source = tmp_path / "module.py"
    source.write_text(f'"""Prose may say FaceTime."""\n\n{line}\n')
    assert names_in(source, {"facetime"}) == ["3: facetime"]


def test_prose_and_longer_words_are_not_names(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text('"""facetime"""\n\nPORT = 16402\n"""facetime\'s media port"""\n# facetime\nNOT = "stunning"\n')
    assert names_in(source, {"facetime", "stun"}) == []


def test_exceptions_to_the_names_are_still_needed() -> None:
    """An excuse that nothing uses any more must go."""
    allowed = set(PROTOCOLS_WITHOUT_DECODER)
    said_names = {place.partition(": ")[2] for path in modules() for place in names_in(path, allowed)}
    unused = {name for name in PROTOCOLS_WITHOUT_DECODER if name in decoder_names() or name not in said_names}
    assert unused == set()


def test_no_room_is_called_after_nothing() -> None:
    empty = {"utils", "util", "common", "helpers", "helper", "models", "misc"}
    folders = {path for path in PACKAGE.rglob("*") if path.is_dir()}
    assert [str(path) for path in [*modules(), *folders] if path.stem in empty] == []


# ---- tests mirror the package --------------------------------------------------------------------------------------


def has_functions(path: Path) -> bool:
    return any(True for _ in functions(ast.parse(path.read_text())))


def mirror(path: Path) -> Path:
    """appid/x/y.py -> tests/x/test_y.py; appid/x/__init__.py -> tests/x/test_x.py; appid/__init__.py: test_appid.py."""
    inside = path.relative_to(PACKAGE)
    stem = inside.parent.name or PACKAGE.name if inside.stem == "__init__" else inside.stem
    return ROOT / "tests" / inside.parent / f"test_{stem}.py"


def test_tests_mirror_the_package() -> None:
    unmirrored = {
        str(path.relative_to(PACKAGE)) for path in modules() if has_functions(path) and not mirror(path).exists()
    }
    assert unmirrored - UNMIRRORED.keys() == set(), "no test file of the same name"
    assert UNMIRRORED.keys() - unmirrored == set(), "listed without need"


# ---- nothing of the machine it was made on -------------------------------------------------------------------------

MACHINE = re.compile(r"/(?:work|root|home)/[a-z.]|[.]pyenv|py[p]i[.]org|python[h]osted[.]org|--index-url [h]ttp")


def test_no_file_names_a_machine() -> None:
    found = []
    for path in tracked():
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in MACHINE.finditer(text)]
    assert found == []


def test_a_machine_path_is_found() -> None:
    assert MACHINE.search("captures in /" + "work/shared")
    assert not MACHINE.search("../shared/captures, the work/home balance")


def test_every_locked_package_has_a_hash() -> None:
    for lock in (*ROOT.glob("requirements*.lock"), ROOT / "tests/bench/requirements.lock"):
        text = lock.read_text()
        pins = re.findall(r"^[a-z0-9-]+==\S+(.*)$", text, re.MULTILINE)
        assert pins, lock.name
        assert all(rest.strip() == "\\" for rest in pins), lock.name
        assert "://" not in text, lock.name


# ---- each contract is shown a violation ----------------------------------------------------------------------------


def contracts() -> list[str]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [contract["name"] for contract in config["tool"]["importlinter"]["contracts"]]


LAYERS, PURE, DPKT, NO_DECODE, STRANGERS = (
    "layers",
    "pure core: no effects below edge",
    "only packet and the capture reader import dpkt",
    "identify, policy and dataplane never import decode",
    "decoders are strangers to each other",
)


def test_these_are_the_contracts() -> None:
    assert contracts() == [LAYERS, PURE, DPKT, NO_DECODE, STRANGERS]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package with its configuration; no tests, so that mypy and ruff are quick."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("appid", "rules"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", tmp_path / ".mypy_cache")
    config = (ROOT / "pyproject.toml").read_text().replace('packages = ["appid", "tests"]', 'packages = ["appid"]')
    (tmp_path / "pyproject.toml").write_text(config)
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def make(place: Path, target: str) -> tuple[int, str]:
    """`make TARGET` in `place`, nothing installed: exit status and output on one line."""
    command = ["make", "--no-print-directory", target, "SETUP=:", f"VENV={BIN.parent}"]
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    environment |= {"PYTHONPATH": str(place), "COLUMNS": "200", "NO_COLOR": "1"}
    run = subprocess.run(command, cwd=place, capture_output=True, text=True, env=environment, timeout=300)
    return run.returncode, re.sub(r"\s+", " ", run.stdout + run.stderr)


def test_the_tree_as_it_is_keeps_them(copy: Path) -> None:
    status, output = make(copy, "imports")
    assert status == 0, output
    for name in contracts():
        assert f"{name} KEPT" in output


def append(path: Path, statement: str) -> None:
    """A module that breaks a rule and is otherwise what ruff wants."""
    text = path.read_text() if path.exists() else '"""A violation."""\n'
    path.write_text(f"{text}\n\ndef violation() -> None:\n    {statement}  # noqa\n")


@pytest.mark.parametrize(
    ("contract", "module", "statement"),
    [
        pytest.param(LAYERS, "wire.py", "import appid.packet", id="upwards"),
        pytest.param(LAYERS, "flow/key.py", "import appid.decode.stun", id="neighbours"),
        pytest.param(LAYERS, "alg/expectation.py", "import appid.policy", id="policy | alg"),
        pytest.param(LAYERS, "engine.py", "import appid.edge", id="engine to edge"),
        pytest.param(PURE, "engine.py", "import time", id="a clock"),
        pytest.param(PURE, "decode/stun.py", "import socket", id="a socket"),
        pytest.param(PURE, "dataplane/command.py", "import pyroute2", id="the kernel"),
        pytest.param(DPKT, "flow/key.py", "import dpkt", id="dpkt in flow"),
        pytest.param(DPKT, "edge/violation.py", "import dpkt", id="dpkt in another file of edge"),
        pytest.param(NO_DECODE, "identify/identification.py", "import appid.decode.stun", id="identify"),
        pytest.param(NO_DECODE, "policy/__init__.py", "import appid.decode.stun", id="policy"),
        pytest.param(NO_DECODE, "dataplane/command.py", "import appid.decode", id="dataplane"),
        pytest.param(STRANGERS, "decode/turn.py", "import appid.decode.stun", id="turn to stun"),
    ],
)
def test_a_contract_that_is_broken_fails_and_is_named(copy: Path, contract: str, module: str, statement: str) -> None:
    append(copy / "appid" / module, statement)
    status, output = make(copy, "imports")
    assert status != 0
    assert f"{contract} BROKEN" in output


@pytest.mark.parametrize("room", ["utils", "common", "helpers", "models", "anything"])
def test_a_room_that_is_not_on_the_list_fails(copy: Path, room: str) -> None:
    (copy / "appid" / room).mkdir()
    (copy / "appid" / room / "__init__.py").write_text('"""A room without a name of its own."""\n')
    status, output = make(copy, "imports")
    assert status != 0
    assert f"appid.{room}" in output
    assert LAYERS in output


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ('WRONG: int = "text"\n', "Incompatible types in assignment"),
        ("def naked(x):  # noqa\n    return x\n", "Function is missing a type annotation"),
        ("BARE: list = []\n", "Missing type arguments for generic type"),
    ],
)
def test_what_mypy_refuses_fails(copy: Path, source: str, error: str) -> None:
    (copy / "appid" / "policy" / "violation.py").write_text(f'"""A violation."""\n\n\n{source}')
    status, output = make(copy, "types")
    assert status != 0
    assert f"appid/policy/violation.py:4: error: {error}" in output


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("import json\n", "F401"),
        ("def naked(x):\n    return x\n", "ANN001"),
        ("A  =  1\n", "1 file would be reformatted"),
    ],
)
def test_what_ruff_refuses_fails(copy: Path, source: str, code: str) -> None:
    shutil.rmtree(copy / "appid")
    (copy / "violation.py").write_text(f'"""A violation."""\n\n{source}')
    status, output = make(copy, "ruff")
    assert status != 0
    assert code in output


def test_check_and_test_run_lint() -> None:
    """`make check` and `make test` go through the same recipes as the violations above."""
    for target in ("check", "test"):
        command = ["make", "--no-print-directory", "-n", target]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        for tool in ("ruff check", "ruff format --check", "lint-imports", "mypy"):
            assert tool in run.stdout, f"make {target} does not run {tool}"
        assert "/pytest " in run.stdout.rpartition("/mypy")[2], "and the tests after them"
