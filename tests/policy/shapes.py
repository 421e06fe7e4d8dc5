"""Rule sets of any size in shapes that hurt: each is a policy file with `count` rules (or zones, groups, overrides)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

_ZONES = '[zones]\ninside = { interfaces = ["lan0"], networks = ["10.0.0.0/8"] }\noutside = { interfaces = ["wan0"] }\n'


def _rule(number: int, action: str = "allow", **more: str) -> str:
    rest = "".join(f"{key.removesuffix('_')} = {value}\n" for key, value in more.items())
    return f'[[rule]]\nname = "r{number}"\naction = "{action}"\n{rest}'


def _rules(lines: Iterable[str], head: str = _ZONES) -> str:
    return head + "".join(lines)


def _host(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _net(number: int, prefix: int = 24) -> str:
    return f'["10.{number >> 8 & 255}.{number & 255}.0/{prefix}"]'


CALLS, MANY = '["facetime", "sip"]', '["facetime", "sip", "stun", "ssl", "jabber", "ichat-av", "turn", "apple-push"]'


def friendly(count: int) -> str:
    return _rules(_rule(i, from_='["inside"]', source=_net(i), applications=CALLS) for i in range(count))


def alike(count: int) -> str:
    """Each rule is like the one before: all but the first are shadowed."""
    return _rules(_rule(i, applications=CALLS) for i in range(count))


def ports(count: int) -> str:
    """Everything overlaps in all but one port."""
    return _rules(_rule(i, applications=CALLS, service=f'["udp/{1024 + i}"]') for i in range(count))


def port_lists(count: int) -> str:
    """Fifty ports in each rule, in all but one of them the same fifty."""
    lists = [", ".join(f'"udp/{1024 + 2 * j + (i == j)}"' for j in range(50)) for i in range(7)]
    return _rules(_rule(i, applications=CALLS, service=f"[{lists[i % 7]}]") for i in range(count))


def overlapping(count: int) -> str:
    """Hosts first, then wide networks of different sizes that hold them: nothing covers a wide one."""
    half = count // 2
    hosts = (_rule(i, source=f'["{_host(i * 7)}"]', applications=MANY, service='"any"') for i in range(half))
    wide = (
        _rule(i, source=f'["10.0.0.0/{8 + i % 8}"]', destination=f'["{_host(i)}"]', applications='["facetime"]')
        for i in range(half, count)
    )
    return _rules([*hosts, *wide])


def exceptions(count: int) -> str:
    """Refusals for single hosts, each followed by the same for all."""
    return _rules(
        _rule(i, "deny", source=f'["{_host(i)}"]', applications='["stun"]')
        if i % 2
        else _rule(i, destination=_net(i), applications='["facetime", "stun"]')
        for i in range(count)
    )


def crossing(count: int) -> str:
    """Half name a source, half a destination: every pair of them meets."""
    return _rules(
        _rule(i, source=_net(i), applications=MANY) if i % 2 else _rule(i, "deny", destination=_net(i), service='"any"')
        for i in range(count)
    )


def slices(count: int) -> str:
    """Rules that all but cover the one that follows them: a corner is covered, the middle is not."""
    return _rules(
        _rule(i, source=f'["{_host(0)}", "{_host(255)}", "{_host(i)}"]', applications=MANY, service='"any"')
        if i % 2
        else _rule(i, source='["10.0.0.0/24"]', destination=_net(i), applications='["facetime"]')
        for i in range(count)
    )


def anything(count: int) -> str:
    """Any application, any port, of sources that nest."""
    return _rules(
        _rule(i, ("allow", "deny", "drop")[i % 3], source=f'["10.{i & 255}.0.0/{16 + i % 9}"]',
              destination=_net(i), service='"any"')
        for i in range(count)
    )  # fmt: skip


def zones(count: int) -> str:
    """A zone for each ten rules; rules between two of them, and rules from anywhere."""
    several = max(2, count // 10)
    head = "[zones]\n" + "".join(f'z{i} = {{ networks = ["10.{i >> 8}.{i & 255}.0/24"] }}\n' for i in range(several))
    return _rules(
        (
            _rule(i, from_=f'["z{i % several}"]', to=f'["z{(i * 7) % several}"]', applications=MANY)
            if i % 3
            else _rule(i, "deny", applications='["stun"]', destination=_net(i))
            for i in range(count)
        ),
        head,
    )


def groups(count: int) -> str:
    """A group for each rule, each holding the one before, and address groups of a hundred."""
    chain = "".join(f'g{i} = ["{f"g{i - 1}" if i else "facetime"}", "sip"]\n' for i in range(count))
    hosts = ", ".join(f'"{_host(i)}"' for i in range(100))
    head = f"{_ZONES}[groups.applications]\n{chain}[groups.addresses]\nmany = [{hosts}]\n"
    return _rules(
        (_rule(i, source='["many"]', destination=_net(i), applications=f'["g{i}"]') for i in range(count)), head
    )


def overrides(count: int) -> str:
    made = (
        f'[[override]]\napplication = "sip"\nsource = ["{_host(i)}"]\nports = ["udp/{1024 + i}"]\n'
        for i in range(count)
    )
    return _rules(made)


def wide_overrides(count: int) -> str:
    """As slices: those before hold the corners of the ones behind them, not what is between."""
    made = (
        f'[[override]]\napplication = "sip"\nsource = ["{_host(0)}", "{_host(255)}", "{_host(i & 255)}"]\n'
        if i % 2
        else f'[[override]]\napplication = "dns"\nsource = ["10.0.0.0/24"]\nports = ["udp/{i}-{i + 40000}"]\n'
        for i in range(count)
    )
    return _rules(made)


def schedules(count: int) -> str:
    return _rules(
        _rule(i, applications=MANY, source=_net(i // 2),
              schedule=f'{{ from = "{i % 23:02}:{i % 59:02}", to = "23:59", timezone = "Europe/Berlin" }}')
        for i in range(count)
    )  # fmt: skip


SHAPES: dict[str, Callable[[int], str]] = {
    made.__name__: made
    for made in (
        friendly, alike, ports, port_lists, overlapping, exceptions, crossing, slices, anything, zones, groups,
        overrides, wide_overrides, schedules,
    )
}  # fmt: skip
