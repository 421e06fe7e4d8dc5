"""What an application's file allows its calls."""

from __future__ import annotations

from dataclasses import replace

from appid.identify.application import PortRange
from appid.wire import TCP, UDP
from tests.engine.play import applications


def test_ports_that_a_dialog_may_open() -> None:
    """`dialog_ports` where the file has them, else `media_ports`; of datagrams alone."""
    sip = replace(applications()["sip"], media_ports=(PortRange(UDP, 2000, 2010), PortRange(TCP, 3000, 3010)))
    assert [port for port in (1999, 2000, 2010, 2011, 3000) if sip.opens(port)] == [2000, 2010]
    wider = replace(sip, dialog_ports=(PortRange(UDP, 5000, 5000),))
    assert [port for port in (2000, 5000) if wider.opens(port)] == [5000]
