"""Which worker a flow belongs to: the one whose queue the chains choose for it (chain.py, APPID-QUEUE).

In: a flow's original direction as mangle/FORWARD sees it. Out: the worker's index.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from appid.dataplane.bytecode import chooser, queue_of
from appid.flow.key import FlowKey


@dataclass(frozen=True, slots=True)
class Share:
    """Worker `index` of `workers`; `inside` tells which addresses are inside."""

    index: int
    workers: int
    inside: Callable[[bytes], bool]

    def holds(self, address: bytes) -> bool:
        """Whether this inside host is one of the worker's."""
        return self.workers == 1 or queue_of(address, self.workers) == self.index

    def owns(self, key: FlowKey) -> bool:
        """Its inside host decides; of two, the one that the chains choose by, whichever begins. What has none is the
        first worker's."""
        if self.workers == 1:
            return True
        hosts = [address for address in (key.src, key.dst) if self.inside(address)]
        return self.holds(chooser(hosts)) if hosts else self.index == 0
