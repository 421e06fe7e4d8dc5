"""`appid policy lint | test | load | schema`: what is wrong with a policy, what it would do, hand it to the gateway.

lint    status 0 nothing, or warnings; 1 errors, or with --strict warnings; 2 the file cannot be read
test    trial.py
load    status 0 it is in force; 2 it is not, for each fault a line; 3 the kernel refused
schema  the JSON Schema of the file, for editors
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from appid.cli import trial
from appid.dataplane.marks import Marks
from appid.edge.config import load_config
from appid.edge.control import ask
from appid.edge.errors import RuleErrors
from appid.edge.policy_file import load_policy
from appid.edge.policy_tables import schema
from appid.edge.rule_files import load_applications
from appid.policy.lint import lint

PATIENCE = 120.0
"""Seconds for the gateway to answer: ten thousand rules take a while."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    linting = actions.add_parser("lint", help="dependencies, shadowed rules, contradictions, unknown names")
    linting.add_argument("file", metavar="FILE", type=Path)
    linting.add_argument("--strict", action="store_true", help="warnings make the status 1 too")
    linting.add_argument("--json", action="store_true", help="JSON lines")
    linting.add_argument("--rules", metavar="DIR", type=Path, help="the operator's applications (default: configured)")
    linting.add_argument("-c", dest="config", metavar="FILE", type=Path, help="appid.toml of the gateway")
    loading = actions.add_parser("load", help="hand it to the running gateway: wholly, or not at all")
    loading.add_argument("file", metavar="FILE", type=Path, nargs="?", help="default: the configured file, read again")
    loading.add_argument("-c", dest="config", metavar="FILE", type=Path, help="appid.toml of the gateway")
    loading.add_argument("--json", action="store_true", help="JSON lines")
    actions.add_parser("schema", help="the JSON Schema of the file, for editors")
    trial.add_arguments(actions.add_parser("test", help="what it would do to a capture, also beside another policy"))


def run(arguments: argparse.Namespace) -> int:
    match arguments.action:
        case "test":
            return trial.run(arguments)
        case "load":
            return _load(arguments)
        case "schema":
            print(json.dumps(schema(), indent=2))
            return 0
    return _lint(arguments)


def _load(arguments: argparse.Namespace) -> int:
    request = {"ask": "load"}
    if arguments.file is not None:
        arguments.file.open("rb").close()  # OSError: not there, or not ours to read
        request["policy"] = str(arguments.file.resolve())
    status = 0
    for answer in ask(load_config(arguments.config).control, request, PATIENCE):
        if answer.get("type") == "error":
            status = 3 if answer.get("fault") == "kernel" else 2
            print(f"appid: {answer.get('reason')}", file=sys.stderr)
        elif arguments.json:
            print(json.dumps(answer, separators=(",", ":")))
        else:
            print(f"in force: {answer['policy']}: {answer['rules']} rules, {answer['warnings']} warnings")
    return status


def _lint(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    applications = load_applications(arguments.rules or config.rules)
    arguments.file.open("rb").close()  # OSError: not there, or not ours to read
    try:
        policy = load_policy(arguments.file, applications, Marks(config.mark_mask, config.qos_mask).classes)
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
