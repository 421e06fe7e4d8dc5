"""`appid COMMAND ...`: finds the command's module, imports that one alone, turns every fault into a line and a status.

A command's module has add_arguments(parser) and run(arguments) -> status. Status: 0 done; 1 the answer is no; 2 usage,
an unreadable file, a bad configuration; 3 the kernel refused.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple, NoReturn

from appid import __version__, prefer_compiled

DONE, NO, USAGE, KERNEL, INTERRUPTED = 0, 1, 2, 3, 130
TRACEBACK = "APPID_TRACEBACK"
"""Set in the environment, a fault of the program itself shows its traceback; never otherwise."""


class Command(NamedTuple):
    module: str
    help: str


COMMANDS = {
    "check": Command("check", "name the applications in captures, exactly as the gateway would see them"),
    "explain": Command("explain", "why: the evidence, packet by packet, as a ladder of the call"),
    "run": Command("run", "the inline gateway on NFQUEUE"),
    "rules": Command("rules", "the iptables, ip6tables and ipset rule sets: render, diff, apply, confirm, remove"),
    "policy": Command("policy", "check a policy, try it on captures, hand it to the running gateway"),
    "apps": Command("apps", "the applications known; one in full"),
    "flows": Command("ask", "the flows of the running gateway"),
    "calls": Command("ask", "the calls of the running gateway"),
    "pinholes": Command("ask", "the pinholes of the running gateway"),
    "stats": Command("ask", "the counters of the running gateway"),
    "top": Command("top", "the running gateway, live"),
    "doctor": Command("doctor", "what stands in the way of a gateway on this host"),
}


class Parser(argparse.ArgumentParser):
    """argparse, but a fault of usage is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message} ({self.prog} --help tells more)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status. `argv` is without the program's name; None: that of the process."""
    _standing()
    given = list(sys.argv[1:] if argv is None else argv)
    if argv is None and given[:1] == ["check"]:  # a process of its own, that hands nothing to another
        prefer_compiled()
    try:
        status = _dispatch(given)
        sys.stdout.flush()
        return status
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `appid check ... | head`: the reader has enough. Keep the interpreter from flushing into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        return _fault(error)


def _standing() -> None:
    """Who starts us may have closed standard input or output: what is opened first would take its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def commands() -> dict[str, Command]:
    """The commands whose module is installed."""
    return {name: command for name, command in COMMANDS.items() if find_spec(f"appid.cli.{command.module}")}


def _dispatch(argv: list[str]) -> int:
    known = commands()
    if not argv or argv[0] not in known:
        return _without_command(argv, known)
    name = argv[0]
    parser = Parser(prog=f"appid {name}", description=known[name].help.capitalize() + ".")
    module = importlib.import_module(f"appid.cli.{known[name].module}")
    module.add_arguments(parser)
    arguments = parser.parse_args(argv[1:])
    arguments.command = name
    return int(module.run(arguments))


def _without_command(argv: list[str], known: dict[str, Command]) -> int:
    listing = "\n".join(f"  {name:<10} {command.help}" for name, command in known.items())
    parser = Parser(
        prog="appid",
        description="A firewall that knows applications, not ports.",
        epilog=f"commands:\n{listing}\n\n`appid COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="appid COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"appid {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=known, help=argparse.SUPPRESS)
    parser.parse_args(argv)
    parser.error("no command given")


def _fault(error: Exception) -> int:
    """One line per fault on stderr. Whose it is decides the status."""
    from appid.edge.capture import CaptureError
    from appid.edge.errors import RuleErrors
    from appid.edge.netlink import KernelError
    from appid.edge.preflight import UnfitError

    if isinstance(error, RuleErrors):
        for fault in error.errors:
            _tell(fault)
        return USAGE
    if isinstance(error, UnfitError):
        for problem in error.problems:
            _tell(problem)
        return KERNEL
    if isinstance(error, KernelError):
        _tell(error)
        return KERNEL
    if isinstance(error, CaptureError):
        _tell(error)
        return USAGE
    if isinstance(error, OSError):
        _tell(f"{error.filename}: {error.strerror}" if error.filename else error)
        return USAGE
    if os.environ.get(TRACEBACK):
        raise error
    _tell(f"a fault of appid itself: {type(error).__name__}: {error} ({TRACEBACK}=1 shows where)")
    return USAGE


def _tell(line: object) -> None:
    said = " ".join(str(line).split())  # a file's name may hold what a terminal would obey
    print("appid:", "".join(c if c.isprintable() else "\ufffd" for c in said), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
