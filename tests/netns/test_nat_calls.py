"""Calls behind source NAT on a real kernel: a running gateway, phones that believe what they are told, and media.

The far side sends media only to where the description that it got says, and the phone takes it only at its own port.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appid.flow.call import SILENCE
from tests.netns.live import Live, live, rule, settle
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, PUBLIC4, PUBLIC6, Net, received, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

POLICY = rule("sip", "allow", "sip", service='"any"')
SIP_OUT = rule("sip", "allow", "sip", from_='["inside"]', service='"any"')
SECOND4 = "10.77.1.3"
QUICK = ("", "_stream")


def quoted(address: str) -> str:
    return f"[{address}]" if ":" in address else address


class Agent:
    """One user agent: a signalling socket, two media sockets, and the last message that it got."""

    def __init__(self, where: object, host: str, rtp: int, port: int = 5060) -> None:
        self.host, self.rtp, self.port = host, rtp, port
        self.signalling: socket.socket = where.udp(host, port)  # type: ignore[attr-defined]
        self.media: list[socket.socket] = [where.udp(host, rtp + i) for i in (0, 1)]  # type: ignore[attr-defined]
        self.signalling.settimeout(3)
        self.came = b""
        self.from_: tuple[str, int] = ("", 0)

    def sdp(self) -> bytes:
        where = f"IN IP{6 if ':' in self.host else 4} {self.host}"
        lines = ("v=0", f"o=- 1 1 {where}", "s=-", f"c={where}", "t=0 0", f"m=audio {self.rtp} RTP/AVP 0", "")
        return "\r\n".join(lines).encode()

    def message(self, first: str, cseq: str, call: str, tags: tuple[str, str], body: bytes, via: str = "") -> bytes:
        own = f"{quoted(self.host)}:{self.port}"
        lines = [
            first, f"Via: {via or f'SIP/2.0/UDP {own};branch=z9hG4bK7;rport'}", f"From: <sip:a@x.example>{tags[0]}",
            f"To: <sip:b@y.example>{tags[1]}", f"Call-ID: {call}", f"CSeq: {cseq}", f"Contact: <sip:u@{own}>",
        ]  # fmt: skip
        lines += ["Content-Type: application/sdp"] if body else []
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body

    def hear(self) -> str:
        self.came, source = self.signalling.recvfrom(65535)
        self.from_ = source[:2]
        return self.came.decode()

    def field(self, expression: str) -> str:
        found = re.search(expression, self.came.decode(), re.M)
        assert found is not None, (expression, self.came)
        return found[1]

    def far(self) -> tuple[str, int]:
        """Where the other side says it takes media."""
        return self.field(r"^c=IN IP[46] (\S+)"), int(self.field(r"^m=audio (\d+)"))


def talk(caller: Agent, callee: Agent, call: str) -> None:
    """INVITE, early media, 200, ACK; the callee answers to where the packet came from (RFC 3581)."""
    first = f"INVITE sip:b@{quoted(callee.host)} SIP/2.0"
    caller.signalling.sendto(caller.message(first, "1 INVITE", call, (";tag=a", ""), caller.sdp()), (callee.host, 5060))
    callee.hear()
    offered, via = callee.far(), callee.field(r"^Via: (.*?)\r$")
    ringing = callee.message("SIP/2.0 183 Progress", "1 INVITE", call, (";tag=a", f";tag={call}"), callee.sdp(), via)
    callee.signalling.sendto(ringing, callee.from_)
    assert "183" in caller.hear()
    for part in (0, 1):
        callee.media[part].sendto(b"\x80early%d" % part, (offered[0], offered[1] + part))
        assert received(caller.media[part], 0.2, least=1) == [b"\x80early%d" % part]
    ok = callee.message("SIP/2.0 200 OK", "1 INVITE", call, (";tag=a", f";tag={call}"), callee.sdp(), via)
    callee.signalling.sendto(ok, callee.from_)
    assert "200 OK" in caller.hear()
    contact = re.search(r"<sip:u@(.*?)>", ok.decode())
    assert contact is not None
    ack = caller.message(f"ACK sip:u@{contact[1]} SIP/2.0", "1 ACK", call, (";tag=a", f";tag={call}"), b"")
    caller.signalling.sendto(ack, (callee.host, 5060))
    assert callee.hear().startswith("ACK")
    back = caller.far()
    for part in (0, 1):
        caller.media[part].sendto(b"\x80back%d" % part, (back[0], back[1] + part))
        data, source = callee.media[part].recvfrom(2000)
        assert data == b"\x80back%d" % part
        assert source[:2] == (offered[0], offered[1] + part), "media comes from where the description said"


def hang_up(caller: Agent, callee: Agent, call: str) -> None:
    bye = caller.message(f"BYE sip:u@{quoted(callee.host)} SIP/2.0", "2 BYE", call, (";tag=a", f";tag={call}"), b"")
    caller.signalling.sendto(bye, (callee.host, 5060))
    assert callee.hear().startswith("BYE")
    ok = callee.message(
        "SIP/2.0 200 OK", "2 BYE", call, (";tag=a", f";tag={call}"), b"", callee.field(r"^Via: (.*?)\r$")
    )
    callee.signalling.sendto(ok, callee.from_)
    assert "200 OK" in caller.hear()


@contextmanager
def natted(net: Net, folder: Path, policy: str = POLICY) -> Iterator[Live]:
    net.masquerade()
    net.client.run("ip", "addr", "add", f"{SECOND4}/24", "dev", "lan")
    with live(net, folder, policy, "nft") as gateway:
        yield gateway


def nothing_left(net: Net, *ports: int) -> bool:
    maps = net.gateway.run("nft", "list", "table", "inet", "appid-nat")
    sets = net.gateway.run("ipset", "list")
    return not any(str(port) in maps + sets for port in ports)


@pytest.mark.parametrize("ends", [(CLIENT4, PEER4, PUBLIC4), (CLIENT6, PEER6, PUBLIC6)], ids=["v4", "v6"])
def test_a_call_out_and_its_end(bare: Net, tmp_path: Path, ends: tuple[str, str, str]) -> None:
    host, peer, public = ends
    with natted(bare, tmp_path) as gateway:
        phone, far = Agent(bare.client, host, 16402), Agent(bare.peer, peer, 30000)
        talk(phone, far, "one")
        assert far.from_ == (public, 5060)
        hang_up(phone, far, "one")
        far.media[0].sendto(b"\x80after", (public, 16402))
        phone.media[0].sendto(b"\x80after", (peer, 30000))
        assert received(phone.media[0]) == []
        assert nothing_left(bare, 16402, 16403)
        assert gateway.metric('appid_nat_translations_total{result="translated"}')
        headers = (20 if host == CLIENT4 else 40) + 8
        carried = 2 * (headers + len(b"\x80early0") + headers + len(b"\x80back0"))  # RTP and RTCP, each both ways
        assert gateway.metric('appid_media_bytes_total{application="sip",kind="audio"}') == carried


def test_two_phones_on_the_same_ports_to_one_peer(bare: Net, tmp_path: Path) -> None:
    with natted(bare, tmp_path):
        far = Agent(bare.peer, PEER4, 30000)
        phones = [Agent(bare.client, host, 16402) for host in (CLIENT4, SECOND4)]
        for number, phone in enumerate(phones):
            talk(phone, far, f"call{number}")
        for number, phone in enumerate(phones):
            hang_up(phone, far, f"call{number}")
        assert nothing_left(bare, 16402, 30000)


def test_a_call_in_on_the_phones_own_flow(bare: Net, tmp_path: Path) -> None:
    """The phone has registered; the call comes to the Contact that its provider was told."""
    with natted(bare, tmp_path):
        phone, far = Agent(bare.client, CLIENT4, 16402), Agent(bare.peer, PEER4, 30000)
        register = phone.message("REGISTER sip:y.example SIP/2.0", "1 REGISTER", "r", (";tag=a", ""), b"")
        phone.signalling.sendto(register, (PEER4, 5060))
        assert far.hear().startswith("REGISTER")
        contact = far.field(r"^Contact: <sip:u@(.*?)>")
        assert contact == f"{PUBLIC4}:5060"
        invite = far.message(f"INVITE sip:u@{contact} SIP/2.0", "1 INVITE", "in", (";tag=f", ""), far.sdp())
        far.signalling.sendto(invite, (PUBLIC4, 5060))
        assert phone.hear().startswith(f"INVITE sip:u@{CLIENT4}:5060 ")
        via = phone.field(r"^Via: (.*?)\r$")
        ok = phone.message("SIP/2.0 200 OK", "1 INVITE", "in", (";tag=f", ";tag=p"), phone.sdp(), via)
        phone.signalling.sendto(ok, (PEER4, 5060))
        assert "200 OK" in far.hear()
        assert far.far() == (PUBLIC4, 16402)
        far.media[0].sendto(b"\x80in", far.far())
        assert received(phone.media[0], least=1) == [b"\x80in"]


def test_a_signalling_flow_that_the_host_has_mapped_before(bare: Net, tmp_path: Path) -> None:
    """Two phones have spoken before the gateway came: the second one's port is what the host made of it."""
    bare.masquerade()
    bare.client.run("ip", "addr", "add", f"{SECOND4}/24", "dev", "lan")
    far = Agent(bare.peer, PEER4, 30000)
    phones = [Agent(bare.client, host, 16402 + 10 * i) for i, host in enumerate((CLIENT4, SECOND4))]
    for phone in phones:
        phone.signalling.sendto(b"\r\n\r\n", (PEER4, 5060))
        far.hear()
    mapped = far.from_[1]
    assert mapped != 5060
    with live(bare, tmp_path, POLICY, "nft"):
        talk(phones[1], far, "mapped")
        assert far.from_ == (PUBLIC4, mapped)


