"""The push courier: TLS on TCP 5223, hands messages from one device to another. And a device's end of it.

In: a listening place and a certificate made for the run. Out: JSON messages behind a 4-byte length, inside TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import ssl
import struct
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.lab.net import Lab
from tests.lab.scenario import Scenario

PORT = 5223
NAME = "courier.push.apple.com"
"""What open clients send as SNI (field.md A2)."""
ALPN = "apns-security-v3"
Message = dict[str, Any]


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-made certificate and its key, in `directory`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "courier.pem", directory / "courier.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


async def _read(reader: asyncio.StreamReader) -> Message:
    size = struct.unpack(">I", await reader.readexactly(4))[0]
    message: Message = json.loads(await reader.readexactly(size))
    return message


def _write(writer: asyncio.StreamWriter, message: Message) -> None:
    """Padded to about what a call's push weighs (field.md A2)."""
    data = json.dumps(message).encode().ljust(1100)
    writer.write(struct.pack(">I", len(data)) + data)


class Courier:
    """The server. Each device says its name first; after that each message goes to the device in its "to"."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.devices: dict[str, asyncio.StreamWriter] = {}
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate(self.lab.directory))
        context.set_alpn_protocols([ALPN])
        listener = self.lab.listener("apple", self.lab.scenario.courier, PORT)
        self.server = await asyncio.start_server(self._serve, sock=listener, ssl=context)

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
        for writer in self.devices.values():
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, ssl.SSLError, asyncio.CancelledError):
            name = (await _read(reader))["device"]
            self.devices[name] = writer
            while True:
                message = await _read(reader)
                if (other := self.devices.get(message["to"])) is not None:
                    _write(other, message)


class Push:
    """A device's connection to the courier."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @staticmethod
    async def connect(lab: Lab, place: str, address: str, scenario: Scenario, device: str) -> Push:
        context = ssl.create_default_context(cafile=str(lab.directory / "courier.pem"))
        context.set_alpn_protocols([ALPN])
        server = (scenario.courier, PORT)
        reader, writer = await lab.connect(place, address, server, ssl=context, server_hostname=NAME)
        _write(writer, {"device": device})
        return Push(reader, writer)

    def send(self, message: Message) -> None:
        _write(self.writer, message)

    async def receive(self) -> Message:
        return await _read(self.reader)

    def close(self) -> None:
        self.writer.transport.abort()
