"""A SIP proxy and registrar outside: kamailio, as a provider runs it that leaves NAT to the gateway.

In: a Town, whether it stays in the path of the dialog (Record-Route, RFC 3261 section 16.6). Out: a process,
UDP and TCP. It changes no address but its own: no nathelper, no media relay.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.netns.net import until
from tests.sip.sipp import SIP, host_port
from tests.sip.town import PROXY4, PROXY6, Town

_CONFIG = """\
#!KAMAILIO
debug=1
log_stderror=yes
children=2
tcp_children=2
auto_aliases=no
dns=no
rev_dns=no
{listen}
mpath="{modules}"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
request_route {{
    if (method == "REGISTER") {{ save("location"); exit; }}
    if (has_totag()) {{
        loose_route();
        t_relay();
        exit;
    }}
    if (method == "CANCEL") {{
        if (t_check_trans()) {{ t_relay(); }}
        exit;
    }}
    if (method == "ACK") {{ # of a refusal: hop by hop (RFC 3261 section 17.1.1.3)
        t_check_trans();
        exit;
    }}
    {record}
    if (!lookup("location")) {{ sl_send_reply("404", "Not Found"); exit; }}
    t_relay();
}}
"""


def _modules() -> Path:
    return next(Path("/usr/lib").glob("*/kamailio/modules"))


@contextmanager
def proxy(where: Town, folder: Path, stays: bool = True, at: tuple[str, ...] = (PROXY4, PROXY6)) -> Iterator[None]:
    """Runs inside the `with`, at addresses of the outside. `stays`: it stays in the path of the dialog."""
    folder.mkdir(parents=True, exist_ok=True)
    listen = [f"listen={proto}:{host_port(each, SIP)}" for each in at for proto in ("udp", "tcp")]
    record = "record_route();" if stays else ""
    text = _CONFIG.format(listen="\n".join(listen), modules=f"{_modules()}/", record=record)
    (folder / "kamailio.cfg").write_text(text)
    command = ["kamailio", "-DD", "-E", "-m", "32", "-M", "4", "-Y", str(folder), "-f", str(folder / "kamailio.cfg")]
    with (folder / "kamailio.log").open("wb") as log:
        child = subprocess.Popen(
            ["ip", "netns", "exec", where.peer.name, *command], stdout=log, stderr=log, start_new_session=True
        )
    try:
        ready = until(lambda: host_port(at[-1], SIP) in where.peer.run("ss", "-Hulnt"), 10)
        assert ready, (folder / "kamailio.log").read_text(errors="replace")[-2000:]
        yield
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:  # now and then one of its processes waits for another for ever
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(10)
