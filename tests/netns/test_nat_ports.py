"""Whose port it is, on a real kernel: a hostile phone names ports of the gateway itself and of another host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.netns.net import CLIENT4, PEER4, PUBLIC4, Net, received
from tests.netns.test_nat_calls import SECOND4, Agent, Stream, natted

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

TUNNEL, ADMIN, FORWARDED = 51820, 8022, 30500


def answers(net: Net, port: int) -> bool:
    """Whether the gateway's own TCP port answers the peer."""
    asking = net.peer.tcp(PEER4)
    try:
        asking.connect((PUBLIC4, port))
    except OSError:
        return False
    finally:
        asking.close()
    return True


def test_a_phone_takes_no_port_from_the_gateway_nor_from_another_host(bare: Net, tmp_path: Path) -> None:
    to = ("-p", "udp", "--dport", str(FORWARDED), "-j", "DNAT", "--to-destination", f"{SECOND4}:{FORWARDED}")
    bare.gateway.run("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-i", "wan0", *to)
    tunnel, admin = bare.gateway.udp("0.0.0.0", TUNNEL), bare.gateway.listen(PUBLIC4, ADMIN)
    with natted(bare, tmp_path, '[[rule]]\nname = "all"\naction = "allow"\n'):
        far = Agent(bare.peer, PEER4, 40000)
        for number, port in enumerate((TUNNEL, FORWARDED, 500)):
            phone = Agent(bare.client, CLIENT4, port, port=5070 + number)
            first = "INVITE sip:b@y.example SIP/2.0"
            invite = phone.message(first, "1 INVITE", f"call-{port}", (";tag=a", ""), phone.sdp())
            phone.signalling.sendto(invite, (PEER4, 5060))
            far.hear()
            assert far.far() != (PUBLIC4, port)
            for sock in phone.media:
                sock.close()
        forwarded = bare.client.udp(SECOND4, FORWARDED)
        sender = bare.peer.udp(PEER4, 40010)
        sender.sendto(b"handshake", (PUBLIC4, TUNNEL))
        assert received(tunnel, least=1) == [b"handshake"]
        sender.sendto(b"forwarded", (PUBLIC4, FORWARDED))
        assert received(forwarded, least=1) == [b"forwarded"]
        assert answers(bare, ADMIN)
        stream = Stream(bare)
        register = stream.request(1).replace(b"INVITE", b"REGISTER").replace(b":5060;tr", b":%d;tr" % ADMIN)
        with bare.client.listen(CLIENT4, ADMIN):
            stream.phone.sendall(register)
            got = stream.take(stream.server)
            assert b"@%s:" % PUBLIC4.encode() in got
            assert b":%d;" % ADMIN not in got
            assert answers(bare, ADMIN)
        for _ in range(2):
            admin.accept()[0].close()
        stream.close()
