"""A host that boots: systemd as its first process, this host's files underneath, a network namespace of a test.

In: the namespace's name, the files that are to lie above. Out: a Booted, whose `run` is a command in it. What it writes
goes when it does. cgroup v2 must be mounted somewhere, and overlayfs be there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SYSTEMD = Path("/lib/systemd/systemd")
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = Path(sysconfig.get_path("purelib"))
_LAUNCHER = f"""#!/bin/sh
export PYTHONPATH=/opt/appid:/opt/packages LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/bin/python3.{sys.version_info.minor} -m appid.cli.main "$@"
"""
"""This tree, its packages and its Python are put where the unit may look: here they may be under /home or /root."""
_BOOT = r"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/root"
cp -a "$2/." "$1/up/"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for place in run tmp dev var/lib/appid var/log/appid; do mkdir -p $place; mount -t tmpfs tmpfs $place; done
for node in null zero full random urandom tty; do touch dev/$node; mount --bind /dev/$node dev/$node; done
mkdir -p dev/shm dev/pts opt/appid opt/packages opt/python
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
mount --bind "$3" opt/appid
mount --bind "$4" opt/packages
mount --bind "$5" opt/python
rm -f etc/systemd/system/*.wants/* etc/machine-id
touch etc/machine-id
for unit in systemd-logind systemd-udevd systemd-resolved systemd-timesyncd; do
    ln -sf /dev/null etc/systemd/system/$unit.service
done
mkdir -p mnt/before
pivot_root . mnt/before # and no chroot: a unit gets a view of its own only from the root of all mounts
umount -l /mnt/before
cd /
exec env -i container=appid PATH=/usr/sbin:/usr/bin:/sbin:/bin "$6" --unit=basic.target --show-status=0
"""


class Booted:
    """`first`: the process that is number one in there."""

    def __init__(self, first: int) -> None:
        self.first = first

    def run(self, *command: str, check: bool = True, timeout: float = 90.0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["nsenter", "--target", str(self.first), "--all", "--root", "--wd", *command],
            capture_output=True, text=True, check=False, timeout=timeout, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def show(self, unit: str, *names: str) -> tuple[str, ...]:
        """Properties of a unit."""
        told = self.run("systemctl", "show", unit, *(f"--property={name}" for name in names)).stdout
        found = dict(line.split("=", 1) for line in told.splitlines())
        return tuple(found[name] for name in names)

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit", unit).stdout


def unified() -> Path | None:
    """Where cgroup v2 is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    return None


@contextmanager
def booted(namespace: str, folder: Path, files: Mapping[str, str]) -> Iterator[Booted]:
    """`files`: what lies above this host's: paths and texts. The program's launcher and unit are among them."""
    above, place = folder / "above", folder / "host"
    place.mkdir()
    unit = (ROOT / "packaging/systemd/appid.service").read_text()
    for path, text in {"usr/bin/appid": _LAUNCHER, "etc/systemd/system/appid.service": unit, **files}.items():
        (above / path).parent.mkdir(parents=True, exist_ok=True)
        (above / path).write_text(text)
    (above / "usr/bin/appid").chmod(0o755)
    mounted = unified()
    assert mounted is not None
    group = mounted / f"appid-{os.getpid()}-{folder.name}"
    group.mkdir()
    boot = subprocess.Popen(
        ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group),
         "ip", "netns", "exec", namespace,
         "unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--cgroup",
         "sh", "-c", _BOOT, "boot", str(place), str(above), str(ROOT), str(PACKAGES), sys.base_prefix,
         str(SYSTEMD)],
        stdout=subprocess.DEVNULL, stderr=(folder / "boot.log").open("wb"), start_new_session=True,
    )  # fmt: skip
    try:
        yield Booted(_first(boot, folder))
    finally:
        boot.send_signal(signal.SIGKILL)  # and its child, the whole host, by --kill-child
        boot.wait()
        _tidy(group)
        shutil.rmtree(above, ignore_errors=True)


def _first(boot: subprocess.Popen[bytes], folder: Path) -> int:
    """When systemd says that it is up, within half a minute."""
    end = time.monotonic() + 30
    while time.monotonic() < end and boot.poll() is None:
        children = Path(f"/proc/{boot.pid}/task/{boot.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
            host = Booted(int(children[0]))
            state = host.run("systemctl", "is-system-running", check=False).stdout.strip()
            if state in ("running", "degraded"):
                return host.first
        time.sleep(0.1)
    raise AssertionError(f"not booted: {(folder / 'boot.log').read_text()}")


def _tidy(group: Path) -> None:
    """Its control groups go when their last process has."""
    end = time.monotonic() + 5
    while group.exists() and time.monotonic() < end:
        for place in sorted(group.rglob("*"), reverse=True):
            if place.is_dir():
                with contextlib.suppress(OSError):
                    place.rmdir()
        with contextlib.suppress(OSError):
            group.rmdir()
        time.sleep(0.05)
