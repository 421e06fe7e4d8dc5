"""`appid policy lint FILE`: what is wrong with a policy, before it is loaded. `test` is in trial.py.

Status: 0 nothing, or warnings; 1 errors, or with --strict warnings; 2 the file cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from appid.cli import trial
from appid.edge.config import load_config
from appid.edge.errors import RuleErrors
from appid.edge.policy_file import load_policy
from appid.edge.rule_files import load_applications
from appid.policy.lint import lint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    linting = actions.add_parser("lint", help="dependencies, shadowed rules, contradictions, unknown names")
    linting.add_argument("file", metavar="FILE", type=Path)
    linting.add_argument("--strict", action="store_true", help="warnings make the status 1 too")
    linting.add_argument("--json", action="store_true", help="JSON lines")
    linting.add_argument("--rules", metavar="DIR", type=Path, help="the operator's applications (default: configured)")
    trial.add_arguments(actions.add_parser("test", help="what it would do to a capture, also beside another policy"))


def run(arguments: argparse.Namespace) -> int:
    return trial.run(arguments) if arguments.action == "test" else _lint(arguments)


def _lint(arguments: argparse.Namespace) -> int:
    applications = load_applications(arguments.rules or load_config().rules)
    arguments.file.open("rb").close()  # OSError: not there, or not ours to read
    try:
        policy = load_policy(arguments.file, applications)
    except RuleErrors as faults:
        for fault in faults.errors:
            if arguments.json:
                print(json.dumps({"type": "error", **asdict(fault)}))
            else:
                print(f"error: {fault}", file=sys.stderr)
        return 1
    findings = lint(policy, applications)
    for finding in findings:
        if arguments.json:
            print(json.dumps({"type": "warning", "file": str(arguments.file), **asdict(finding)}))
        else:
            print(f"warning: {arguments.file}: {finding.kind}: {finding}")
    if not arguments.json and not findings:
        print(f"{arguments.file}: {len(policy.rules)} rules, nothing to say")
    return 1 if findings and arguments.strict else 0
