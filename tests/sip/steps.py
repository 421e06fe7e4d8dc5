"""Steps of a SIP conversation as sipp's XML. In: who speaks, what, a description. Out: <send> and <recv>.

A Party is the caller or the callee of one dialog; its `known` words (URIs, tags) are sipp keywords or variables that
earlier steps assigned. RFC 3261 (requests and answers), 3264 and 8866 (descriptions), 3262 (PRACK), 3311 (UPDATE).
"""

from __future__ import annotations

from dataclasses import dataclass

HERE, REMOTE = "[own]", "[far]"
"""Address and port of the party and of whom it calls, given to sipp as keys: a bracket begins a keyword."""
PACKETS = 10
"""Media packets of one `play`."""

_COMPACT = {
    "Via": "v", "From": "f", "To": "t", "Call-ID": "i", "Contact": "m", "Content-Type": "c", "Content-Length": "l",
}  # fmt: skip


@dataclass(frozen=True)
class Stream:
    """One m= line: its port as an offset from sipp's media port, None for a refused one; `more`: its attributes."""

    kind: str = "audio"
    offset: int | None = 0
    payload: int = 0
    more: tuple[str, ...] = ()
    connection: bool = False

    def lines(self) -> list[str]:
        port = "0" if self.offset is None else f"[media_port+{self.offset}]" if self.offset else "[media_port]"
        made = [f"m={self.kind} {port} RTP/AVP {self.payload}"]
        if self.connection:
            made.append("c=IN IP[media_ip_type] [media_ip]")
        return [*made, *(f"a={attribute}" for attribute in self.more)]


def sdp(*streams: Stream, connection: str = "[media_ip]", version: int = 1, more: tuple[str, ...] = ()) -> str:
    """RFC 8866; `connection` empty: c= stands at each m=."""
    lines = ["v=0", f"o=- 20518 {version} IN IP[media_ip_type] [media_ip]", "s=-"]
    if connection:
        lines.append(f"c=IN IP[media_ip_type] {connection}")
    lines += ["t=0 0", *more]
    for stream in streams or (Stream(),):
        lines += stream.lines()
    return "\n".join(lines)


def _send(start: str, headers: list[tuple[str, str]], body: str, retransmit: bool, compact: bool) -> str:
    if body:
        headers = [*headers, ("Content-Type", "application/sdp")]
    headers = [*headers, ("Content-Length", "[len]" if body else "0")]
    lines = [start]
    for name, value in headers:
        if not name:
            lines.append(value)  # a line that sipp fills in whole
        else:
            lines.append(f"{_COMPACT.get(name, name) if compact else name}: {value}")
    text = "\n".join(lines) + "\n\n" + (body + "\n" if body else "")
    again = ' retrans="500"' if retransmit else ""
    return f"<send{again}><![CDATA[\n{text}]]></send>"


def play(who: str, phase: int, kind: str = "audio") -> str:
    """PACKETS media packets, 10 ms apart, to where the last description said; see tests/sip/media.py."""
    return f'<nop><action><exec play_pcap_{kind}="{who}-{phase}.pcap"/></action></nop>'


def done(status: int = 200) -> str:
    """The final answer to a request of our own."""
    return _recv(f'response="{status}"')


def pause(milliseconds: int = 250) -> str:
    return f'<pause milliseconds="{milliseconds}"/>'


def _keep(expression: str, header: str, variable: str) -> str:
    return f'<ereg regexp="{expression}" search_in="hdr" header="{header}:" assign_to="{variable}"/>'


def _recv(what: str, actions: str = "", more: str = "") -> str:
    return f"<recv {what}{more}><action>{actions}</action></recv>" if actions else f"<recv {what}{more}/>"


def ignore(status: int) -> str:
    """May come or not."""
    return _recv(f'response="{status}"', more=' optional="true"')


