"""The table of `python -m tests.corpus.mutation` is as it must be, and covers each conclusive signature of FaceTime."""

from __future__ import annotations

import pytest

from appid.edge.rule_files import load_applications
from tests.corpus.carriers import Carrier, carriers_2015, carriers_2023
from tests.corpus.mutation import bytes_of, changes, holding

CARRIERS = (*carriers_2015(), *carriers_2023())


def test_every_conclusive_signature_has_a_carrier_and_changes() -> None:
    conclusive = {s.name for s in load_applications()["facetime"].signatures if s.strength == "conclusive"}
    assert {one.signature for one in CARRIERS} == conclusive
    assert {one.signature for one in changes()} == conclusive
    for wanted in (True, False):
        assert {one.signature for one in changes() if one.wanted is wanted} == conclusive


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda one: f"{one.signature}-{len(one.payload)}")
def test_each_byte_does_what_its_field_does(carrier: Carrier) -> None:
    assert carrier.signature in holding(carrier.payload, carrier.proto)
    measured = list(bytes_of(carrier))
    assert sum(one.field.end - one.field.start for one in measured) == len(carrier.payload), "every byte is in a field"
    assert [(one.field, one.still, one.mutants) for one in measured if not one.agrees] == []


def test_each_change_of_a_field_does_what_it_must() -> None:
    assert [(one.signature, one.what, one.found) for one in changes() if one.found != one.wanted] == []


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda one: f"{one.signature}-{len(one.payload)}")
def test_a_packet_cut_short_is_not_facetime(carrier: Carrier) -> None:
    """RFC 8489 section 5. Of a stream, whose rest is to come, the header lines that are whole count at once."""
    cut = [size for size in range(len(carrier.payload)) if holding(carrier.payload[:size], carrier.proto)]
    lines = carrier.payload.find(b":80\r\n") + 5
    assert cut == ([] if carrier.proto == "udp" else list(range(lines, len(carrier.payload))))
