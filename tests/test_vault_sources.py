"""Keys on their way in: what is refused, what is asked for, and where a key is looked for."""

from __future__ import annotations

import getpass
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenkit.errors import ConfigError, VaultError
from tokenkit.types import Secret
from tokenkit.vault import KEY_VARIABLE, Vault, VaultLocked, find_key, system_keyring
from tokenkit.vault.keys import checked

sys.path.insert(0, str(Path(__file__).parent))
from vaults import filled

WRONG = {KEY_VARIABLE: "77" * 32}


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return filled(tmp_path)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        ("sk one", "blank"),
        ("sk\none", "line break"),
        ("sk\x7fone", "control character"),
        ("sk-ﬁ", "outside ASCII"),
        ("sk\u200bone", "outside ASCII"),
        ("'sk-one'", "quotation marks"),
        ("k" * 8193, "longer than 8,192"),
    ],
)
def test_what_cannot_be_a_key_is_refused_and_changes_nothing(vault: Vault, key: str, says: str) -> None:
    before = vault.path.read_bytes()
    with pytest.raises(VaultError, match=f"The key for openai .*{says}"):
        vault.set("openai", key)
    assert vault.path.read_bytes() == before


@given(st.text(max_size=60))
def test_a_checked_key_is_one_piece_of_printable_ascii(text: str) -> None:
    try:
        kept = checked(Secret(text), "It").reveal()
    except VaultError:
        stripped = text.strip()
        plain = stripped and all(33 <= ord(c) <= 126 for c in stripped)
        assert not plain or (stripped[0] == stripped[-1] and stripped[0] in "'\"")
    else:
        assert kept == text.strip()
        assert all(33 <= ord(c) <= 126 for c in kept)


@pytest.mark.parametrize("name", ["", " openai", "open ai", "a\nb", "ключ", "-x", "n" * 65, None, 3])
def test_what_cannot_be_a_name_is_refused(vault: Vault, name: Any) -> None:
    with pytest.raises(VaultError, match="A name in the vault is"):
        vault.set(name, "sk-x")


def test_keys_and_passphrases_are_asked_for_without_echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    answers = iter(["secret words", "secret words", "sk-typed\n", "secret words"])

    def asked(prompt: str) -> str:
        said.append(prompt)
        return next(answers)

    monkeypatch.setattr(getpass, "getpass", asked)
    vault = Vault(tmp_path / "v", environ={}).create()
    vault.set("openai")
    assert Vault(vault.path, environ={}).get("openai").reveal() == "sk-typed"
    new, again, key, unlock = said
    assert (again, key) == ("The same again: ", "Key for openai: ")
    assert str(vault.path) in new
    assert str(vault.path) in unlock
    for empty in ("", "\n", lambda: ""):
        with pytest.raises(VaultError, match="passphrase is empty"):
            Vault(tmp_path / "other", passphrase=empty).create()
    assert not (tmp_path / "other").exists()


def test_a_passphrase_is_one_however_it_is_composed(tmp_path: Path) -> None:
    Vault(tmp_path / "v", passphrase="gru\u0308n").create()
    assert Vault(tmp_path / "v", passphrase="gr\u00fcn").names() == ()


def test_with_nobody_to_ask_it_says_so_and_the_search_goes_on(tmp_path: Path) -> None:
    """In a process without a terminal, as under cron: nothing waits, nothing is echoed, other sources still count."""
    Vault(tmp_path / "v", passphrase="x").create()
    script = """
import sys
from tokenkit.vault import Vault, VaultLocked, find_key
vault = Vault(sys.argv[1], environ={})
try:
    vault.names()
except VaultLocked as error:
    print(error)
ring = type("Ring", (), {"get_password": lambda *_: "sk-ring"})()
print(find_key("openai", [], vault, None, environ={}), find_key("openai", [], vault, ring, environ={}).reveal())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path / "v")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=60,
        check=False,
    )
    said, found = done.stdout.splitlines()
    assert "there is nobody here to ask" in said
    assert found == "None sk-ring"
    assert done.stderr == ""


# Where a key is looked for


class Ring:
    """A keyring of one entry."""

    def __init__(self, value: str | Exception | None) -> None:
        self.value, self.asked = value, []

    def get_password(self, service_name: str, username: str, /) -> str | None:
        self.asked.append((service_name, username))
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def test_the_environment_wins_then_the_vault_then_the_keyring(vault: Vault, tmp_path: Path) -> None:
    ring, names = Ring("from-ring"), ["FIRST_KEY", "SECOND_KEY"]
    vault.set("openai", "from-vault")

    def found(environ: dict[str, str], vault: Vault | None = vault, provider: str = "openai") -> str | None:
        secret = find_key(provider, names, vault, ring, environ=environ)
        return None if secret is None else secret.reveal()

    assert found({"FIRST_KEY": " from-first\n", "SECOND_KEY": "from-second"}) == "from-first"
    assert found({"FIRST_KEY": " ", "SECOND_KEY": "from-second"}) == "from-second"
    assert found({"FIRST_KEY": ""}) == "from-vault"
    assert ring.asked == []
    assert found({}, provider="mistral") == "from-ring"
    assert ring.asked == [("tokenkit", "mistral")]
    assert found({}, Vault(tmp_path / "none", environ={})) == "from-ring"
    assert found({}, Vault(vault.path, environ={})) == "from-ring"  # locked, and the environment key is not here
    for nothing in (None, "", RuntimeError("no D-Bus here")):
        ring.value = nothing
        assert found({}, None) is None
    with pytest.raises(ConfigError, match="SECOND_KEY holds a blank"):
        found({"SECOND_KEY": "sk one"})
    with pytest.raises(VaultError, match="does not open"):
        found({}, Vault(vault.path, environ=WRONG))
    with pytest.raises(VaultLocked):
        Vault(vault.path, environ={}).find("openai")


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_PROVIDER_KEY", "sk-here")
    monkeypatch.setenv(KEY_VARIABLE, "ab" * 32)
    found = find_key("some", ["SOME_PROVIDER_KEY"])
    assert found is not None
    assert found.reveal() == "sk-here"
    vault = Vault(tmp_path / "v").create()
    monkeypatch.delenv(KEY_VARIABLE)
    assert vault.names() == ()  # unlocked already
    with pytest.raises(VaultLocked, match=KEY_VARIABLE):
        Vault(vault.path).names()


def test_the_keyring_package_is_used_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "keyring", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert system_keyring() is None
    (tmp_path / "keyring.py").write_text("def get_password(service, user):\n    return f'{service}-{user}'\n")
    ring = system_keyring()
    monkeypatch.delitem(sys.modules, "keyring")
    assert ring is not None
    found = find_key("openai", [], None, ring, environ={})
    assert found is not None
    assert found.reveal() == "tokenkit-openai"


def test_importing_the_vault_imports_no_cryptography() -> None:
    script = "import sys, tokenkit.vault; sys.exit('cryptography' in sys.modules or 'keyring' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
