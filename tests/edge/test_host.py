"""What the kernel says of source NAT: bindings by their key, flows by their tuple, ports in use towards a peer."""

from __future__ import annotations

import pytest

from appid.dataplane.command import BindNat
from appid.dataplane.render import nat_text
from appid.edge.conntrack import Conntrack
from appid.edge.host import Kernel
from appid.edge.nat import Bindings
from appid.wire import TCP, UDP, Endpoint, FlowKey, packed
from tests.netns.net import CLIENT4, CLIENT6, PEER4, PEER6, PUBLIC4, PUBLIC6, Net, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]


def at(host: str, port: int) -> Endpoint:
    return Endpoint(packed(host), port)


def kernel(net: Net) -> Kernel:
    return net.gateway.call(lambda: Kernel(Conntrack()))


@pytest.mark.parametrize("ends", [(CLIENT4, PUBLIC4, PEER4), (CLIENT6, PUBLIC6, PEER6)], ids=["v4", "v6"])
def test_a_binding_of_another_process_is_found(bare: Net, ends: tuple[str, str, str]) -> None:
    inside, public, peer = ends
    bare.gateway.run("nft", "-f", "-", text=nat_text())
    known = kernel(bare)
    assert known.behind(UDP, at(public, 16404), at(peer, 5060)) is None
    other = bare.gateway.call(lambda: Bindings(Conntrack()))
    other.bind(BindNat(UDP, packed(inside), 16402, packed(public), 16404, packed(peer), 60))
    assert known.behind(UDP, at(public, 16404), at(peer, 5060)) == at(inside, 16402)
    assert known.behind(UDP, at(public, 16404), at(peer, 9)) == at(inside, 16402), "whatever the peer's port"
    assert known.behind(UDP, at(public, 16402), at(peer, 5060)) is None
    assert known.behind(6, at(public, 16404), at(peer, 5060)) is None
    known.close()


@pytest.mark.parametrize("ends", [(CLIENT4, PEER4), (CLIENT6, PEER6)], ids=["v4", "v6"])
@pytest.mark.parametrize("port", [5060, 7000])
def test_who_has_a_flow_with_the_far_end_of_a_call(bare: Net, ends: tuple[str, str], port: int) -> None:
    inside, peer = ends
    bare.masquerade()
    phone, far = bare.client.udp(inside, port), bare.peer.udp(peer, 5060)
    phone.sendto(b"x", (peer, 5060))
    far.recvfrom(10)
    known = kernel(bare)
    assert known.signals(packed(inside), at(peer, 5060))
    assert not known.signals(packed(inside), at(peer, 5061))
    assert not known.signals(packed(PUBLIC4 if len(packed(inside)) == 4 else PUBLIC6), at(peer, 5060))
    known.close()


def test_a_flow_that_the_host_has_masqueraded_is_found(bare: Net) -> None:
    bare.masquerade()
    phone, far = bare.client.udp(CLIENT4, 16402), bare.peer.udp(PEER4, 30000)
    phone.sendto(b"x", (PEER4, 30000))
    _, (host, port) = far.recvfrom(10)
    known = kernel(bare)
    assert known.behind(UDP, at(host, port), at(PEER4, 30000)) == at(CLIENT4, 16402)
    assert known.behind(UDP, at(host, port), at(PEER4, 30001)) is None, "another flow may have that port there"
    assert known.mapped(FlowKey(UDP, *at(CLIENT4, 16402), *at(PEER4, 30000))) == at(host, port)
    assert known.taken(UDP, packed(PUBLIC4), packed(PEER4)) == {port: at(CLIENT4, 16402)}
    assert known.taken(UDP, packed(PUBLIC4), packed(CLIENT4)) == {}
    known.close()


def test_what_the_gateway_itself_listens_on_is_known_a_moment_later(bare: Net) -> None:
    known = kernel(bare)

    def owns(host: str, port: int, proto: int = UDP) -> bool:
        return bool(bare.gateway.call(lambda: known.owns(proto, at(host, port))))

    assert not owns(PUBLIC4, 51820)
    with bare.gateway.udp("0.0.0.0", 51820), bare.gateway.listen(PUBLIC6, 8022):
        assert until(lambda: owns(PUBLIC4, 51820))
        assert not owns(PUBLIC4, 51820, TCP)
        assert not owns(PUBLIC6, 51820), "IPv4's alone"
        assert owns(PUBLIC6, 8022, TCP)
    assert until(lambda: not owns(PUBLIC4, 51820))
    known.close()
