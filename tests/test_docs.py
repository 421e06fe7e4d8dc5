"""What the documents say is so: links lead somewhere, commands and options exist, the example holds the defaults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from appid.cli.main import COMMANDS
from appid.edge.config import Config, load_config
from appid.policy.exception import DEFAULTS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
APPID = Path(sys.executable).parent / "appid"


def test_links_lead_somewhere() -> None:
    broken = []
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            if not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)} -> {target}")
    assert broken == []


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"(?:^    |`)make ([a-z]+)", document.read_text(), re.MULTILINE))
        assert named <= targets, document.name


def test_the_example_configuration_is_the_default(tmp_path: Path) -> None:
    text = (ROOT / "docs/reference/configuration.md").read_text()
    example = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert example is not None
    place = tmp_path / "appid.toml"
    place.write_text(example.group(1))
    loaded, default = load_config(place), Config()
    assert loaded.exceptions.given == DEFAULTS
    for field in Config.__dataclass_fields__:
        if field != "exceptions":
            assert getattr(loaded, field) == getattr(default, field), field


def shown() -> list[str]:
    """Command lines in the documents: indented by four, beginning with appid."""
    lines = set()
    for document in DOCUMENTS:
        if "decisions" not in document.parts:
            lines |= set(re.findall(r"^ {4}(appid [a-z][^|#\n]*)", document.read_text(), re.MULTILINE))
    return sorted(line.strip() for line in lines)


@pytest.mark.parametrize("line", shown())
def test_options_in_command_lines_exist(line: str) -> None:
    command = line.split()[1]
    assert command in COMMANDS
    verb = [line.split()[2]] if command == "policy" else []
    told = subprocess.run([APPID, command, *verb, "--help"], capture_output=True, text=True, check=True).stdout
    for option in re.findall(r"(?<=\s)--?[a-z]+", line):
        assert option in told, line