def test_a_port_that_the_host_gave_to_another_stays_his(bare: Net, tmp_path: Path) -> None:
    """A plain flow to the far side's media port, masqueraded by the host itself: the phone gets other ports."""
    bare.masquerade()
    bare.client.run("ip", "addr", "add", f"{SECOND4}/24", "dev", "lan")
    far = Agent(bare.peer, PEER4, 30000)
    plain = bare.client.udp(SECOND4, 16402)
    plain.sendto(b"plain", (PEER4, 30000))
    assert far.media[0].recvfrom(100) == (b"plain", (PUBLIC4, 16402))
    with live(bare, tmp_path, POLICY, "nft"):
        phone = Agent(bare.client, CLIENT4, 16402)
        talk(phone, far, "one")
        assert received(plain) == [], "what is the phone's"
        hang_up(phone, far, "one")


# ---- TCP -------------------------------------------------------------------------------------------------------------


class Stream:
    """A TCP connection between a phone inside and a server outside, and the messages that come out of it."""

    def __init__(self, net: Net, host: str = CLIENT4, peer: str = PEER4) -> None:
        listening = net.peer.listen(peer, 5060)
        self.phone = net.client.tcp(host)
        self.phone.connect((peer, 5060))
        self.server, self.seen_as = listening.accept()
        self.server.settimeout(5)
        self.phone.settimeout(5)
        self.own = f"{quoted(host)}:{self.phone.getsockname()[1]}"
        self.host = host
        listening.close()
        self.rest: dict[socket.socket, bytes] = {self.phone: b"", self.server: b""}

    def request(self, number: int, more: str = "", port: int = 16402) -> bytes:
        where = f"IN IP{6 if ':' in self.host else 4} {self.host}"
        session = f"v=0|o=- 1 1 {where}|s=-|c={where}|t=0 0|m=audio {port} RTP/AVP 0|"
        body = "\r\n".join((session + more + "|" * bool(more)).split("|")).encode()
        head = [
            "INVITE sip:b@y.example SIP/2.0", f"Via: SIP/2.0/TCP {self.own};branch=z9hG4bK{number};rport",
            "From: <sip:a@x.example>;tag=a", "To: <sip:b@y.example>", f"Call-ID: call-{number}",
            f"CSeq: {number} INVITE",
            f"Contact: <sip:u@{quoted(self.host)}:5060;transport=tcp>", "Content-Type: application/sdp",
            f"Content-Length: {len(body)}", "", "",
        ]  # fmt: skip
        return "\r\n".join(head).encode() + body

    def answer(self, request: bytes, port: int = 30000, host: str = PEER4) -> bytes:
        where = f"IN IP4 {host}"
        body = "\r\n".join(f"v=0|o=- 1 1 {where}|s=-|c={where}|t=0 0|m=audio {port} RTP/AVP 0|".split("|")).encode()
        asked = request.decode().partition("\r\n\r\n")[0].split("\r\n")[1:]
        kept = [line for line in asked if line[:3] in ("Via", "Fro", "Cal", "CSe")]
        head = ["SIP/2.0 200 OK", *kept, "To: <sip:b@y.example>;tag=b", "Content-Type: application/sdp",
                f"Content-Length: {len(body)}", "", ""]  # fmt: skip
        return "\r\n".join(head).encode() + body

    def take(self, side: socket.socket) -> bytes:
        """The next whole message."""
        while True:
            head, blank, body = self.rest[side].partition(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            if blank and length and len(body) >= int(length[1]):
                size = len(head) + 4 + int(length[1])
                message, self.rest[side] = self.rest[side][:size], self.rest[side][size:]
                return message
            data = side.recv(65536)
            assert data, self.rest[side]
            self.rest[side] += data

    def close(self) -> None:
        self.phone.close()
        assert self.server.recv(100) == b"", "an orderly end"
        self.server.close()


def checked(message: bytes, stream: Stream) -> str:
    """What the server got names the gateway alone, and is as long as it says."""
    text = message.decode()
    assert "10.77." not in text
    assert f"SIP/2.0/TCP {stream.seen_as[0]}:{stream.seen_as[1]};" in text
    assert re.search(rf"^c=IN IP4 {PUBLIC4}\r$", text, re.M)
    return text


def test_streams_keep_their_numbers(bare: Net, tmp_path: Path) -> None:
    """Each message grows going out and shrinks coming back; several in a segment, one in many, either way."""
    with natted(bare, tmp_path) as gateway:
        stream = Stream(bare)
        stream.phone.sendall(stream.request(1))
        first = stream.take(stream.server)
        assert re.search(r"^m=audio 16402 ", checked(first, stream), re.M)
        stream.server.sendall(stream.answer(first))
        back = stream.take(stream.phone).decode()
        assert f"Via: SIP/2.0/TCP {stream.own};" in back
        three = b"".join(stream.request(number) for number in (2, 3, 4))
        stream.phone.sendall(three)
        for number in (2, 3, 4):
            got = stream.take(stream.server)
            assert f"CSeq: {number} INVITE" in checked(got, stream)
            stream.server.sendall(stream.answer(got)[:100])
            settle(0.02)
            stream.server.sendall(stream.answer(got)[100:])
        for _ in range(3):
            assert stream.own in stream.take(stream.phone).decode()
        stream.phone.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw = stream.request(5)
        for start in range(0, len(raw), 90):
            stream.phone.sendall(raw[start : start + 90])
            settle(0.002)
        assert "CSeq: 5 INVITE" in checked(stream.take(stream.server), stream)
        big = stream.request(6, "|".join(f"a=fmtp:{i} {'x' * 60}" for i in range(60)))
        assert len(big) > 3000
        stream.phone.sendall(big)
        assert len(checked(stream.take(stream.server), stream)) > len(big)
        stream.close()
        assert not gateway.metric('appid_nat_translations_total{result="unparseable"}')


def test_a_sender_that_waits_for_each_acknowledgement_gets_it(bare: Net, tmp_path: Path) -> None:
    """Nagle: the second piece is not sent before the first is acknowledged, and the first alone is no message."""
    with natted(bare, tmp_path):
        stream = Stream(bare)
        raw = stream.request(1)
        for part in (raw[:60], raw[60:200], raw[200:450], raw[450:]):
            stream.phone.send(part)
            settle(0.01)
        checked(stream.take(stream.server), stream)
        stream.close()


def test_media_of_a_call_over_tcp(bare: Net, tmp_path: Path) -> None:
    """And a second phone on the same media ports."""
    with natted(bare, tmp_path):
        for number, host in enumerate((CLIENT4, SECOND4), 1):
            stream = Stream(bare, host)
            media, far = bare.client.udp(host, 16402), bare.peer.udp(PEER4, 30000 + 10 * number)
            stream.phone.sendall(stream.request(number))
            got = stream.take(stream.server)
            stream.server.sendall(stream.answer(got, 30000 + 10 * number))
            stream.take(stream.phone)
            port = int(re.search(r"^m=audio (\d+)", got.decode(), re.M)[1])  # type: ignore[index]
            assert (port == 16402) == (number == 1)
            far.sendto(b"\x80in", (PUBLIC4, port))
            assert received(media, least=1) == [b"\x80in"]
            media.sendto(b"\x80out", (PEER4, 30000 + 10 * number))
            assert far.recvfrom(100) == (b"\x80out", (PUBLIC4, port))


def test_a_path_that_loses_segments(bare: Net, tmp_path: Path) -> None:
    """Every seventh is lost before the gateway, every ninth behind it, both ways; each message comes whole, once."""
    with natted(bare, tmp_path):
        stream = Stream(bare)
        for space, chain, every in (
            (bare.gateway, "PREROUTING", 7),
            (bare.client, "INPUT", 9),
            (bare.peer, "INPUT", 9),
        ):
            table = "raw" if chain == "PREROUTING" else "filter"
            rare = ("-m", "statistic", "--mode", "nth", "--every", str(every), "--packet", "0", "-j", "DROP")
            space.run("iptables", "-t", table, "-A", chain, "-p", "tcp", *rare)
        for number in range(1, 21):
            stream.phone.sendall(stream.request(number))
        for number in range(1, 21):
            assert f"CSeq: {number} INVITE" in checked(stream.take(stream.server), stream)
            stream.server.sendall(stream.answer(stream.request(number)))
        for number in range(1, 21):
            assert f"Call-ID: call-{number}\r" in stream.take(stream.phone).decode()
        stream.close()


@pytest.mark.parametrize(
    "how", ["nat", pytest.param("routed", marks=pytest.mark.slow), pytest.param("killed", marks=pytest.mark.slow)]
)
def test_a_call_silent_for_longer_than_conntrack_waits_is_hung_up_from_outside(
    bare: Net, tmp_path: Path, how: str
) -> None:
    """UDP entries last 30 s, 120 s for streams (nf_conntrack_udp_timeout, _stream); here 8. The far side's BYE is the
    next thing that anybody says. `killed`: the gateway is, a moment after the call came about, and begins again."""
    with live(bare, tmp_path, SIP_OUT, "nft") if how == "routed" else natted(bare, tmp_path, SIP_OUT) as gateway:
        bare.gateway.run("sysctl", "-qw", *(f"net.netfilter.nf_conntrack_udp_timeout{kind}=8" for kind in QUICK))
        ends = [
            (Agent(bare.client, host, 16402), Agent(bare.peer, peer, 30000))
            for host, peer in ((CLIENT4, PEER4), (CLIENT6, PEER6))
        ]
        for number, (phone, far) in enumerate(ends):
            talk(phone, far, f"quiet-{number}")
        begun = time.monotonic()
        if how == "killed":
            gateway.process.kill()
            gateway.process.wait()
            gateway.begin()
        while time.monotonic() < begun + 9.0:  # media goes on
            for phone, far in ends:
                phone.media[0].sendto(b"\x80on", phone.far())
                assert received(far.media[0], 0.2, least=1) == [b"\x80on"]
        for number, (phone, far) in enumerate(ends):
            bye = far.message(
                "BYE sip:u@x SIP/2.0", "1 BYE", f"quiet-{number}", (f";tag=quiet-{number}", ";tag=a"), b""
            )
            far.signalling.sendto(bye, far.from_)
            assert phone.hear().startswith("BYE")
            via = phone.field(r"^Via: (.*?)\r$")
            ok = phone.message(
                "SIP/2.0 200 OK", "1 BYE", f"quiet-{number}", (f";tag=quiet-{number}", ";tag=a"), b"", via
            )
            phone.signalling.sendto(ok, (far.host, 5060))
            assert "200 OK" in far.hear()
        assert until(lambda: [call["end"] for call in gateway.ask("calls")] == ["bye", "bye"], 2.0)
        left = [int(entry.split()[2]) for entry in bare.entries().splitlines() if "dport=5060" in entry]
        assert left
        assert max(left) <= 8, "with the calls the grace is gone: the kernel forgets their signalling in its own time"


@pytest.mark.slow
def test_a_reload_that_switches_the_alg_off_shuts_what_is_open_and_the_call_goes_on(bare: Net, tmp_path: Path) -> None:
    with natted(bare, tmp_path) as gateway:
        phone, far = Agent(bare.client, CLIENT4, 16402), Agent(bare.peer, PEER4, 30000)
        talk(phone, far, "off")
        far.media[0].sendto(b"\x80before", (PUBLIC4, 16402))
        assert received(phone.media[0], 0.3, least=1) == [b"\x80before"]
        gateway.load(rule("sip", "allow", "sip", service='"any"', alg="false"))
        assert until(lambda: nothing_left(bare, 16402, 16403), 3.0)
        far.media[0].sendto(b"\x80after", (PUBLIC4, 16402))
        assert received(phone.media[0]) == []
        assert [call["end"] for call in gateway.ask("calls")] == ["open"]
        assert {each["closed_at"] is None for each in gateway.ask("pinholes")} == {False}


@pytest.mark.slow
def test_a_call_on_hold_that_sleeps_is_resumed_from_outside_after_a_restart(bare: Net, tmp_path: Path) -> None:
    """A minute without a packet, a gateway that is killed, then the far side's re-INVITE: media passes again."""
    with natted(bare, tmp_path, SIP_OUT) as gateway:
        phone, far = Agent(bare.client, CLIENT4, 16402), Agent(bare.peer, PEER4, 30000)
        talk(phone, far, "held")
        offered = (PUBLIC4, 16402)
        assert until(lambda: gateway.ask("calls")[0]["end"] == "lost", SILENCE + 10)
        far.media[0].sendto(b"\x80shut", offered)
        assert received(phone.media[0]) == []
        gateway.process.kill()
        gateway.process.wait()
        gateway.begin()
        first = "INVITE sip:u@x SIP/2.0"
        far.signalling.sendto(far.message(first, "2 INVITE", "held", (";tag=held", ";tag=a"), far.sdp()), far.from_)
        assert phone.hear().startswith("INVITE")
        tags, via = (";tag=held", ";tag=a"), phone.field(r"^Via: (.*?)\r$")
        ok = phone.message("SIP/2.0 200 OK", "2 INVITE", "held", tags, phone.sdp(), via)
        phone.signalling.sendto(ok, (far.host, 5060))
        assert "200 OK" in far.hear()
        assert far.far() == offered
        far.media[0].sendto(b"\x80again", offered)
        assert received(phone.media[0], 0.3, least=1) == [b"\x80again"]
        assert [call["end"] for call in gateway.ask("calls")][-1] == "open"
