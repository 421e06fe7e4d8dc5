"""Rule sets of others, as their programs write them (iptables-restore format; `{ip}` and `{icmp}` differ by family).

Each is written from what the program's own documentation and `iptables-save` output show of its chains: docker's
FORWARD policy and isolation stages, fail2ban's actions, ufw's before/after/reject chains, firewalld's zones; in
firewalld's case also its nftables backend.
"""

from __future__ import annotations

DOCKER = """*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s {docker} ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""

FAIL2BAN = """*filter
:f2b-sshd - [0:0]
:f2b-forward - [0:0]
-I INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
-I FORWARD -j f2b-forward
-A f2b-sshd -s {client} -j REJECT
-A f2b-sshd -j RETURN
-A f2b-forward -d {banned} -j DROP
-A f2b-forward -j RETURN
COMMIT
"""

UFW = """*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:ufw-before-logging-forward - [0:0]
:ufw-before-forward - [0:0]
:ufw-after-forward - [0:0]
:ufw-after-logging-forward - [0:0]
:ufw-reject-forward - [0:0]
:ufw-track-forward - [0:0]
:ufw-user-forward - [0:0]
:ufw-before-input - [0:0]
:ufw-user-input - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-logging-forward
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-after-forward
-A FORWARD -j ufw-after-logging-forward
-A FORWARD -j ufw-reject-forward
-A FORWARD -j ufw-track-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -p {icmp} -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-before-forward -p {icmp} -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-user-forward -d {banned} -j DROP
COMMIT
"""

FIREWALLD = """*mangle
:PREROUTING_direct - [0:0]
:PREROUTING_ZONES - [0:0]
-A PREROUTING -j PREROUTING_direct
-A PREROUTING -j PREROUTING_ZONES
COMMIT
*filter
:FORWARD_direct - [0:0]
:FORWARD_IN_ZONES - [0:0]
:FWDI_public - [0:0]
:FWDI_public_allow - [0:0]
:FWDI_public_deny - [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A FORWARD -i lo -j ACCEPT
-A FORWARD -j FORWARD_direct
-A FORWARD -j FORWARD_IN_ZONES
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD_IN_ZONES -i lan0 -g FWDI_public
-A FWDI_public -j FWDI_public_deny
-A FWDI_public -j FWDI_public_allow
-A FWDI_public_deny -d {banned} -j DROP
COMMIT
"""

NAMED = """*mangle
-A FORWARD -s {quiet} -m comment --comment "never -j APPID here" -j DROP
-A FORWARD -s {quiet} -m comment --comment APPID-QUEUE -j RETURN
COMMIT
*filter
-A FORWARD -s {quiet} -m comment --comment "never -j APPID-ALLOWED here" -j DROP
-A FORWARD -s {quiet} -m comment --comment "5\\" or \\\\ -g APPID-ALLOWED" -j DROP
-A FORWARD -s {quiet} -m comment --comment "at the end -j APPID"
-A FORWARD -s {quiet} -m comment --comment -j -j DROP
-A FORWARD -s {quiet} -j LOG --log-prefix "jump APPID-x"
-A FORWARD -s {quiet} -j LOG --log-prefix APPID-x
-A FORWARD -s {quiet} -j NFLOG --nflog-prefix "goto APPID"
-A INPUT -s {quiet} -m comment --comment APPID-INPUT -j DROP
-A INPUT -s {quiet} -m comment --comment "was: -j NFQUEUE --queue-num 77, --set-xmark 0x1/0x1" -j DROP
-A INPUT -s {quiet} -m comment --comment --map-mark -j DROP
COMMIT
"""
"""An admin's, along with each of them: words that read like jumps to our chains, or like what collides with us."""

FIREWALLD_NFT = """table inet firewalld {
  chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; }
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ip daddr 198.51.100.3 drop
    ip6 daddr fd00:77:2::3 drop
    ct state invalid drop
  }
}
table ip filter {
  chain FORWARD {
    type filter hook forward priority filter;
    ip saddr 10.9.9.7 counter drop comment "jump APPID-x"
    ip saddr 10.9.9.7 counter accept comment "in two # handle 7 jump APPID"
  }
}
"""
"""Its nftables backend, beside which the chains of iptables stay empty."""

IPTABLES = {"docker": DOCKER, "fail2ban": FAIL2BAN, "ufw": UFW, "firewalld": FIREWALLD}
NAMES = (*IPTABLES, "firewalld-nft")
BANNED4, BANNED6 = "198.51.100.3", "fd00:77:2::3"


def text(name: str, family: int) -> str:
    """The iptables-restore input of one of them; what family 6 has no word for is left out."""
    rules = IPTABLES[name] + NAMED
    if family == 4:
        return rules.format(
            icmp="icmp", docker="172.17.0.0/16", client="10.77.1.2", banned=BANNED4, quiet="10.9.9.9"
        )  # fmt: skip
    return rules.format(
        icmp="ipv6-icmp", docker="fd00:d::/64", client="fd00:77:1::2", banned=BANNED6, quiet="fd00:9::9"
    )
