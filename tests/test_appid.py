"""Compiled modules stand in for the text they are of, and for no other; and they say the same.

In: a copy of appid/ beside a build/native whose modules cannot be loaded, so that choosing them shows. Out: which is
imported. Then this tree's own compiled modules, where packaging/compile has made them, against its text.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import appid
from tests.corpus.sessions import build

TAKEN = "import appid; appid.prefer_compiled(); import appid.wire"
COMMAND = "import sys; from appid.cli.main import main; main(); import appid.wire"
ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "captures"


def python(root: Path, *arguments: str, interpreted: bool = False) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(root), "APPID_INTERPRETED": "1" if interpreted else ""}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The tree with the sums of its sources, and an extension module that is none."""
    shutil.copytree(ROOT / "appid", tmp_path / "appid", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "packaging", tmp_path / "packaging")
    native = tmp_path / "build" / "native"
    (native / "appid").mkdir(parents=True)
    (native / "appid" / f"wire{EXTENSION_SUFFIXES[0]}").write_bytes(b"compiled")
    recipe = "import runpy; print(runpy.run_path('packaging/compile')['sums'](), end='')"
    (native / "SHA256SUMS").write_bytes(python(tmp_path, "-c", recipe).stdout)
    return tmp_path


def test_compiled_modules_are_taken_for_the_text_they_are_of(copy: Path) -> None:
    taken = python(copy, "-c", TAKEN)
    assert b"ImportError" in taken.stderr
    assert b"build/native/appid/wire" in taken.stderr


@pytest.mark.parametrize("file", ["appid/wire.py", "appid/alg/relay.py", "packaging/compile"])
def test_not_after_a_change(copy: Path, file: str) -> None:
    (copy / file).write_text((copy / file).read_text() + "\n# changed\n")
    assert python(copy, "-c", TAKEN).returncode == 0


def test_not_with_a_module_less(copy: Path) -> None:
    (copy / "appid" / "cli" / "top.py").unlink()
    assert python(copy, "-c", TAKEN).returncode == 0


def test_not_for_another_interpreter(copy: Path) -> None:
    sums = copy / "build" / "native" / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(sys.implementation.cache_tag or "", "cpython-99"))
    assert python(copy, "-c", TAKEN).returncode == 0


def test_not_where_they_are_not_wanted(copy: Path) -> None:
    assert python(copy, "-c", TAKEN, interpreted=True).returncode == 0


@pytest.mark.parametrize(("command", "compiled"), [("check", True), ("run", False), ("explain", False)])
def test_for_check_alone(copy: Path, command: str, compiled: bool) -> None:
    done = python(copy, "-c", COMMAND, command, "--help")
    assert (b"ImportError" in done.stderr) == compiled, done.stderr
    assert (done.returncode != 0) == compiled


@pytest.mark.parametrize("damage", ["", "no sums at all", "# cpython\none word"])
def test_sums_that_cannot_be_read_are_none(copy: Path, damage: str) -> None:
    (copy / "build" / "native" / "SHA256SUMS").write_text(damage)
    assert python(copy, "-c", TAKEN).returncode == 0


compiled = pytest.mark.skipif(
    not appid._is_of(ROOT / "build" / "native" / "SHA256SUMS", ROOT), reason="appid/ has changed since make compile"
)


def test_the_hot_modules_compile() -> None:
    """What packaging/compile was last run for; a later change of appid/ is none of its failures."""
    log = ROOT / "build" / "compile.log"
    assert (ROOT / "build" / "native").exists() or not log.exists(), log.read_text()


@compiled
def test_compiled_and_text_say_the_same(tmp_path: Path) -> None:
    """Byte for byte: a session of the corpus, and every eighth of the shared captures."""
    call = tmp_path / "call.pcap"
    build(2).capture.save(call)
    captures = [str(call), *sorted(str(path) for path in SHARED.rglob("*.pcap*"))[::8]]
    check = ["-m", "appid.cli.main", "check", "--json", "--drops", *captures]
    fast, text = python(ROOT, *check), python(ROOT, *check, interpreted=True)
    assert fast.stdout.count(b"\n") > len(captures)
    assert fast.stdout == text.stdout
    assert fast.stderr == text.stderr
