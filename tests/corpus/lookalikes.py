"""Captures that resemble FaceTime of 2015 or 2023 in one trait each, and are something else.

`cases()` gives each with what its flow is; no flow of theirs may ever be named one of `not_applications`, there is no
FaceTime call in them and no pinhole may open. Where `applications` is empty any other name is as good.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.corpus import (
    facetime2023,
    lookalikes_2023,
    lookalikes_apple,
    lookalikes_calls,
    lookalikes_relays,
    lookalikes_stun,
    lookalikes_tcp,
    lookalikes_udp,
)
from tests.corpus.expected import Case, Expected, FlowTruth
from tests.corpus.stage import Stage


@dataclass(frozen=True)
class Lookalike:
    """`play` writes one conversation; every flow of it may be called one of `applications` (empty: any but `never`)."""

    name: str
    play: Callable[[Stage], object]
    applications: tuple[str, ...]
    never: tuple[str, ...] = ("facetime",)

    def case(self) -> Case:
        stage = Stage(random.Random(self.name))
        self.play(stage)
        flows = tuple(FlowTruth(flow, self.applications, tuple(seen)) for flow, seen in stage.cap.flows.items())
        return Case(self.name, stage.cap, Expected(flows, not_applications=self.never))


STUN, TURN = ("stun", "webrtc"), ("turn", "stun", "webrtc")
NO_NAME = ("unknown-udp", "insufficient-data")
FACETIME, PUSH = ("facetime",), ("facetime", "apple-push")
A, B, C, D, E = lookalikes_stun, lookalikes_udp, lookalikes_tcp, lookalikes_2023, lookalikes_calls
F, G = lookalikes_apple, lookalikes_relays
QUIC = ("quic",)

LOOKALIKES = (
    Lookalike("webrtc-call", A.webrtc, ()),
    Lookalike("turn-authenticated", A.authenticated, TURN),
    Lookalike("turn-even-port-then-token", A.reserved, TURN),
    Lookalike("turn-token-of-4-bytes", A.short_token, TURN),
    Lookalike("turn-relayed-and-token-with-username", A.token_with_username, TURN),
    Lookalike("turn-to-a-peer-on-16402", A.bind_16402, TURN),
    Lookalike("stun-0x8001-alone", A.address_error, TURN),
    Lookalike("stun-rfc8489-0x8002-0x8003", A.rfc8489, STUN),
    Lookalike("stun-username-of-20-letters", A.twenty_letters, STUN),
    Lookalike("stun-ice-username-of-20-bytes", A.ice_twenty, STUN),
    Lookalike("stun-with-sip-in-its-username", A.slipstream, (*STUN, "turn"), ("facetime", "sip")),
    Lookalike("sip-in-channeldata", A.sip_in_channel, ("sip", "turn")),
    Lookalike("sip-of-the-media-engine-in-channeldata", A.viceroy_in_channel, ("ichat-av", "sip", "turn")),
    Lookalike("noise-on-16402", B.noise_16402, NO_NAME),
    Lookalike("16-bytes-on-16403-without-pad", B.no_pad, NO_NAME, ("facetime", "snatmap")),
    Lookalike("16-bytes-on-16403-of-another-address", B.other_address, NO_NAME, ("facetime", "snatmap")),
    Lookalike("padded-to-16-bytes-on-16403", B.padded, ("snatmap",)),
    Lookalike("rtp-104-119-123-without-a-call", B.lone_rtp, ("rtp", *NO_NAME)),
    Lookalike("noise-with-gkvoicechatservice", B.service_in_noise, NO_NAME),
    Lookalike("sip-agent-gkvoicechatservice", B.service_as_agent, ("sip",)),
    Lookalike("sip-session-name-gkvoicechatservice", B.service_as_session, ("sip",)),
    Lookalike("sip-origin-user-continues", B.service_prefix, ("sip",)),
    Lookalike("sip-agents-of-no-version", B.agents_of_no_version, ("sip",)),
    Lookalike("sip-goodbye-of-the-media-engine", B.goodbye_of_the_media_engine, ("sip", "rtp")),
    Lookalike("turn-relayed-and-token-otherwise", A.relayed_and_token_otherwise, TURN),
    Lookalike("link-check-with-more-behind", D.with_more_behind, STUN),
    Lookalike("ichat-av-2010", B.ichat, ("ichat-av", "sip")),
    Lookalike("http-other-host", C.other_host, ("web-browsing",)),
    Lookalike("http-host-with-suffix", C.host_suffix, ("web-browsing",)),
    Lookalike("http-host-with-prefix", C.host_prefix, ("web-browsing",)),
    Lookalike("http-forwarded-host", C.forwarded_host, ("web-browsing",)),
    Lookalike("http-path-in-query", C.path_in_query, ("web-browsing",)),
    Lookalike("http-probe-in-body", C.probe_in_body, ("web-browsing",)),
    Lookalike("http-other-path", C.other_path, ("web-browsing",)),
    Lookalike("http-longer-path", C.longer_path, ("web-browsing",)),
    Lookalike("tls-5223-elsewhere", C.tls_5223, ("ssl", "jabber"), PUSH),
    Lookalike("tls-5223-elsewhere-mid-stream", C.tls_5223_mid, ("ssl", "jabber"), PUSH),
    Lookalike("tls-courier-name-with-suffix", C.courier_suffix, ("ssl",), PUSH),
    Lookalike("tls-courier-name-as-label", C.courier_label, ("ssl",), PUSH),
    Lookalike("noise-to-17.1.2.3-5223", C.noise_5223, ("unknown-tcp",), PUSH),
    Lookalike("turn-refresh-with-0x0022", A.refresh_with_code_0x0022, TURN),
    Lookalike("turn-relayed-and-token-of-other-lengths", A.other_lengths, TURN),
    Lookalike("kerberos-as-channel", A.kerberos, NO_NAME),
    Lookalike("gtp-as-channel", A.gtp, NO_NAME),
    Lookalike("messenger-on-a-phone", E.messenger_on_a_phone, ("facebook-messenger-call", "apple-push")),
    Lookalike("stun-0x8008-of-microsoft", D.version_of_microsoft, STUN),
    Lookalike("stun-0x8007-before-0x8008", D.another_order, STUN),
    Lookalike("stun-link-with-fingerprint", D.with_fingerprint, STUN),
    Lookalike("stun-link-with-username", D.with_username, STUN),
    Lookalike("stun-0x8007-of-8-bytes", D.longer_radio, STUN),
    Lookalike("stun-0x8007-alone", D.radio_alone, STUN),
    Lookalike("turn-data-indication-of-a-peer", D.data_of_a_peer, TURN),
    Lookalike("turn-channel-0x4000", D.other_channel, TURN),
    Lookalike("0x6000-by-chance", D.few_on_0x6000, NO_NAME),
    Lookalike("ipv6-in-udp", D.ipv6_in_udp, ("teredo",)),
    Lookalike("quic-with-a-server-name", D.quic_with_a_name, QUIC),
    Lookalike("quic-with-a-connection-id", D.quic_with_own_id, QUIC),
    Lookalike("quic-with-another-alpn", D.quic_of_another_stack, QUIC),
    Lookalike("quic-with-a-name-to-the-relays-port", D.quic_on_the_relays_port, QUIC),
    Lookalike("quic-without-a-name-elsewhere", facetime2023.another_release_elsewhere, QUIC),
    Lookalike("quic-with-the-same-hello-to-the-web", facetime2023.greeted_elsewhere, QUIC),
    Lookalike("rtp-on-0x6000-of-another-relay", facetime2023.foreign_relay, ()),
    Lookalike("0xdeadbeefcafe-of-another", facetime2023.bandwidth_probed_by_another, NO_NAME),
    Lookalike("snatmap-0xaaaa", D.probe_of_snatmap, ("snatmap",)),
    Lookalike("webrtc-between-browsers", E.browsers, ("webrtc",)),
    Lookalike("webrtc-through-turn", E.browsers_relayed, ("webrtc",)),
    Lookalike("whatsapp-call", E.whatsapp, ("whatsapp-call",)),
    Lookalike("meta-call", E.meta, ("meta-call",)),
    Lookalike("messenger-call-with-its-peer", E.messenger, ("facebook-messenger-call",)),
    Lookalike("signal-call-with-its-peer", E.signal, ("signal-call",)),
    Lookalike("teams-check", E.teams, ("microsoft-teams",)),
    Lookalike("teams-relay", E.teams_relay, ("microsoft-teams",)),
    Lookalike("zoom-media", E.zoom, ("zoom",)),
    Lookalike("stun-of-zoom-in-a-browser", E.zoom_in_a_browser, ("zoom",)),
    Lookalike("stun-long-names-to-8801", E.long_names_to_8801, STUN, ("facetime", "zoom")),
    Lookalike("noise-to-telegrams-reflector", E.telegram, ("telegram-call",)),
    Lookalike("noise-with-ones-of-a-reflector", E.ones_of_another, NO_NAME, ("facetime", "telegram-call")),
    Lookalike("discord-voice", E.discord, ("discord",)),
    Lookalike("google-meet-check", E.meet, ("google-meet",)),
    Lookalike("game-center", E.game_center, ("gamecenter",)),
    Lookalike("http-probe-behind-another-request", C.probe_behind_another, ("web-browsing",)),
    Lookalike("http-probe-of-two-requests", C.probe_of_two_requests, ("web-browsing",)),
    Lookalike("http-two-hosts", C.two_hosts, ("web-browsing",)),
    Lookalike("tls-push-over-443", F.push_over_443, ("apple-push",)),
    Lookalike("tls-another-name-to-apples-5223", F.another_name_to_5223, ("gamecenter", "ssl"), PUSH),
    Lookalike("tls-courier-of-no-number", F.courier_of_no_number, ("ssl",), PUSH),
    Lookalike("quic-private-relay", F.private_relay, ("quic", "ssl")),
    Lookalike("short-headers-of-the-private-relay", F.private_relay_from_the_middle, QUIC),
    Lookalike("quic-device-tunnel", F.device_tunnel, QUIC),
    Lookalike("sip-screen-sharing", F.screen_sharing, ("ichat-av",)),
    Lookalike("sip-agent-without-a-version", F.agent_without_a_version, ("sip",)),
    Lookalike("airplay", F.airplay, ("web-browsing", "rtp", "rtcp", *NO_NAME)),
    Lookalike("http-homekit", F.home_kit, ("web-browsing",)),
    Lookalike("noise-between-two-addresses-of-apples", F.between_two_addresses_of_apples, NO_NAME),
    Lookalike("stun-to-apples-relay", F.stun_of_apples_relay, STUN),
    Lookalike("noise-to-apples-relay", F.noise_to_apples_relay, NO_NAME),
    Lookalike("noise-from-16393-to-16393", F.noise_between_local_ports, NO_NAME),
    Lookalike("noise-by-udp-to-17.1.2.3-5223", F.noise_by_udp_to_5223, NO_NAME, PUSH),
    Lookalike("webrtc-on-every-channel", G.every_channel, ("webrtc", *TURN)),
    Lookalike("rtp-on-0x6000", G.media_on_0x6000_from_the_middle, TURN),
    Lookalike("turn-0x6000-with-secrets", facetime2023.foreign_relay_of_secrets, TURN),
    Lookalike("turn-0x6000-with-another-header", G.wrapped_on_0x6000, TURN),
    Lookalike("turn-0x6000-with-flags-before-rtp", G.wrapped_in_flags, TURN),
    Lookalike("turn-data-on-channel-0", G.data_on_channel_0, TURN),
    Lookalike("stun-answers-with-0x8023", G.answers_with_0x8023, STUN),
    Lookalike("stun-odd-attributes", G.odd_attributes, STUN),
    Lookalike("stun-binary-username", G.binary_username, STUN),
    Lookalike("turn-allocate-of-another", G.allocate_of_another, (*TURN, "meta-call", "whatsapp-call")),
    Lookalike("turn-refresh-and-bind-with-both", G.refresh_and_bind, TURN),
    Lookalike("quic-of-chrome-to-an-address", G.chrome_to_an_address, QUIC),
    Lookalike("short-headers-of-another-relay", G.quic_relay_from_the_middle, QUIC),
    Lookalike("sip-softphone-behind-turn", G.softphone_behind_turn, ("turn", "sip")),
    Lookalike("sip-gkvoicechatservice-elsewhere", G.service_in_other_headers, ("sip",)),
)


def cases() -> list[Case]:
    return [lookalike.case() for lookalike in LOOKALIKES]
