"""appid/edge/capture.py against capinfos and tshark on real captures, and against files written here by the formats."""

from __future__ import annotations

import gzip
import struct
import subprocess
from pathlib import Path

import pytest

from appid.edge.capture import CaptureError, Writer, frames

CAPTURES = Path(__file__).parents[2].parent / "shared" / "captures"
real = pytest.mark.skipif(not CAPTURES.is_dir(), reason="the shared captures are not here")


def captures() -> list[Path]:
    return sorted(p for p in CAPTURES.glob("*/*") if p.parent.name != "ndpi_labels")


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, linktype: int, snaplen: int = 0, options: bytes = b"") -> bytes:
    return block(order, 1, struct.pack(order + "HHI", linktype, 0, snaplen) + options)


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def enhanced(order: str, which: int, ticks: int, data: bytes) -> bytes:
    return block(
        order, 6, struct.pack(order + "IIIII", which, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data)) + data
    )


def read(path: Path, content: bytes) -> list[tuple[int, int, int, bytes]]:
    path.write_bytes(content)
    return [(number, time, linktype, bytes(data)) for number, time, linktype, data in frames(path)]


@real
def test_every_real_capture_has_the_frames_that_capinfos_counts() -> None:
    files = captures()
    assert len(files) == 802
    told = subprocess.run(
        ["capinfos", "-c", "-M", "-T", "-r", *map(str, files)], capture_output=True, text=True, check=False
    )
    counts = {name: int(count) for name, count in (line.split("\t") for line in told.stdout.splitlines())}
    cut_short = []
    for path in files:
        number = 0
        try:
            for frame in frames(path):
                number = frame[0]
        except CaptureError as error:
            cut_short.append((path.name, error.reason))
        assert number == counts[str(path)], path
    assert cut_short == [("fuzz-2021-10-13.pcap", "cut short in frame 2")]  # capinfos says so too


@real
@pytest.mark.parametrize(
    "name",
    [
        "rtc-measurement/messenger_case7_caller.pcapng",
        "zeek/ldap__modify-request.pcapng",  # two interfaces of different link types
        "ndpi/fuzz-2021-10-13.pcap",  # nanoseconds, and a version from before the lengths were swapped
        "mercury/sll2_tls.pcap",
        "ndpi/dns_fragmented.pcap",
    ],
)
def test_times_and_lengths_are_those_of_tshark(name: str) -> None:
    fields = ["-T", "fields", "-e", "frame.time_epoch", "-e", "frame.cap_len", "-e", "frame.encap_type"]
    told = subprocess.run(
        ["tshark", "-n", "-r", str(CAPTURES / name), *fields], capture_output=True, text=True, check=False
    ).stdout.split("\n")[:-1]
    ours = []
    try:
        for _, time, _, data in frames(CAPTURES / name):
            ours.append((time, len(data)))
    except CaptureError:
        pass
    expected = []
    for line in told:
        seconds, length, _ = line.split("\t")
        whole, fraction = seconds.split(".")
        expected.append((int(whole) * 10**9 + int(fraction.ljust(9, "0")), int(length)))
    assert ours == expected


@pytest.mark.parametrize(
    ("order", "magic", "scale"),
    [("<", 0xA1B2C3D4, 1000), (">", 0xA1B2C3D4, 1000), ("<", 0xA1B23C4D, 1), (">", 0xA1B23C4D, 1)],
)
def test_pcap_in_both_byte_orders_and_resolutions(tmp_path: Path, order: str, magic: int, scale: int) -> None:
    content = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 101)
    for data in (b"first", b"", b"third!"):
        content += struct.pack(order + "IIII", 1689170000, 123, len(data), 99) + data
    time = 1689170000 * 10**9 + 123 * scale
    assert read(tmp_path / "a", content) == [(1, time, 101, b"first"), (2, time, 101, b""), (3, time, 101, b"third!")]


def test_frames_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    content = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
    sizes = [200_000, 1, 65536, 131_000, 262_144]
    for size in sizes:
        content += struct.pack("<IIII", 0, 0, size, size) + bytes([size & 0xFF]) * size
    got = read(tmp_path / "a", content)
    assert [len(data) for *_, data in got] == sizes
    assert all(set(data) == {len(data) & 0xFF} for *_, data in got)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_interfaces_resolutions_and_packet_blocks(tmp_path: Path, order: str) -> None:
    content = section(order)
    content += interface(order, 1)  # microseconds
    content += interface(order, 101, 0, option(order, 9, b"\x09"))  # nanoseconds
    content += interface(order, 113, 0, option(order, 9, b"\x8a") + option(order, 14, struct.pack(order + "q", 1000)))
    content += enhanced(order, 0, 1_689_170_000_123_456, b"a")
    content += enhanced(order, 1, 1_689_170_000_123_456_789, b"bb")
    content += enhanced(order, 2, 2048 + 512, b"ccc")  # 2.5 s in units of 1/1024 s, 1000 s later
    content += block(order, 0x0BAD, b"what is unknown is skipped")
    content += block(order, 2, struct.pack(order + "HHIIII", 1, 0, 0, 7, 4, 4) + b"dddd")
    assert read(tmp_path / "a", content) == [
        (1, 1_689_170_000_123_456_000, 1, b"a"),
        (2, 1_689_170_000_123_456_789, 101, b"bb"),
        (3, 1_002_500_000_000, 113, b"ccc"),
        (4, 7, 101, b"dddd"),
    ]


