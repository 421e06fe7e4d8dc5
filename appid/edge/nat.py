"""NAT bindings: two map elements in one nft transaction, through a libnftables that is kept open (about 0.1 ms).

In: BindNat and UnbindNat. A binding holds for the packet that is in the queue at that moment; conntrack entries that
would keep another mapping are deleted, or they would poison it.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from appid.dataplane.chain import NAT_TABLE
from appid.dataplane.command import BindNat, UnbindNat
from appid.dataplane.state import Element, element
from appid.edge.conntrack import Conntrack, Entry, TupleFilter
from appid.edge.netlink import KernelError
from appid.flow.key import FlowKey
from appid.wire import UDP, packed, text

_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON


class Nft:
    """libnftables in this process's network namespace."""

    def __init__(self) -> None:
        try:
            library: Any = ctypes.CDLL(ctypes.util.find_library("nftables") or "libnftables.so.1")
        except OSError as error:
            raise KernelError("libnftables.so.1", str(error)) from error
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for name in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
            getattr(library, name).restype = ctypes.c_char_p
            getattr(library, name).argtypes = [ctypes.c_void_p]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        for name in ("nft_ctx_buffer_error", "nft_ctx_buffer_output", "nft_ctx_free"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library = library
        self._context = library.nft_ctx_new(0)
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)

    def elements(self, name: str) -> list[Any]:
        """Keys and values of a map in our table, as nft's JSON has them; none where there is no such map (yet)."""
        self._library.nft_ctx_output_set_flags(self._context, _JSON)
        try:
            self.run(f"list map inet {NAT_TABLE} {name}")
            told = json.loads(self._library.nft_ctx_get_output_buffer(self._context) or b"{}")
        except (KernelError, ValueError):
            return []
        finally:
            self._library.nft_ctx_output_set_flags(self._context, 0)
        return [pair for each in told.get("nftables", ()) for pair in each.get("map", {}).get("elem", ())]

    def close(self) -> None:
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def run(self, commands: str) -> None:
        """One transaction: all of it or nothing. KernelError with nft's own words."""
        if self._library.nft_run_cmd_from_buffer(self._context, commands.encode()):
            words = self._library.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
            raise KernelError("nft", words.splitlines()[0] if words else "refused")


def _protocol(number: int) -> str:
    return {6: "tcp", 17: "udp"}.get(number, str(number))


def _elements(binding: BindNat | UnbindNat) -> tuple[str, str, str, str]:
    """dnat element's map and key, snat element's map and key."""
    family = 6 if len(binding.inside) == 16 else 4
    proto, peer = _protocol(binding.proto), text(binding.peer)
    return (
        f"dnat{family}",
        f"{proto} . {text(binding.outside)} . {binding.outside_port} . {peer}",
        f"snat{family}",
        f"{proto} . {text(binding.inside)} . {binding.port} . {peer}",
    )


def _read(pair: Any) -> UnbindNat | None:
    """An element of a dnat map, as nft's JSON has it."""
    try:
        key, value = pair
        proto, outside, outside_port, peer = key.get("elem", {}).get("val", key)["concat"]
        inside, port = value["concat"]
        number = {"tcp": 6, "udp": 17}.get(proto) or int(proto)
        return UnbindNat(number, packed(inside), int(port), packed(outside), int(outside_port), packed(peer))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _delete(binding: BindNat | UnbindNat) -> str:
    dnat, outside, snat, inside = _elements(binding)
    return (
        f"delete element inet {NAT_TABLE} {dnat} {{ {outside} }}\n"
        f"delete element inet {NAT_TABLE} {snat} {{ {inside} }}\n"
    )


def _add(binding: BindNat) -> str:
    dnat, outside, snat, inside = _elements(binding)
    to_inside = f"{text(binding.inside)} . {binding.port}"
    to_outside = f"{text(binding.outside)} . {binding.outside_port}"
    timeout = f"timeout {max(binding.timeout, 1)}s"
    return (
        f"add element inet {NAT_TABLE} {dnat} {{ {outside} {timeout} : {to_inside} }}\n"
        f"add element inet {NAT_TABLE} {snat} {{ {inside} {timeout} : {to_outside} }}\n"
    )