@dataclass(frozen=True)
class Party:
    """`role`: caller or callee; `target`: Request-URI of the caller's first INVITE; `compact`: short header names;
    `proxied`: a proxy stays in the path; `user`: by which name it knows the callee."""

    role: str
    target: str = f"sip:callee@{REMOTE}"
    compact: bool = False
    tag: str = ""
    proxied: bool = False
    user: str = "callee"

    @property
    def _tag(self) -> str:
        return self.tag or f"{self.role}-[pid]"

    @property
    def _own(self) -> str:
        return f"<sip:caller@{HERE}>;tag={self._tag}" if self.role == "caller" else f"[$to];tag={self._tag}"

    @property
    def _other(self) -> str:
        return f"<{self.target}>[$tag]" if self.role == "caller" else "[$from]"

    @property
    def contact(self) -> str:
        return f"<sip:{self.role}@{HERE};transport=[transport]>"

    def _name(self, header: str) -> str:
        return _COMPACT.get(header, header) if self.compact else header

    # -- requests

    def request(
        self,
        method: str,
        cseq: int,
        body: str = "",
        uri: str = "",
        other: str = "",
        branch: str = "[branch]",
        more: tuple[tuple[str, str], ...] = (),
        retransmit: bool = True,
    ) -> str:
        """A request within the dialog, unless `uri` and `other` (To) say another."""
        if self.proxied and not uri:
            more = (*more, ("", "[routes]"))
        headers = [
            ("Via", f"SIP/2.0/[transport] {HERE};branch={branch}"),
            *more,
            ("From", self._own),
            ("To", other or self._other),
            ("Call-ID", "[call_id]"),
            ("CSeq", f"{cseq} {method}"),
            ("Contact", self.contact),
            ("Max-Forwards", "70"),
        ]
        to = uri or ("[next_url]" if self.role == "caller" else "[$contact]")
        return _send(f"{method} {to} SIP/2.0", headers, body, retransmit and method != "ACK", self.compact)

    def invite(self, body: str | None = None, cseq: int = 1, more: tuple[tuple[str, str], ...] = ()) -> str:
        """The first one."""
        own = sdp() if body is None else body
        branch = f"z9hG4bK-[pid]-[call_number]-i{cseq}"
        return self.request("INVITE", cseq, own, self.target, f"<{self.target}>", branch, more)

    def cancel(self, cseq: int = 1) -> str:
        branch = f"z9hG4bK-[pid]-[call_number]-i{cseq}"
        return self.request("CANCEL", cseq, "", self.target, f"<{self.target}>", branch)

    def refused_ack(self, cseq: int = 1) -> str:
        """ACK of a final refusal: of the INVITE's transaction (RFC 3261 section 17.1.1.3)."""
        branch = f"z9hG4bK-[pid]-[call_number]-i{cseq}"
        return self.request("ACK", cseq, "", self.target, f"<{self.target}>[$tag]", branch)

    # -- what arrives

    def answered(self, status: int) -> str:
        """A response whose tag, Contact and challenge count."""
        more = ' rrs="true"' if status < 300 else ' auth="true"' if status == 401 else ""
        return _recv(f'response="{status}"', _keep(";tag=.*", self._name("To"), "tag"), more)

    def asked(self) -> str:
        """An INVITE that `respond` answers, at once or later."""
        kept = (("Via", "via"), ("CSeq", "cseq"), ("From", "from"), ("To", "to"))
        keep = "".join(_keep(".*", self._name(header), variable) for header, variable in kept)
        keep += _keep("sip:[^>]*", self._name("Contact"), "contact")
        if not self.proxied:
            return _recv('request="INVITE"', keep)
        return _recv('request="INVITE"', keep + _keep(".*", "Record-Route", "path"), ' rrs="true"')

    @staticmethod
    def told(method: str) -> str:
        """A request that the next `reply` answers, or an ACK."""
        return _recv(f'request="{method}"')

    # -- responses

    def respond(
        self,
        status: int,
        reason: str,
        body: str = "",
        more: tuple[tuple[str, str], ...] = (),
        retransmit: bool = False,
        tag: str | None = None,
    ) -> str:
        """To the INVITE that `asked` kept; `tag` empty: it was one within the dialog."""
        if self.proxied and tag != "":
            more = (*more, ("Record-Route", "[$path]"))
        headers = [
            ("Via", "[$via]"),
            *more,
            ("From", "[$from]"),
            ("To", f"[$to];tag={self._tag if tag is None else tag}" if tag != "" else "[$to]"),
            ("Call-ID", "[call_id]"),
            ("CSeq", "[$cseq]"),
            ("Contact", self.contact),
        ]
        return _send(f"SIP/2.0 {status} {reason}", headers, body, retransmit, self.compact)

    def reply(self, status: int = 200, reason: str = "OK", body: str = "", retransmit: bool = False) -> str:
        """To the request that came last, within the dialog."""
        lines = ("[last_Via:]", "[last_From:]", "[last_To:]", "[last_Call-ID:]", "[last_CSeq:]")
        headers = [*(("", line) for line in lines), ("Contact", self.contact)]
        return _send(f"SIP/2.0 {status} {reason}", headers, body, retransmit, False)


def register(party: Party) -> list[str]:
    """The callee inside makes itself known: what calls it comes on this flow. sipp leaves `r///` out of the Call-ID."""
    headers = [
        ("Via", f"SIP/2.0/[transport] {HERE};branch=z9hG4bK-[pid]-[call_number]-r;rport"),
        ("From", f"<sip:{party.user}@{HERE}>;tag=r[pid]"),
        ("To", f"<sip:{party.user}@{HERE}>"),
        ("Call-ID", "r///[call_id]"),
        ("CSeq", "1 REGISTER"),
        ("Contact", party.contact),
        ("Max-Forwards", "70"),
    ]
    asked = _send(f"REGISTER sip:{REMOTE} SIP/2.0", headers, "", True, False)
    return [asked, _recv('response="200"')]


def registrar() -> list[str]:
    """The caller outside takes the registration, and calls where it says."""
    lines = ("[last_Via:]", "[last_From:]", "[last_To:];tag=reg", "[last_Call-ID:]", "[last_CSeq:]", "[last_Contact:]")
    headers = [("", line) for line in lines]
    taken = _recv('request="REGISTER"', _keep("sip:[^>]*", "Contact", "target"))
    return [taken, _send("SIP/2.0 200 OK", headers, "", False, False), pause(60)]


VARIABLES = ("tag", "via", "cseq", "from", "to", "contact", "target", "path")


def scenario(name: str, steps: list[str]) -> str:
    """The file. A variable that nobody reads is an error to sipp, so all are named once more."""
    text = "\n".join(steps)
    kept = ",".join(variable for variable in VARIABLES if f'assign_to="{variable}"' in text)
    named = f'<Reference variables="{kept}"/>' if kept else ""
    return f'<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scenario name="{name}">\n{text}\n{named}</scenario>\n'