def test_pcapng_simple_packets_are_cut_at_the_snapshot_length(tmp_path: Path) -> None:
    content = section("<") + interface("<", 101, 4)
    content += block("<", 3, struct.pack("<I", 9) + b"abcd") + block("<", 3, struct.pack("<I", 2) + b"xy")
    assert [(n, lt, data) for n, _, lt, data in read(tmp_path / "a", content)] == [(1, 101, b"abcd"), (2, 101, b"xy")]


def test_pcapng_sections_forget_interfaces_and_may_change_byte_order(tmp_path: Path) -> None:
    first = section("<") + interface("<", 1) + interface("<", 101) + enhanced("<", 1, 5, b"a")
    second = section(">") + interface(">", 228) + enhanced(">", 0, 6, b"b")
    assert read(tmp_path / "a", first + second) == [(1, 5000, 101, b"a"), (2, 6000, 228, b"b")]
    with pytest.raises(CaptureError, match="interface 1, which was not described, after frame 2"):
        read(tmp_path / "a", first + second + enhanced(">", 1, 6, b"c"))


def test_a_gzipped_capture_is_read_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    whole = section("<") + interface("<", 101) + b"".join(enhanced("<", 0, n, bytes([n])) for n in range(200))
    packed = gzip.compress(whole)
    assert len(read(tmp_path / "a.gz", packed)) == 200
    with pytest.raises(CaptureError, match="compressed file is cut short or damaged"):
        read(tmp_path / "b.gz", packed[:-20])


def test_what_could_be_read_comes_before_the_error(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    with Writer(path) as writer:
        for number in range(5):
            writer.write(number, b"0123456789")
    path.write_bytes(path.read_bytes()[:-3])
    left = frames(path)
    assert [next(left)[0] for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(CaptureError) as caught:
        next(left)
    assert str(caught.value) == f"{path}: cut short in frame 5"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"GET / HTTP/1.1\r\n", "not a pcap or pcapng capture"),
        (b"\xd4\xc3\xb2\xa1\2\0", "cut short in the file header"),
        (struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 9, 1) + b"\xff" * 16, "frame 1 claims 4294967295 bytes"),
        (b"\n\r\r\n" + bytes(20), "a section without byte-order magic"),
        (section("<") + struct.pack("<III", 6, 7, 0), "a block of impossible length 7"),
        (section("<") + struct.pack("<III", 6, 1 << 30, 0), "a block claims 1073741824 bytes"),
        (section("<") + block("<", 6, bytes(4)), "a block too short"),
        (section("<") + struct.pack("<IIII", 9, 16, 0, 12), "two lengths differ"),
        (section("<") + interface("<", 1) + block("<", 6, struct.pack("<5I", 0, 0, 0, 5, 5)), "longer than its block"),
    ],
)
def test_what_is_no_capture_is_refused_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(CaptureError) as caught:
        read(tmp_path / "bad", content)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="No such file"):
        next(frames(tmp_path / "none"))
    with pytest.raises(CaptureError, match="directory"):
        next(frames(tmp_path))


def test_tshark_reads_what_the_writer_wrote(tmp_path: Path) -> None:
    udp = bytes.fromhex("4500001e00010000401100007f0000017f000001400f400f000a0000") + b"hi"
    with Writer(tmp_path / "own.pcap") as writer:
        writer.write(1_689_170_000_123_456_789, memoryview(udp))
    fields = ["-T", "fields", "-e", "frame.time_epoch", "-e", "ip.src", "-e", "udp.dstport"]
    told = subprocess.run(
        ["tshark", "-n", "-r", str(tmp_path / "own.pcap"), *fields], capture_output=True, text=True, check=True
    )
    assert told.stdout == "1689170000.123456789\t127.0.0.1\t16399\n"
    assert [(n, t, lt, bytes(d)) for n, t, lt, d in frames(tmp_path / "own.pcap")] == [
        (1, 1_689_170_000_123_456_789, 101, udp)
    ]
