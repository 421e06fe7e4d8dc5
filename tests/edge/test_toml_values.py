"""Values as the operator writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from appid.edge import toml_values
from appid.edge.errors import RuleError
from appid.identify.application import PortRange
from appid.wire import TCP, UDP, packed


def test_ports_networks_names() -> None:
    assert toml_values.port_range("tcp/5223") == PortRange(TCP, 5223, 5223)
    assert toml_values.port_range("udp/3478-3497") == PortRange(UDP, 3478, 3497)
    assert toml_values.network("172.16.42.0/24") == (packed("172.16.42.0"), 24)
    assert toml_values.network("fd00::1") == (packed("fd00::1"), 128)
    assert toml_values.name("ichat-av") == "ichat-av"


@pytest.mark.parametrize("text", ["5223", "tcp/", "tcp/70000", "udp/9-3", "sctp/1", "tcp/1-2-3", "TCP/1"])
def test_no_ports(text: str) -> None:
    with pytest.raises(ValueError, match="is no port range"):
        toml_values.port_range(text)


@pytest.mark.parametrize("text", ["172.16.42.1/24", "lan0", "", "1.2.3"])
def test_no_network(text: str) -> None:
    with pytest.raises(ValueError, match="is no network"):
        toml_values.network(text)


@pytest.mark.parametrize("text", ["", "FaceTime", "a b", "-a", "ä"])
def test_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        toml_values.name(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = toml_values.read_toml(tmp_path / "none.toml")
    assert isinstance(missing, RuleError)
    assert "no such file" in missing.reason
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe4'")
    latin = toml_values.read_toml(tmp_path / "latin.toml")
    assert isinstance(latin, RuleError)
    assert latin.reason.startswith("not TOML")


HURTFUL = {"nested": "a = " + "[" * 3000, "digits": "a = " + "9" * 5000, "bytes": "a = \xff"}


@pytest.mark.parametrize("name", HURTFUL)
def test_a_file_made_to_hurt_is_a_fault_with_a_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / "evil.toml").write_bytes(HURTFUL[name].encode("latin-1"))
    read = toml_values.read_toml(tmp_path / "evil.toml")
    assert isinstance(read, RuleError)
    assert "not TOML" in read.reason
