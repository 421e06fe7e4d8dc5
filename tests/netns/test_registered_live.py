"""Phones that have registered and then say nothing, on a real kernel, and a registrar that calls them.

Conntrack forgets a datagram flow after 30 s, 120 s for streams (nf_conntrack_udp_timeout, _stream); here after 6.
"""

from __future__ import annotations

import re
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.netns.live import Live, live
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, Namespace, Net, received, until
from tests.netns.test_nat_calls import QUICK, SIP_OUT, Agent, natted, quoted

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
QUIET = 6


def begin(net: Net, folder: Path, nat: bool) -> AbstractContextManager[Live]:
    """SIP from inside to outside and nothing else."""
    net.gateway.run("sysctl", "-qw", *(f"net.netfilter.nf_conntrack_udp_timeout{kind}={QUIET}" for kind in QUICK))
    return natted(net, folder, SIP_OUT) if nat else live(net, folder, SIP_OUT, "nft")


def register(phone: Agent, registrar: Agent, seconds: int, cseq: int = 1, port: int = 5060) -> tuple[str, int]:
    """REGISTER and its 200, sent to where it came from. Out: the Contact, as the registrar heard it."""
    first = f"REGISTER sip:{quoted(registrar.host)} SIP/2.0"
    contact = f"<sip:u@{quoted(phone.host)}:{port}>;expires={seconds}"
    asked = phone.message(first, f"{cseq} REGISTER", f"reg-{phone.host}", (";tag=r", ""), b"").decode()
    asked = re.sub(r"Contact: .*?\r", f"Contact: {contact}\r", asked)
    phone.signalling.sendto(asked.encode(), (registrar.host, 5060))
    heard = registrar.hear()
    answer = "SIP/2.0 200 OK" + heard[heard.index("\r\n") :]
    registrar.signalling.sendto(answer.encode(), registrar.from_)
    assert phone.hear().startswith("SIP/2.0 200")
    found = re.search(r"^Contact: <sip:u@(.*):(\d+)>", heard, re.M)
    assert found is not None
    return found[1].strip("[]"), int(found[2])


def invite(registrar: Agent, to: tuple[str, int]) -> bytes:
    return registrar.message(
        f"INVITE sip:u@{quoted(to[0])}:{to[1]} SIP/2.0", "1 INVITE", f"in-{registrar.host}", (";tag=i", ""), b""
    )


@pytest.mark.parametrize(
    "how", ["nat", pytest.param("routed", marks=pytest.mark.slow), pytest.param("killed", marks=pytest.mark.slow)]
)
def test_a_registered_phone_is_called_after_any_silence(bare: Net, tmp_path: Path, how: str) -> None:
    """`killed`: the gateway is, a moment after the phones have registered, and begins again."""
    with begin(bare, tmp_path, how != "routed") as gateway:
        ends = [
            (Agent(bare.client, host, 16402), Agent(bare.peer, peer, 30000))
            for host, peer in ((CLIENT4, PEER4), (CLIENT6, PEER6))
        ]
        others = [bare.peer.udp(far.host, 5070) for _, far in ends]
        contacts = [register(phone, far, 600) for phone, far in ends]
        begun = time.monotonic()
        if how == "killed":
            gateway.process.kill()
            gateway.process.wait()
            gateway.begin()
        time.sleep(max(0.0, begun + QUIET + 2 - time.monotonic()))
        for (phone, far), other, contact in zip(ends, others, contacts, strict=True):
            other.sendto(invite(far, contact), contact)
            assert received(phone.signalling, 0.3) == [], "only the registrar's own endpoint"
            far.signalling.sendto(invite(far, contact), contact)
            assert phone.hear().startswith(f"INVITE sip:u@{quoted(phone.host)}:5060 ")
            via = phone.field(r"^Via: (.*?)\r$")
            busy = phone.message("SIP/2.0 486 Busy Here", "1 INVITE", f"in-{far.host}", (";tag=i", ";tag=o"), b"", via)
            phone.signalling.sendto(busy, (far.host, 5060))
            assert "486" in far.hear()


@pytest.mark.slow
def test_a_phone_that_is_registered_no_more_is_forgotten(bare: Net, tmp_path: Path) -> None:
    with begin(bare, tmp_path, True) as gateway:
        phone, far = Agent(bare.client, CLIENT4, 16402), Agent(bare.peer, PEER4, 30000)
        contact = register(phone, far, 600)
        time.sleep(QUIET)
        register(phone, far, 0, 2)
        assert until(lambda: "dport=5060" not in bare.entries(), 2 * QUIET)
        far.signalling.sendto(invite(far, contact), contact)
        assert received(phone.signalling, 0.5) == []
        assert gateway.ask("calls") == []


class Deaf(Agent):
    """A phone that hears nothing at the port that it sends from: Via and Contact name another, without rport."""

    def __init__(self, where: Namespace, host: str, rtp: int) -> None:
        super().__init__(where, host, rtp)
        self.sending = where.udp(host, 40000)

    def ask(self, method: str, far: Agent, more: str = "") -> None:
        message = self.message(f"{method} sip:b@{quoted(far.host)} SIP/2.0", f"1 {method}", method, (";tag=d", ""), b"")
        asked = message.replace(b";rport", b"").replace(
            b">\r\nContent-Length", b">%s\r\nContent-Length" % more.encode()
        )
        self.sending.sendto(asked, (far.host, 5060))


def forget(net: Net, peer: str) -> None:
    """The kernel forgets what this peer has begun."""
    net.gateway.run("conntrack", "-D", "-f", "ipv6" if ":" in peer else "ipv4", "-p", "udp", "-s", peer, check=False)


@pytest.mark.parametrize(
    "how", ["nat", pytest.param("routed", marks=pytest.mark.slow), pytest.param("killed", marks=pytest.mark.slow)]
)
def test_a_phone_that_listens_at_another_port_than_it_sends_from(bare: Net, tmp_path: Path, how: str) -> None:
    """RFC 3261 section 18.2.2: without rport, the answer goes to the port in Via; section 12: requests to Contact."""
    with begin(bare, tmp_path, how != "routed") as gateway:
        ends = [
            (Deaf(bare.client, host, 16402), Agent(bare.peer, peer, 30000))
            for host, peer in ((CLIENT4, PEER4), (CLIENT6, PEER6))
        ]
        places = []
        for phone, far in ends:
            other = bare.peer.udp(far.host, 5070)
            for method, more in (("INVITE", ""), ("REGISTER", ";expires=600")):
                phone.ask(method, far, more)
                asked = far.hear()
                to = (far.from_[0], int(far.field(r"^Via: SIP/2.0/UDP .*:(\d+);")))
                assert far.from_[1] != to[1]
                answer = "SIP/2.0 200 OK" + asked[asked.index("\r\n") :]
                other.sendto(answer.encode(), to)
                far.signalling.sendto(b"no SIP", to)
                assert received(phone.signalling, 0.3) == [], "who was not asked, and what is no answer"
                far.signalling.sendto(answer.encode(), to)
                assert phone.hear().startswith("SIP/2.0 200")
                assert f"Via: SIP/2.0/UDP {quoted(phone.host)}:5060;" in phone.came.decode()
                forget(bare, far.host)
            places.append(to)
        if how == "killed":
            gateway.process.kill()
            gateway.process.wait()
            gateway.begin()
        for (phone, far), to in zip(ends, places, strict=True):
            far.signalling.sendto(invite(far, to), to)
            assert phone.hear().startswith("INVITE "), "registered, though the flow of before is gone"
            assert received(phone.sending, 0.1) == []
