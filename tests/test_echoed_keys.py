"""A server that says the key it was sent: whatever the key looks like, no error, receipt or ledger keeps it."""

from __future__ import annotations

import base64
import json
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from faults import FaultServer, reply, streamed
from hypothesis import given
from hypothesis import strategies as st

import tokenkit as tk
from tokenkit.catalog import Model
from tokenkit.errors import ProviderError, TokenkitError
from tokenkit.pricing import flat
from tokenkit.providers import openai
from tokenkit.providers.masking import hide_key, without_key
from tokenkit.types import Secret

# Nothing about these looks like a key to a pattern.
SHORT, LONG = "plainword77", "correct-horse+battery/staple"
FORMS = {
    "whole": lambda key: key,
    "upper case": str.upper,
    "URL-encoded": lambda key: quote(key, safe=""),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "hex": lambda key: key.encode().hex(),
}


def body_saying(said: str) -> bytes:
    error = {"message": f"Unknown credential {said} for this project", "code": said, "type": f"invalid_{said}"}
    return json.dumps({"error": error}).encode()


def kit_on(server: FaultServer, home: Path, key: str) -> tk.Kit:
    provider = openai.provider(name="here", base_url=f"{server.url}/v1", key=Secret(key))
    return tk.Kit(
        home=home, providers=[provider], models=[Model("here", "m", price=flat("user", "m", input=1, output=1))],
        environ={},
    )  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", [SHORT, LONG])
@pytest.mark.parametrize("streams", [False, True])
def test_a_key_that_is_echoed_is_kept_nowhere(tmp_path: Path, key: str, form: str, streams: bool) -> None:
    said = FORMS[form](key)
    event = b"data: " + body_saying(said) + b"\n\n"
    answer = streamed(event) if streams else reply(401, body_saying(said))
    with FaultServer(answer) as server, kit_on(server, tmp_path, key) as kit:
        with pytest.raises(TokenkitError) as caught:
            for _ in kit.stream("Hi", model="m") if streams else kit.call("Hi", model="m"):
                pass
        shown = "".join(traceback.format_exception(caught.value))
        shown += repr(caught.value.__dict__) + repr(caught.value.receipt)
        shown += str(kit.ledger.df().to_dict())
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert said.lower() not in shown.lower()
    assert "[key]" in shown
    assert said.encode().lower() not in kept.lower()


def test_the_last_characters_of_a_long_key_are_a_form_of_it_too() -> None:
    for said in ("it ends on aple.", "it is …aple", "it is corr####-aple", "it begins correct-ho", "'correct-horse+ba"):
        error = ProviderError(said, code=said, request_id=said)
        hide_key(error, Secret(LONG))
        for left in (str(error), error.code, error.request_id):
            assert "aple" not in str(left)
            assert "correct-ho" not in str(left)
    error = ProviderError("A maple is stapled to apples.")
    hide_key(error, Secret(LONG))
    assert str(error) == "A [key] is stapled to apples."


def test_a_check_up_does_not_tell_it_either(tmp_path: Path) -> None:
    with FaultServer(reply(401, body_saying(SHORT))) as server, kit_on(server, tmp_path, SHORT) as kit:
        told = kit.health()["here"]
    assert not told.well
    assert SHORT not in f"{told} {told!r}"


@pytest.mark.parametrize("key", [None, Secret(""), Secret("EMPTY")])
def test_no_key_or_one_that_guards_nothing_changes_nothing(key: Secret | None) -> None:
    assert without_key(b"empty, EMPTY \xff", key) == b"empty, EMPTY \xff"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6), st.binary(), st.binary())
def test_any_key_is_taken_out_of_any_bytes_and_the_rest_stays(key: str, before: bytes, after: bytes) -> None:
    found = without_key(before + b" " + key.encode() + b" " + after, Secret(key))
    assert key.encode() not in found.replace(b"[key]", b"")
    if len(key) < 16 and key.lower().encode() not in (before + b" " + after).lower() + b"[key]":
        assert found.count(b"[key]") >= 1
