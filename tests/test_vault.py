"""The vault file: what it holds, and that it behaves as a dict under a key that rotates."""

from __future__ import annotations

import base64
import hashlib
import shutil
import stat
import struct
import sys
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tokenkit.errors import VaultError
from tokenkit.types import Secret
from tokenkit.vault import KEY_VARIABLE, Vault, VaultLocked, sealed

sys.path.insert(0, str(Path(__file__).parent))
from vaults import ENVIRON, HEADER, LONG, filled, put_together, refused, taken_apart


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return filled(tmp_path)


def test_keys_come_back_and_belong_to_their_owner_only(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "new" / "folder" / "keys.vault", passphrase="a passphrase").create()
    vault.set("openai", "  sk-one\n")
    vault.set("azure/prod", Secret("two"))
    vault.set("openai", "sk-three")
    again = Vault(vault.path, passphrase=lambda: "a passphrase\n")
    assert again.names() == ("azure/prod", "openai")
    assert again.get("openai").reveal() == "sk-three"
    assert again.find("gemini") is None
    again.delete("openai")
    assert vault.names() == ("azure/prod",)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (vault.path, vault.path.parent, vault.path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]
    assert stat.S_IMODE(Path(f"{vault.path}.lock").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["passphrase", "environment"])
def test_the_file_is_what_its_picture_says(tmp_path: Path, kind: str) -> None:
    """Read by a second program, written from the description alone."""
    vault = Vault(tmp_path / "v", passphrase="gr\u00fcn" if kind == "passphrase" else None, environ=ENVIRON).create()
    vault.set("openai", "sk-abc")
    data = vault.path.read_bytes()
    magic, version, kdf, memory, passes, lanes, salt = struct.unpack(">16sBBIII32s", data[:HEADER])
    assert (magic, version) == (b"tokenkit vault\r\n", 1)
    if kind == "passphrase":
        assert (kdf, memory, passes, lanes) == (1, 64 * 1024, 3, 4)
        hard = Argon2id(salt=salt, length=32, iterations=3, lanes=4, memory_cost=64 * 1024, ad=magic)
        key = hard.derive("gr\u00fcn".encode())
    else:
        assert (kdf, memory, passes, lanes) == (2, 0, 0, 0)
        key = HKDF(SHA256(), 32, salt, magic + b"environment key").derive(b"\x5a" * 32)

    def opened(key: bytes, blob: bytes, bond: bytes) -> bytes:
        return AESGCM(key).decrypt(blob[:12], blob[12:], bond)

    head, (entry,), index = taken_apart(data)
    file_key = opened(key, head[HEADER:], head[:HEADER])
    assert opened(file_key, entry, b"entry" + head[:HEADER] + b"openai") == b"sk-abc"
    assert opened(file_key, index, b"index" + data[: -32 - len(index)]) == b"openai"
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()


def test_rotate_locks_anew_and_keeps_the_keys(vault: Vault) -> None:
    before = {name: vault.get(name).reveal() for name in vault.names()}
    other = Vault(vault.path, environ=ENVIRON)
    assert other.names()
    vault.rotate("a new passphrase")
    assert {name: vault.get(name).reveal() for name in vault.names()} == before
    assert Vault(vault.path, passphrase="a new passphrase").names() == tuple(before)
    with pytest.raises(VaultError, match="passphrase"):
        Vault(vault.path, passphrase="5a" * 32, environ=ENVIRON).names()
    with pytest.raises(VaultLocked, match=KEY_VARIABLE):
        vault.rotate(environ={})
    vault.rotate(environ={KEY_VARIABLE: "c3" * 32})
    vault.set("openai", "sk-rotated")
    assert Vault(vault.path, environ={KEY_VARIABLE: "c3" * 32}).get("openai").reveal() == "sk-rotated"
    with pytest.raises(VaultError, match=f"The key in {KEY_VARIABLE} does not open"):
        other.names()


def test_a_passphrase_is_asked_for_once_until_someone_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    derived, answers = [], iter(["wrong", "first", "second"])
    real = sealed.argon2id
    monkeypatch.setattr(sealed, "argon2id", lambda *given: derived.append(1) or real(*given))
    owner = Vault(tmp_path / "v", passphrase="first").create()
    vault = Vault(owner.path, passphrase=lambda: next(answers))
    derived.clear()
    with pytest.raises(VaultError, match="passphrase does not open"):
        vault.names()
    vault.set("openai", "sk-one")  # the wrong one was not remembered
    vault.delete("openai")
    assert vault.names() == ()
    assert len(derived) == 2
    owner.rotate("second")
    vault.set("openai", "sk-two")
    assert owner.get("openai").reveal() == "sk-two"
    assert len(derived) == 2 + 1 + 1  # the rotation, and the other's next answer
    assert next(answers, None) is None


