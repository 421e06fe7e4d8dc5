"""Who listens in this namespace: real sockets, asked of the kernel."""

from __future__ import annotations

import socket

from appid.edge.own_ports import ANY, own_ports
from appid.wire import TCP, UDP, Endpoint, packed

HERE = packed("127.0.0.1")


def test_sockets_that_hear_anybody_are_told_and_others_are_not() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connected,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as both,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six,
    ):
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        heard.bind(("127.0.0.1", 0))
        connected.connect(heard.getsockname())
        for each in (both, six):
            each.bind(("::", 0))
        found = own_ports()
        port = {each: each.getsockname()[1] for each in (server, client, heard, connected, both, six)}
        assert {(TCP, Endpoint(HERE, port[server])), (UDP, Endpoint(HERE, port[heard]))} <= found
        assert (TCP, Endpoint(HERE, port[client])) not in found
        assert (UDP, Endpoint(HERE, port[connected])) not in found
        assert {(UDP, Endpoint(any_, port[both])) for any_ in ANY.values()} <= found, "it hears both families"
        assert (UDP, Endpoint(ANY[16], port[six])) in found
        assert (UDP, Endpoint(ANY[4], port[six])) not in found
    assert (TCP, Endpoint(HERE, port[server])) not in own_ports()
