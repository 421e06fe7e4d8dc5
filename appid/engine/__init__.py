"""The engine: the one room that knows the whole sentence. handle(event, now) -> commands; no clock, no socket, no file.

event.py   what the edge tells      report.py  what the engine tells of flows, calls and pinholes
read.py    a packet -> layers and facts
record.py  what is kept of a flow   calls.py   flows and dialogs -> calls
openings.py  what is open for calls: expectations, pinholes, bindings   paths.py   the way of their signalling
core.py    Engine.handle
reload.py  what a new policy says of flows that the kernel holds
kept.py    a call as values that outlive the engine, and back
"""

from appid.engine.core import Engine
from appid.engine.event import CommandFailed, Event, FlowEnded, Kept, PacketQueued, Restored, RulesLoaded, Tick
from appid.engine.record import Settings
from appid.engine.report import (
    AnomalyReport,
    CallReport,
    DecisionReport,
    ExceptionReport,
    FlowReport,
    PinholeReport,
    TranslationReport,
)

__all__ = [
    "AnomalyReport",
    "CallReport",
    "CommandFailed",
    "DecisionReport",
    "Engine",
    "Event",
    "ExceptionReport",
    "FlowEnded",
    "FlowReport",
    "Kept",
    "PacketQueued",
    "PinholeReport",
    "Restored",
    "RulesLoaded",
    "Settings",
    "Tick",
    "TranslationReport",
]