def test_export_and_import_carry_every_key_and_overwrite_nothing(vault: Vault, tmp_path: Path) -> None:
    export = tmp_path / "out" / "export.vault"
    assert vault.export(export, "for the shelf") == vault.names()
    assert stat.S_IMODE(export.stat().st_mode) == 0o600
    with pytest.raises(VaultError, match="exists already"):
        vault.export(export, "for the shelf")
    fresh = Vault(tmp_path / "fresh", environ={KEY_VARIABLE: "11" * 32}).create()
    fresh.set("mine", "own")
    assert fresh.import_(export, lambda: "for the shelf") == vault.names()
    assert fresh.names() == tuple(sorted(("mine", *vault.names())))
    fresh.set("openai", "sk-newer")
    with pytest.raises(VaultError, match="other keys than the vault for openai: nothing was imported"):
        fresh.import_(export, "for the shelf")
    assert fresh.get("openai").reveal() == "sk-newer"
    fresh.import_(export, "for the shelf", replace=True)
    assert fresh.get("openai").reveal() == vault.get("openai").reveal()
    with pytest.raises(VaultError, match=r"passphrase does not open the vault .*export\.vault"):
        fresh.import_(export, "another")


@pytest.mark.parametrize("write", ["hex", "HEX", "base64", "urlsafe", "unpadded"])
def test_an_environment_key_may_be_written_in_any_usual_way(tmp_path: Path, write: str) -> None:
    raw = b"\xfb\xff\xfe" + bytes(range(29))
    text = {
        "hex": raw.hex(),
        "HEX": raw.hex().upper(),
        "base64": base64.b64encode(raw).decode(),
        "urlsafe": base64.urlsafe_b64encode(raw).decode(),
        "unpadded": base64.b64encode(raw).decode().rstrip("="),
    }[write]
    Vault(tmp_path / "v", environ={KEY_VARIABLE: raw.hex()}).create()
    assert Vault(tmp_path / "v", environ={KEY_VARIABLE: f" {text}\n"}).names() == ()
    with pytest.raises(VaultError, match="32 random bytes"):
        Vault(tmp_path / "v", environ={KEY_VARIABLE: text[:-2]}).names()


class Model(RuleBasedStateMachine):
    """A vault beside a dict, with a second object on the same file and keys that rotate."""

    NAMES = st.sampled_from(["openai", "anthropic", "a", "a.b", "azure/prod"])
    KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40).filter(
        lambda key: key[0] not in "'\""
    )

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.environ = dict(ENVIRON)
        self.vault = Vault(self.folder / "v", environ=self.environ).create()
        self.model: dict[str, str] = {}

    @rule(name=NAMES, key=KEYS)
    def set(self, name: str, key: str) -> None:
        self.vault.set(name, key)
        self.model[name] = key

    @rule(name=NAMES)
    def get(self, name: str) -> None:
        if name in self.model:
            assert self.vault.get(name).reveal() == self.model[name]
        else:
            assert self.vault.find(name) is None
            with pytest.raises(VaultError, match="holds no key named"):
                self.vault.get(name)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if name in self.model:
            del self.model[name]
            self.vault.delete(name)
        else:
            with pytest.raises(VaultError, match="holds no key named"):
                self.vault.delete(name)

    @rule(key=st.binary(min_size=32, max_size=32))
    def rotate(self, key: bytes) -> None:
        old, self.environ = self.environ, {KEY_VARIABLE: key.hex()}
        self.vault.rotate(environ=self.environ)
        if old != self.environ:
            with pytest.raises(VaultError, match="does not open"):
                Vault(self.vault.path, environ=old).names()

    @rule()
    def open_again(self) -> None:
        self.vault = Vault(self.vault.path, environ=self.environ)

    @precondition(lambda self: len(self.model) > 1)
    @rule()
    def spoil_and_restore(self) -> None:
        data = self.vault.path.read_bytes()
        head, entries, index = taken_apart(data)
        assert "altered" in refused(self.vault, put_together(head, entries[1:] + entries[:1], index), self.environ)
        self.vault.path.write_bytes(data)

    @invariant()
    def same_names(self) -> None:
        assert self.vault.names() == tuple(sorted(self.model))

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=1000 if LONG else 40, stateful_step_count=25, deadline=None)
