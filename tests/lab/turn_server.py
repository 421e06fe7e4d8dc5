"""coturn with long-term credentials: the other TURN server in the world, which must not pass for FaceTime's.

In: a Lab. Out: a child process on the coturn address's UDP port 3478.
"""

from __future__ import annotations

from subprocess import Popen

from tests.lab.net import Lab

PORT = 3478


def start_turn_server(lab: Lab) -> Popen[bytes]:
    s = lab.scenario
    directory = lab.directory / "coturn"
    directory.mkdir()
    return lab.spawn(
        "world", "turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp-relay", "--lt-cred-mech",
        "--listening-ip", s.coturn, "--listening-port", str(PORT), "--relay-ip", s.coturn,
        "--user", f"{s.turn_user}:{s.turn_password}", "--realm", s.turn_realm,
        "--userdb", str(directory / "turndb"), "--pidfile", str(directory / "pid"),
        "--log-file", "stdout", "--simple-log", "--min-port", "50000", "--max-port", "50099",
        log=lab.directory / "coturn.log", cwd=directory,
    )  # fmt: skip
