"""The tables of `python -m tests.corpus.mutation` are as they must be, and cover each conclusive signature shipped."""

from __future__ import annotations

import pytest

from appid.edge.rule_files import load_applications
from tests.corpus.carriers import Carrier, carriers_2015, carriers_2023
from tests.corpus.mutation import bytes_of, carriers, changes, holding

FACETIME = (*carriers_2015(), *carriers_2023())
ALL = carriers()


def of(carrier: Carrier) -> str:
    return f"{carrier.application}-{carrier.signature}-{len(carrier.payload)}"


def test_every_conclusive_signature_has_a_carrier_and_changes() -> None:
    conclusive = {
        (application.name, signature.name)
        for application in load_applications().values()
        for signature in application.signatures
        if signature.strength == "conclusive"
    }
    carried = {(one.application, one.signature) for one in ALL}
    beneath = {("gre", "encapsulation"), ("esp", "encapsulation"), ("6in4", "encapsulation")}
    assert carried == conclusive - beneath, "a packet of an IP protocol shows both of its signatures"
    assert {(one.carrier.application, one.signature) for one in changes()} == carried
    facetime = {one.signature for one in FACETIME}
    for wanted in (True, False):
        assert {one.signature for one in changes() if one.wanted is wanted} >= facetime


@pytest.mark.parametrize("carrier", ALL, ids=of)
def test_each_byte_does_what_its_field_does(carrier: Carrier) -> None:
    assert carrier.signature in holding(carrier, carrier.payload)
    measured = list(bytes_of(carrier))
    assert sum(one.field.end - one.field.start for one in measured) == len(carrier.payload), "every byte is in a field"
    assert [(one.field, one.still, one.mutants) for one in measured if not one.agrees] == []


def test_each_change_of_a_field_does_what_it_must() -> None:
    wrong = [(one.carrier.application, one.signature, one.what, one.found) for one in changes()]
    right = [(one.carrier.application, one.signature, one.what, one.wanted) for one in changes()]
    assert [one for one, other in zip(wrong, right, strict=True) if one != other] == []


@pytest.mark.parametrize("carrier", FACETIME, ids=of)
def test_a_packet_cut_short_is_not_facetime(carrier: Carrier) -> None:
    """RFC 8489 section 5; of a stream the rest is to come, and what it says is not known before."""
    assert [size for size in range(len(carrier.payload)) if holding(carrier, carrier.payload[:size])] == []
