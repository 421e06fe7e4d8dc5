"""Headless Chromium over its debugging pipe (Chrome DevTools Protocol): no port, no driver, no package.

Messages are JSON ended by a zero byte, on file descriptors 3 (to the browser) and 4 (from it).
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

PATIENCE = 60.0
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
    "--force-color-profile=srgb", "--disable-dev-shm-usage", "--no-default-browser-check", "--mute-audio",
)  # fmt: skip
Reply = dict[str, Any]


def _pipe() -> tuple[int, int]:
    """Its ends above 9, clear of the numbers that the browser expects."""
    low = os.pipe()
    high = fcntl.fcntl(low[0], fcntl.F_DUPFD_CLOEXEC, 10), fcntl.fcntl(low[1], fcntl.F_DUPFD_CLOEXEC, 10)
    for end in low:
        os.close(end)
    return high


class Browser:
    """One page in one browser. `requests` and `faults`: what the page asked for, threw, and was refused."""

    def __init__(self, profile: Path) -> None:
        to_read, self._write = _pipe()
        self._read, to_write = _pipe()
        command = f'exec chromium "$@" 3<&{to_read} 4>&{to_write} >/dev/null 2>&1'
        self._process = subprocess.Popen(
            ["bash", "-c", command, "chromium", *ARGUMENTS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_read, to_write),
        )
        os.close(to_read)
        os.close(to_write)
        self._received = b""
        self._number = 0
        self._events: list[Reply] = []
        target = next(t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session: str | None = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        os.close(self._write)
        os.close(self._read)

    # -- the protocol --------------------------------------------------------------------------------------------

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> Reply:
        self._number += 1
        number = self._number
        message: Reply = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while (reply := self._receive(deadline)).get("id") != number:
            self._events.append(reply)
        if "error" in reply:
            raise AssertionError(f"{method}: {reply['error']['message']}")
        result: Reply = reply["result"]
        return result

    def _receive(self, deadline: float) -> Reply:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._read], [], [], max(deadline - time.monotonic(), 0))
            piece = os.read(self._read, 1 << 20) if ready else b""
            assert piece, "the browser does not answer"
            self._received += piece
        line, _, self._received = self._received.partition(b"\0")
        message: Reply = json.loads(line)
        return message

    def call(self, method: str, **parameters: Any) -> Reply:
        return self._call(method, self._session, **parameters)

    def seen(self, method: str) -> list[Reply]:
        """The parameters of each event of that name so far."""
        return [event["params"] for event in self._events if event.get("method") == method]

    # -- a page --------------------------------------------------------------------------------------------------

    def open(self, path: Path, width: int = 1280, height: int = 900) -> None:
        self._events.clear()
        self.size(width, height)
        self.call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + PATIENCE
        while not self.seen("Page.loadEventFired"):
            self._events.append(self._receive(deadline))

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def mode(self, scheme: Literal["light", "dark"], media: str = "") -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def run(self, expression: str) -> Any:
        """The value of an expression in the page, by a world that its policy does not bind."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def key(self, key: str) -> None:
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = {"Enter": 13, "Tab": 9, "ArrowDown": 40, "ArrowUp": 38, "ArrowLeft": 37, "ArrowRight": 39, "End": 35,
                "Home": 36, " ": 32}.get(key, ord(key[0]))  # fmt: skip
        down = "keyDown" if text else "rawKeyDown"
        self.call("Input.dispatchKeyEvent", type=down, key=key, code=key, windowsVirtualKeyCode=code, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self, path: Path) -> None:
        path.write_bytes(
            base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])
        )

    @property
    def requests(self) -> list[str]:
        return [event["request"]["url"] for event in self.seen("Network.requestWillBeSent")]

    @property
    def faults(self) -> list[str]:
        """Exceptions, and what the browser logged: refusals by the content security policy among it."""
        thrown = [str(event["exceptionDetails"].get("text")) for event in self.seen("Runtime.exceptionThrown")]
        return thrown + [event["entry"]["text"] for event in self.seen("Log.entryAdded")]
