"""Who an attempt is, and whether the owner of a lease on this very host is gone.

An owner is named `host:pid:started:place:nonce`. `place` is a digest of boot id, PID namespace and time namespace, so
that two containers, or one host before and after a reboot, never mistake each other's process numbers.
"""

import hashlib
import os
import re
import socket
import uuid
from functools import lru_cache
from pathlib import Path

__all__ = ["new_owner", "owner_gone"]

_OWNER = re.compile(r"[^:]*:(?P<pid>\d+):(?P<started>\d+):(?P<place>[0-9a-f]{16}):[0-9a-f]{16}")
_STATE, _START_TIME = 0, 19  # fields of /proc/PID/stat, counted after the command's closing parenthesis


def new_owner() -> str:
    """Give the name of a new attempt of this process, at most 255 characters."""
    pid = os.getpid()
    stat = _stat(pid)
    started = stat[_START_TIME] if stat else "0"
    host = socket.gethostname().replace(":", "-")[:100]
    return f"{host}:{pid}:{started}:{_place() or '0' * 16}:{uuid.uuid4().hex[:16]}"


def owner_gone(owner: str) -> bool:
    """Whether the owner was a process of this host that exists no more.

    True only when that is certain: no process of that number, or a defunct one, or one that started at another time.
    """
    match = _OWNER.fullmatch(owner)
    place = _place()
    if match is None or place is None or match["place"] != place:
        return False
    pid = int(match["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # somebody else's process: alive
    stat = _stat(pid)
    return stat is not None and (stat[_STATE] in "ZXx" or stat[_START_TIME] != match["started"])


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


@lru_cache(maxsize=1)
def _place_of(pid: int) -> str | None:
    proc = Path("/proc")
    try:
        if (proc / "self").readlink() != Path(str(pid)):
            return None  # this /proc shows the numbers of another namespace
        facts = [
            (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
            str((proc / "self/ns/pid").readlink()),
        ]
    except (OSError, ValueError):
        return None
    try:
        facts.append(str((proc / "self/ns/time").readlink()))
    except OSError:
        facts.append("")  # kernels before 5.6 have no time namespaces
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _place() -> str | None:
    return _place_of(os.getpid())
