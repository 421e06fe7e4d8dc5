"""The dispatcher: statuses, one line per fault, never a traceback."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable

import pytest

import appid
from appid.cli import main as cli
from appid.edge.errors import RuleError, RuleErrors


def command(monkeypatch: pytest.MonkeyPatch, run: Callable[..., int]) -> None:
    """Put a command `probe` in place whose run() is given."""
    module = types.ModuleType("appid.cli.probe")
    module.add_arguments = lambda parser: parser.add_argument("--number", type=int)  # type: ignore[attr-defined]
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "appid.cli.probe", module)
    monkeypatch.setattr(cli, "commands", lambda: {"probe": cli.Command("probe", "probes")})


def raising(error: BaseException) -> Callable[..., int]:
    def run(_: object) -> int:
        raise error

    return run


@pytest.mark.parametrize("status", [0, 1, 2, 3])
def test_the_commands_status_is_the_programs(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    command(monkeypatch, lambda arguments: arguments.number)
    assert cli.main(["probe", "--number", str(status)]) == status


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "x.pcap"), 2, "appid: x.pcap: No such file or directory"),
        (PermissionError(13, "Permission denied", "x.pcap"), 2, "appid: x.pcap: Permission denied"),
        (ValueError("two\nlines"), 2, "appid: a fault of appid itself: ValueError: two lines (APPID_TRACEBACK=1 "),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_fault_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str
) -> None:
    command(monkeypatch, raising(error))
    assert cli.main(["probe"]) == status
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert len(err.splitlines()) == bool(line)


def test_each_fault_of_the_operators_files_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, raising(RuleErrors([RuleError("f", "rule[1]", "a", "x"), RuleError("f", "", "b", "y")])))
    assert cli.main(["probe"]) == 2
    assert capsys.readouterr().err.splitlines() == ["appid: f: rule[1]: a: x", "appid: f: b: y"]


def test_the_kernels_refusal_is_status_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from appid.edge.netlink import KernelError

    command(monkeypatch, raising(KernelError("ipset", "Operation not permitted")))
    assert cli.main(["probe"]) == 3
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("argv", [[], ["nought"], ["probe", "--colour"], ["probe", "--number", "x"]])
def test_usage_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    command(monkeypatch, lambda _: 0)
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"appid {appid.__version__}"
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.commands())


def test_a_command_imports_no_other() -> None:
    code = (
        "import sys; from appid.cli.main import main; main(['apps', 'facetime']);"
        "sys.exit(any(n.startswith('appid.cli.') and n not in ('appid.cli.main', 'appid.cli.apps') or n == 'rich'"
        " for n in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_reader_that_has_enough_is_no_fault() -> None:
    code = "from appid.cli.main import main; raise SystemExit(main(['apps', '--json']))"
    piped = f'{sys.executable} -c "{code}" | head -c 1'
    done = subprocess.run(["bash", "-c", piped], capture_output=True, check=False)
    assert done.stderr == b""
