"""Who owns a lease, and when that owner is gone for certain."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from resumable_sync._attempts.host import new_owner, owner_gone

needs_proc = pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="needs Linux's /proc")

PROGRAM = "from resumable_sync._attempts.host import new_owner; print(new_owner(), flush=True); input()"


def test_every_attempt_has_another_name() -> None:
    assert new_owner() != new_owner()
    assert len(new_owner()) <= 255


def test_a_live_owner_is_not_gone() -> None:
    assert not owner_gone(new_owner())


@needs_proc
def test_a_killed_owner_is_gone_even_while_defunct() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        owner = child.stdout.readline().decode().strip()
        assert not owner_gone(owner)
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert owner_gone(owner)
    assert owner_gone(owner)


@needs_proc
def test_a_process_number_that_was_given_out_again_is_another_owner() -> None:
    host, pid, started, place, nonce = new_owner().split(":")
    assert owner_gone(":".join((host, pid, str(int(started) + 1), place, nonce)))


@pytest.mark.parametrize("place", ["0" * 16, "f" * 16])
def test_an_owner_of_another_host_or_container_is_never_gone(place: str) -> None:
    host, _, started, _, nonce = new_owner().split(":")
    assert not owner_gone(f"{host}:999999999:{started}:{place}:{nonce}")


@pytest.mark.parametrize("owner", ["", "me", "a:b:c:d:e", "host:1:2:3"])
def test_a_foreign_name_is_never_gone(owner: str) -> None:
    assert not owner_gone(owner)
