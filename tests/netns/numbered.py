"""Numbered datagrams from one socket to another: which of them came."""

from __future__ import annotations

import socket
import threading


class Numbered:
    """Sent every `apart` seconds from `begin` on, each with `head` before its number."""

    def __init__(
        self, sender: socket.socket, receiver: socket.socket, to: tuple[str, int], apart: float, head: bytes
    ) -> None:
        self.sender, self.receiver, self.to, self.apart, self.head = sender, receiver, to, apart, head
        self.receiver.settimeout(0.5)
        self.sent, self.came = 0, set[int]()
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]

    def begin(self) -> None:
        for thread in self.threads:
            thread.start()

    def send(self) -> None:
        self.sender.sendto(self.head + self.sent.to_bytes(4, "big"), self.to)
        self.sent += 1

    def _send(self) -> None:
        while not self.stopped.wait(self.apart):
            self.send()

    def _receive(self) -> None:
        start = len(self.head)
        while True:
            try:
                self.came.add(int.from_bytes(self.receiver.recv(100)[start : start + 4], "big"))
            except TimeoutError:
                if self.stopped.is_set():
                    return

    def stop(self) -> set[int]:
        """The numbers of those that were lost."""
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        return set(range(self.sent)) - self.came
