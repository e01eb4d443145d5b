"""The vault file: what it notices, with its checksum broken, mended, or forged by someone who holds the keys."""

from __future__ import annotations

import os
import secrets
import struct
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tokenkit.errors import VaultError
from tokenkit.vault import Vault, sealed
from tokenkit.vault.keys import Hidden

sys.path.insert(0, str(Path(__file__).parent))
from vaults import HEADER, WRAPPED, filled, mended, put_together, refused, run, taken_apart


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return filled(tmp_path)


def test_every_flipped_bit_is_noticed(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice: as damage, before any key is derived; and with the checksum mended, by what is bound to the keys."""
    data, derived = vault.path.read_bytes(), []
    real = sealed.hkdf
    monkeypatch.setattr(sealed, "hkdf", lambda *given: derived.append(1) or real(*given))
    assert 900 < len(data) < 1100
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert "is damaged" in refused(vault, bytes(flipped))
    assert derived == []
    for bit in range((len(data) - 32) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        refused(vault, mended(bytes(flipped)))
    assert 0 < len(derived) <= (len(data) - 32) * 8  # at most once for each opening


def test_every_truncation_is_noticed_and_says_what_to_do(vault: Vault) -> None:
    data = vault.path.read_bytes()
    for length in range(len(data)):
        sentence = refused(vault, data[:length])
        assert "is damaged" in sentence
        assert str(vault.path) in sentence
        assert "tokenkit vault import" in sentence
        refused(vault, mended(data[:length].ljust(32, b"\0")))
    assert "is damaged" in refused(vault, data + b"\0")
    refused(vault, mended(data[:-32] + b"\0" * 33))


def test_entries_swapped_dropped_repeated_or_taken_from_yesterday_are_noticed(vault: Vault) -> None:
    yesterday = taken_apart(vault.path.read_bytes())
    vault.set("openai", "openai-" + "n" * 164)
    head, entries, index = taken_apart(vault.path.read_bytes())
    spoilt = {
        "swapped": [entries[1], entries[0], *entries[2:]],
        "dropped": entries[:-1],
        "repeated": [*entries, entries[0]],
        "yesterday's": [yesterday[1][0], *entries[1:]],
        "emptied": [b"", *entries[1:]],
        "none": [],
    }
    for entries_now in spoilt.values():
        assert "altered" in refused(vault, put_together(head, entries_now, index))
    for count in (0, 4, 6, 2**32 - 1):
        assert "altered" in refused(vault, put_together(head, entries, index, count))
    assert "altered" in refused(vault, put_together(head, entries, yesterday[2]))
    assert "does not open" in refused(vault, put_together(head[:HEADER] + secrets.token_bytes(WRAPPED), entries, index))
    assert refused(vault, put_together(yesterday[0], entries, index))
    vault.path.write_bytes(put_together(head, entries, index))
    assert vault.get("openai").reveal().endswith("nnn")  # the pieces themselves were whole


def test_an_entry_opens_under_its_own_name_only(vault: Vault) -> None:
    """Even for someone who holds the file key and seals a new index, as a faulty writer would."""
    data = vault.path.read_bytes()
    head, entries, _ = taken_apart(data)
    file_key = vault._open().file_key.reveal()

    def forged(names: list[str], entries: list[bytes]) -> bytes:
        above = put_together(head, entries, b"")[:-32]
        nonce = os.urandom(12)
        index = nonce + AESGCM(file_key).encrypt(nonce, "\n".join(names).encode(), b"index" + above)
        return put_together(head, entries, index)

    names = list(vault.names())
    vault.path.write_bytes(forged(names, entries))
    assert vault.get("openai").reveal() == "openai-" + "k" * 164  # the forgery is a good one
    vault.path.write_bytes(forged(names, [entries[1], entries[0], *entries[2:]]))
    for name in names[:2]:
        with pytest.raises(VaultError, match=f"entry '{name}' is not the one written under that name"):
            vault.get(name)
    vault.path.write_bytes(forged(["a-renamed-entry", *names[1:]], entries))
    with pytest.raises(VaultError, match="not the one written under that name"):
        vault.get("a-renamed-entry")
    for wrong in ([names[0], *names[:4]], names[::-1], names[:4], [*names, "zz"]):
        assert "names and its entries do not agree" in refused(vault, forged(wrong, entries))


def test_costs_outside_the_bounds_are_refused_before_anything_is_derived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[sealed.Derivation] = []

    def recorded(material: Hidden[bytes], cost: sealed.Derivation) -> Hidden[bytes]:
        asked.append(cost)
        return Hidden(b"\1" * 32)

    monkeypatch.setattr(sealed, "argon2id", recorded)
    monkeypatch.setattr(sealed, "hkdf", recorded)
    vault = Vault(tmp_path / "v", passphrase="pass").create()
    data = vault.path.read_bytes()
    asked.clear()

    def with_cost(*cost: int) -> bytes:
        return mended(data[:17] + struct.pack(">BIII", *cost) + data[30:])

    good, top = (65536, 3, 4), (262144, 8, 8)
    for position, (low, high) in enumerate(zip(good, top, strict=True)):
        for value in (0, 1, low - 1, high + 1, 2**31, 2**32 - 1):
            cost = list(good)
            cost[position] = value
            assert "nothing was derived" in refused(vault, with_cost(1, *cost))
    for other in ((2, *good), (2, 0, 0, 1), (0, 0, 0, 0), (1, 0, 0, 0), (3, *good), (255, *good)):
        assert "nothing was derived" in refused(vault, with_cost(*other))
    assert asked == []
    vault.path.write_bytes(with_cost(1, *good))
    assert Vault(vault.path, passphrase="pass").names() == ()
    assert "passphrase does not open" in refused(vault, with_cost(1, *top))  # derived, and bound to another header
    assert [(cost.memory, cost.passes, cost.lanes) for cost in asked] == [good, top]
    with pytest.raises(VaultError, match="outside the accepted costs"):
        sealed.derive(Hidden(b"x"), sealed.Derivation(1, 2**32 - 1, 3, 4, b"\0" * 32))
    assert "format 9" in refused(vault, mended(data[:16] + b"\x09" + data[17:]))


def test_a_huge_cost_or_file_takes_no_memory(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "v", passphrase="pass").create()
    data = vault.path.read_bytes()
    greedy = mended(data[:18] + struct.pack(">III", 2**32 - 1, 2**32 - 1, 2**24 - 1) + data[30:])
    (tmp_path / "greedy").write_bytes(greedy)
    with (tmp_path / "huge").open("wb") as sparse:
        sparse.write(data)
        sparse.truncate(1 << 40)
    os.mkfifo(tmp_path / "pipe")
    script = """
import pathlib, sys
from tokenkit.errors import VaultError
from tokenkit.vault import Vault

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

for name in sys.argv[1:]:
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew here
    before = peak()
    try:
        Vault(name, passphrase="pass").names()
        answer = "opened"
    except VaultError:
        answer = "refused"
    print(answer, peak() - before)
"""
    names = [str(tmp_path / name) for name in ("greedy", "pipe", "huge", "v")]
    lines = [line.split() for line in run(script, *names).splitlines()]
    assert [answer for answer, _ in lines] == ["refused", "refused", "refused", "opened"]
    grown = [int(kib) for _, kib in lines]
    assert grown[0] < 2048
    assert grown[1] < 2048
    assert grown[2] < 40 << 10  # one read of 16 MiB and a byte, and its buffer
    assert grown[3] > 60 << 10  # the instrument works: an honest passphrase needs its 64 MiB


def test_no_write_repeats_a_nonce_or_a_file_key(vault: Vault) -> None:
    seen, keys = set(), set()
    for _ in range(30):
        vault.set("openai", "the-same-key")
        head, entries, index = taken_apart(vault.path.read_bytes())
        seen |= {blob[:12] for blob in (head[HEADER:], *entries, index)}
        keys.add(vault._open().file_key.reveal())
    assert (len(seen), len(keys)) == (30 * 7, 30)