class Bindings:
    """The bindings in the kernel."""

    def __init__(self, conntrack: Conntrack, nft: Nft | None = None) -> None:
        self._conntrack = conntrack
        self._nft = nft or Nft()
        self._made: dict[Element, BindNat] = {}
        self._added: set[BindNat] = set()
        self._guarded: Collection[int] = ()

    def guard(self, ports: range, outside: Collection[bytes]) -> None:
        """The rule sets drop unforeseen packets to these UDP ports of the gateway itself: from now on no peer's early
        packet can make an entry there, so `bind` need not look for one. Those made before are deleted here, once."""
        self._guarded = ports
        for entry in list(self._conntrack.entries()):
            to = entry.orig
            if to.proto == UDP and to.dport in ports and to.dst in outside and entry.reply.src == to.dst:
                self._conntrack.delete(to)

    def close(self) -> None:
        self._nft.close()

    def forget(self) -> None:
        """What was made may be there no more."""
        self._made.clear()

    def listed(self) -> list[UnbindNat]:
        """The bindings that the kernel holds, each as what would take it out."""
        found = []
        for name in ("dnat4", "dnat6"):
            for pair in self._nft.elements(name):
                binding = _read(pair)
                if binding is not None:
                    found.append(binding)
        return found

    def prepare(self, bindings: Sequence[BindNat]) -> None:
        """Those of one packet, in one transaction: what `bind` does next finds them there. If they do not go together,
        each goes alone."""
        new = [binding for binding in bindings if element(binding) not in self._made]
        self._added = set()
        if len(new) < 2:
            return
        with contextlib.suppress(KernelError):
            self._nft.run("".join(map(_add, new)))
            self._added = set(new)

    def bind(self, binding: BindNat) -> None:
        """Make or refresh a binding, then delete the entries that hold another mapping between its ends."""
        before = self._made.get(element(binding))
        refresh = before is not None and _same(before, binding)
        try:
            # Kernels before 6.x may not refresh the timeout of an element that is added again: delete it first.
            if binding not in self._added:
                self._nft.run(_delete(binding) + _add(binding) if refresh else _add(binding))
        except KernelError:
            self._replace(binding)
            refresh = False
        self._added.discard(binding)
        self._made[element(binding)] = binding
        if not refresh:
            for entry in self._known(binding) if binding.peer_ports is not None else self._looked_for(binding):
                if _ends(entry, binding) != _wanted(binding):
                    self._conntrack.delete(entry.orig)

    def _replace(self, binding: BindNat) -> None:
        dnat, outside, snat, inside = _elements(binding)
        # An element that maps elsewhere must go first, each on its own as one may be missing.
        for where, key in ((dnat, outside), (snat, inside)):
            try:
                self._nft.run(f"delete element inet {NAT_TABLE} {where} {{ {key} }}\n")
            except KernelError:
                continue
        self._nft.run(_add(binding))

    def unbind(self, bindings: Sequence[UnbindNat]) -> None:
        """Take bindings out, in one transaction; the flows that live by them are the caller's. What is gone already is
        passed over."""
        for binding in bindings:
            self._made.pop(element(binding), None)
        commands = "".join(map(_delete, bindings))
        if not commands:
            return
        try:
            self._nft.run(commands)
        except KernelError:
            for line in commands.splitlines():
                with contextlib.suppress(KernelError):
                    self._nft.run(line + "\n")

    def _between(self, binding: BindNat | UnbindNat) -> list[Entry]:
        arriving = TupleFilter(binding.proto, binding.peer, None, binding.outside, binding.outside_port)
        return [*self._from_inside(binding), *self._conntrack.find(arriving)]

    def _from_inside(self, binding: BindNat | UnbindNat) -> list[Entry]:
        """Each look walks the kernel's whole table: 4 ms where that has 262,144 buckets."""
        return self._conntrack.find(TupleFilter(binding.proto, binding.inside, binding.port, binding.peer))

    def _looked_for(self, binding: BindNat) -> list[Entry]:
        """Entries between the two ends: the client's own, and local ones that a peer's early packet made."""
        guarded = binding.proto == UDP and binding.outside_port in self._guarded
        return self._from_inside(binding) if guarded else self._between(binding)

    def _known(self, binding: BindNat) -> Iterator[Entry]:
        """The same where the peer's ports are known: microseconds, whatever the table holds."""
        for port in binding.peer_ports or ():
            for key in (
                FlowKey(binding.proto, binding.inside, binding.port, binding.peer, port),
                FlowKey(binding.proto, binding.peer, port, binding.outside, binding.outside_port),
            ):
                entry = self._conntrack.entry(key)
                if entry is not None:
                    yield entry


def _same(before: BindNat, binding: BindNat) -> bool:
    return replace(before, timeout=0, peer_ports=None) == replace(binding, timeout=0, peer_ports=None)


def _wanted(binding: BindNat) -> set[tuple[bytes, int]]:
    return {(binding.inside, binding.port), (binding.outside, binding.outside_port)}


def _ends(entry: Entry, binding: BindNat) -> set[tuple[bytes, int]]:
    """The inside and outside end that the entry maps to one another."""
    if entry.orig.src == binding.inside:
        return {(entry.orig.src, entry.orig.sport), (entry.reply.dst, entry.reply.dport)}
    return {(entry.orig.dst, entry.orig.dport), (entry.reply.src, entry.reply.sport)}
