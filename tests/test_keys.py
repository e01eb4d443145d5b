"""Several keys of one provider: they take turns, a refused one is dropped, none is ever shown."""

from __future__ import annotations

from pathlib import Path

import faults
import pytest
from faults import FaultServer, reply

import tokenkit as tk
from tokenkit.errors import AuthError
from tokenkit.layers import Keys
from tokenkit.types import Secret


def configured(tmp_path: Path, server: FaultServer) -> tk.Kit:
    path = tmp_path / "tokenkit.toml"
    path.write_text(
        f"""
[[provider]]
name = "here"
dialect = "openai"
base_url = "{server.url}/v1"
key_env = ["KEY_ONE", "KEY_TWO", "KEY_THREE"]

[[model]]
provider = "here"
name = "m"
price = {{ input = 1, output = 2 }}
""",
        encoding="utf-8",
    )
    environ = {"KEY_ONE": "sk-one-11111111", "KEY_TWO": "sk-two-22222222", "KEY_THREE": "sk-three-3333"}
    return tk.Kit(path, home=tmp_path, environ=environ)


def used(server: FaultServer) -> list[str]:
    return [seen.headers["authorization"].split("-")[1] for seen in server.requests]


def test_keys_take_turns(tmp_path: Path) -> None:
    with FaultServer(reply()) as server, configured(tmp_path, server) as kit:
        for _ in range(4):
            kit.call("hello", model="m")
        assert used(server) == ["one", "two", "three", "one"]


def test_a_refused_key_is_not_used_again_and_the_call_succeeds(tmp_path: Path) -> None:
    with FaultServer(faults.error(401, "bad key"), reply()) as server, configured(tmp_path, server) as kit:
        answers = [kit.call("hello", model="m") for _ in range(3)]
        assert used(server) == ["one", "two", "three", "two"]
        receipt = answers[0].receipt
        assert receipt is not None
        assert [a.status for a in receipt.attempts] == ["error", "ok"]
        assert receipt.notes == ("key 1 of 3 of here: AuthError",)


def test_a_spent_key_rests(tmp_path: Path) -> None:
    spent = faults.error(429, "You exceeded your current quota", "insufficient_quota")
    with FaultServer(spent, reply()) as server, configured(tmp_path, server) as kit:
        kit.call("hello", model="m")
        kit.call("hello", model="m")
        assert used(server) == ["one", "two", "three"]


def test_when_every_key_is_refused_the_error_is_the_providers(tmp_path: Path) -> None:
    with FaultServer(faults.error(401, "no such key")) as server, configured(tmp_path, server) as kit:
        for _ in range(2):
            with pytest.raises(AuthError):
                kit.call("hello", model="m")
        assert used(server) == ["one", "two", "three"]


def test_keys_show_how_many_never_what() -> None:
    keys = Keys([Secret("sk-a"), Secret("sk-b")])
    keys.refuse(0)
    assert repr(keys) == "Keys(1 of 2 in use)"
    assert keys.pick(0.0) == 1
    keys.rest(1, 0.0)
    assert keys.pick(1.0) is None
    assert keys.pick(601.0) == 1
