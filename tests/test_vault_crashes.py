"""The vault file: what it survives, and who may write it at once."""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tokenkit.errors import VaultError
from tokenkit.vault import Vault, files

sys.path.insert(0, str(Path(__file__).parent))
from vaults import ENVIRON, LONG, filled, refused, run


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return filled(tmp_path)


KILLED = """
import os, random, signal, sys, time
from tokenkit.vault import Vault, files

path, rounds, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
environ, rng = {"TOKENKIT_VAULT_KEY": "5a" * 32}, random.Random(7)
vault = Vault(path, environ=environ).create()
for i in range(8):
    vault.set(f"ballast{i}", "x" * 400)
vault.set("n", "0")
names, done, seen = vault.names(), 0, []


def die_at(line):
    left = [line]

    def watch(frame, event, _):
        if frame.f_code.co_filename != files.__file__:
            return None
        if event == "line":
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        return watch

    sys.settrace(watch)


for round in range(rounds):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        if how == "line":
            die_at(round + 1)
        for n in range(done + 1, 10**9):
            vault.set("n", str(n))
            os.write(writer, b"%d " % n)
            if how == "line":
                sys.settrace(None)
                os._exit(0)
    os.close(writer)
    if how == "moment":
        time.sleep(rng.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    acknowledged = int((os.read(reader, 1 << 20).split() or [done])[-1])
    os.close(reader)
    fresh = Vault(path, environ=environ)
    found = int(fresh.get("n").reveal())
    assert found in (acknowledged, acknowledged + 1), (round, found, acknowledged)
    assert fresh.names() == names, round
    assert all(len(fresh.get(f"ballast{i}").reveal()) == 400 for i in range(8))
    if os.WIFSIGNALED(status):
        seen.append("new" if found > done else "old")
    elif how == "line":
        break
    done = found
vault.set("n", "last")
left = sorted(os.listdir(os.path.dirname(path)))
print(len(seen), seen.count("old"), seen.count("new"), *left)
"""


def test_killed_at_every_line_of_a_save_leaves_old_or_new(tmp_path: Path) -> None:
    killed, old, new, *left = run(KILLED, str(tmp_path / "v"), "1000", "line").split()
    assert int(killed) < 1000, "the last round must have reached its end alive"
    assert int(old) > 20
    assert int(new) > 2
    assert left == ["v", "v.lock"], "what a killed writer left half-written is swept by the next"


def test_killed_at_random_moments_leaves_old_or_new(tmp_path: Path) -> None:
    rounds = 500 if LONG else 50
    killed, *_, first, second = run(KILLED, str(tmp_path / "v"), str(rounds), "moment").split()
    assert int(killed) == rounds
    assert (first, second) == ("v", "v.lock")


def test_four_processes_lose_none_of_each_others_keys(tmp_path: Path) -> None:
    each = 100 if LONG else 25
    vault = Vault(tmp_path / "v", environ=ENVIRON).create()
    script = f"""
import sys
from tokenkit.vault import Vault
vault = Vault(sys.argv[1], environ={ENVIRON!r})
vault.names()
print("ready", flush=True)
sys.stdin.readline()
for i in range({each}):
    vault.set(f"{{sys.argv[2]}}-{{i}}", f"key-of-{{sys.argv[2]}}-{{i}}")
"""
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        command = [sys.executable, "-c", script, str(vault.path)]
        writers = [stack.enter_context(subprocess.Popen([*command, w], stdin=pipe, stdout=pipe)) for w in "abcd"]
        for writer in writers:
            assert writer.stdout.readline() == b"ready\n"
        for writer in writers:  # only now: they begin together
            writer.stdin.write(b"\n")
            writer.stdin.flush()
        assert [writer.wait(200) for writer in writers] == [0] * 4
    assert len(vault.names()) == 4 * each
    assert all(vault.get(name).reveal() == f"key-of-{name}" for name in vault.names())


def test_bytes_are_on_disk_before_they_are_in_place(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    sync, move = os.fsync, os.replace
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder"}

    def fsync(descriptor: int) -> None:
        said.append(f"sync {kinds[stat.S_IFMT(os.fstat(descriptor).st_mode)]}")
        sync(descriptor)

    def replace(old: Path, new: Path) -> None:
        said.append("move")
        move(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    vault.set("openai", "sk-x")
    assert said == ["sync file", "move", "sync folder"]


@pytest.mark.parametrize("broken", ["replace", "fsync", "open"])
def test_a_disk_that_refuses_leaves_the_old_file_and_no_litter(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    before, real = vault.path.read_bytes(), getattr(os, broken)

    def fails(*args: object, **kwargs: object) -> object:
        if broken == "open" and ".new" not in str(args[0]):
            return real(*args, **kwargs)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fails)
    with pytest.raises(VaultError, match="No space left on device"):
        vault.set("openai", "sk-x")
    monkeypatch.undo()
    assert vault.path.read_bytes() == before
    assert sorted(p.name for p in vault.path.parent.iterdir()) == ["keys.vault", "keys.vault.lock"]


def test_a_lock_that_is_never_given_back_is_named(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.05)
    with Path(f"{vault.path}.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert vault.names()  # reading needs no lock
        with pytest.raises(VaultError, match=r"Another process has held .*keys\.vault\.lock"):
            vault.set("openai", "sk-x")
    vault.set("openai", "sk-x")


def test_a_link_stays_a_link_and_shares_its_targets_lock(vault: Vault, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(vault.path)
    Vault(link, environ=ENVIRON).set("openai", "sk-through-the-link")
    assert link.is_symlink()
    assert vault.get("openai").reveal() == "sk-through-the-link"
    assert [p.name for p in link.parent.iterdir()] == ["link"]


def test_create_never_replaces_a_file(vault: Vault, tmp_path: Path) -> None:
    before = vault.path.read_bytes()
    with pytest.raises(VaultError, match="exists already"):
        Vault(vault.path, passphrase="other").create()
    assert vault.path.read_bytes() == before
    with pytest.raises(VaultError, match="There is no vault at"):
        Vault(tmp_path / "none", passphrase="x").names()
    assert Vault(tmp_path / "none", passphrase="x").find("openai") is None
    shuffled = bytes(random.Random(1).sample(range(256), 256))
    for not_a_vault in (b"", b"#!/bin/sh\n", shuffled, *map(bytes, itertools.repeat(200, 1))):
        assert "is damaged" in refused(vault, not_a_vault)
