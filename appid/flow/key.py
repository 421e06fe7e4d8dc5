"""The 5-tuple, under the name that flows know it by. It is made below this layer, by `packet`, so it stands in wire."""

from __future__ import annotations

from appid.wire import FlowKey

__all__ = ["FlowKey"]
