"""A program: one end of a WebRTC call by aiortc (RFC 8825), everything by way of a TURN server (RFC 8656).

In: argv: offer or answer, TURN server, user, password, seconds; on stdin the other end's description, a line of JSON.
Out: the own description, then {"frames": .., "heard": ..}: audio frames received, whether any was no silence.
Runs in build/sip-venv. Of the candidates only the relayed one is told, so the other end has no other way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from av import AudioFrame


class Tone(AudioStreamTrack):  # type: ignore[misc]
    """A square wave, 20 ms a frame."""

    async def recv(self) -> AudioFrame:
        frame = await super().recv()
        plane = bytes((0x10 if n // 20 % 2 else 0xF0) if n % 2 else 0 for n in range(frame.planes[0].buffer_size))
        frame.planes[0].update(plane)
        return frame


def relayed(description: RTCSessionDescription) -> dict[str, str]:
    kept = [ln for ln in description.sdp.split("\r\n") if not ln.startswith("a=candidate:") or " typ relay" in ln]
    return {"type": description.type, "sdp": "\r\n".join(kept)}


async def line() -> Any:
    return json.loads(await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline))


async def main(role: str, server: str, user: str, password: str, seconds: str) -> None:
    turn = RTCIceServer(f"turn:{server}:3478?transport=udp", user, password)
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[turn]))
    told = {"frames": 0, "heard": False}
    hearing: set[asyncio.Task[None]] = set()

    async def hear(track: Any) -> None:
        with contextlib.suppress(Exception):  # the other end's hanging up ends it
            while True:
                frame = await track.recv()
                told["frames"] += 1
                told["heard"] |= any(bytes(frame.planes[0]))

    @connection.on("track")  # type: ignore[untyped-decorator]
    def _(track: Any) -> None:
        hearing.add(asyncio.create_task(hear(track)))

    connection.addTrack(Tone())
    if role == "answer":
        await connection.setRemoteDescription(RTCSessionDescription(**await line()))
        await connection.setLocalDescription(await connection.createAnswer())
    else:
        await connection.setLocalDescription(await connection.createOffer())
    print(json.dumps(relayed(connection.localDescription)), flush=True)
    if role == "offer":
        await connection.setRemoteDescription(RTCSessionDescription(**await line()))
    await asyncio.sleep(float(seconds))
    print(json.dumps(told), flush=True)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
