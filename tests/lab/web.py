"""nginx as static.ess.apple.com, and as any other web site.

In: a Lab. Out: a child process on the web address's port 80; and a client's GET.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from subprocess import Popen

from tests.lab.net import Lab, nobody_else
from tests.lab.wire_facetime import Address

_PATIENCE = 5.0
"""Seconds for a whole GET."""

_HEADERS = Path("/usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so")
"""With it the answer says `Server: Apache`, as the report's did; without, nginx says its own name."""

_CONFIG = """\
{module}
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 256; }}
http {{
    access_log off;
    server_tokens off;
    {server}
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    default_type text/plain;
    server {{
        listen {address}:80;
        server_name static.ess.apple.com;
        location = /connectivity.txt {{ return 200 "AV was here!\\n"; }}
        location / {{ return 404 "no\\n"; }}
    }}
    server {{
        listen {address}:80 default_server;
        server_name _;
        location / {{ return 200 "a page\\n"; }}
    }}
}}
"""


def start_web(lab: Lab) -> Popen[bytes]:
    directory = lab.directory / "nginx"
    directory.mkdir()
    apache = _HEADERS.exists()
    config = directory / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            module=f"load_module {_HEADERS};" if apache else "",
            user="user root;" if nobody_else() else "",
            server='more_set_headers "Server: Apache";' if apache else "",
            directory=directory,
            address=f"[{lab.scenario.web}]" if lab.scenario.v6 else lab.scenario.web,
        )
    )
    arguments = ("nginx", "-p", str(directory), "-e", "stderr", "-c", str(config))
    return lab.spawn("apple", *arguments, log=lab.directory / "nginx.log")


async def http_get(lab: Lab, own: str, server: Address, host: str, path: str) -> bytes:
    """One GET from the client's place; the whole reply. OSError or TimeoutError where none comes."""
    async with asyncio.timeout(_PATIENCE):
        reader, writer = await lab.connect("client", own, server)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return await reader.read()
        finally:
            writer.transport.abort()
