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


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("lan0", "is no network"),
        ("", "is no network"),
        ("1.2.3", "is no network"),
        ("10.0.0.300", "is no network"),
        ("10.0.0.0/33", "is no network"),
        ("fe80::1%lan0", "is no network"),
        ("172.16.42.1/24", "write 172.16.42.0/24 for the network"),
        ("fd00:42::1/64", "write fd00:42::/64 for the network"),
        ("::ffff:192.0.2.1", "write 192.0.2.1"),
        ("::ffff:192.0.2.0/120", "write 192.0.2.0/24"),
    ],
)
def test_no_network(text: str, instead: str) -> None:
    with pytest.raises(ValueError, match=instead + "$" if instead.startswith("write") else instead):
        toml_values.network(text)


def test_a_mark_of_byte_order_and_crlf_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfa = 1\r\nb = 2\r\n")
    assert toml_values.read_toml(tmp_path / "a.toml") == {"a": 1, "b": 2}


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
