"""Who gives way: what is over, then what rings, the oldest first; nobody who talks."""

from __future__ import annotations

from appid.alg.dialog import Dialog
from appid.alg.shares import Holder, Shares
from appid.wire import packed

HOST, PEER = packed("192.0.2.101"), packed("203.0.113.201")


def made(shares: Shares, name: str) -> Dialog:
    dialog = Dialog(name, HOST, PEER, False, "a", {("INVITE", False): 1})
    shares.add(dialog)
    return dialog


def test_the_order_in_which_they_give_way() -> None:
    shares = Shares(remote=3)
    rings, talks, over = (made(shares, name) for name in ("rings", "talks", "over"))
    talks.answered = True
    over.end(1.0)
    for dialog in (talks, over):
        shares.moved(dialog)
    new = Dialog("new", HOST, PEER, False, "a", {("INVITE", False): 1})
    full = shares.full(new)
    assert full == Holder("remote", PEER)
    for expected in (over, rings):
        assert shares.first(full) is expected
        shares.drop(expected)
        assert shares.full(new) is None
    assert shares.first(full) is None


def test_what_an_inside_host_begins_is_nobodys_share_outside() -> None:
    shares = Shares(remote=1, host=2)
    mine = Dialog("mine", HOST, PEER, True, "a", {("INVITE", True): 1})
    shares.add(mine)
    assert shares.full(Dialog("new", HOST, PEER, False, "a", {("INVITE", False): 1})) is None
    made(shares, "theirs")
    assert str(shares.full(mine)) == "host 192.0.2.101"
