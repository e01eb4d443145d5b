"""Clients, answers, books and callers that mean us harm: the caller gets what there is, and what is known counts."""

from __future__ import annotations

import asyncio
import json
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace as N
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest
from faults import FaultServer, completion, error, reply
from wraps import ASKED, all_of, keeping, last, openai, saying, serving, used

import tokenkit as tk
from tokenkit.errors import BudgetExceeded

said = pytest.fixture(saying)
kit = pytest.fixture(keeping)
server = pytest.fixture(serving)


class Hostile:
    """Raises at every property, but for what it was given."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"hostile {name}")


def chat(make: Any) -> Any:
    return Hostile(chat=Hostile(completions=Hostile(create=make)))


@pytest.mark.filterwarnings("ignore:tokenkit could not")
def test_a_client_whose_properties_raise(kit: tk.Kit) -> None:
    for answer in (Hostile(), Hostile(choices=[Hostile(message=Hostile())]), iter(()), object()):
        client = chat(lambda answer=answer, **kw: answer)
        asked: Any
        for asked in (ASKED, Hostile(), [Hostile()], [Hostile(role="user")], [[[]]], None, 7, deque(ASKED)):
            assert tk.tracked_completion(model="m", messages=asked, provider_client=client, kit=kit) is answer
            assert tk.track(client, kit=kit).chat.completions.create(model="m", messages=asked) is answer
    assert len(all_of(kit)) == 64


@pytest.mark.filterwarnings("ignore:tokenkit could not")
def test_odd_names_and_arguments_reach_the_client_as_they_are(kit: tk.Kit) -> None:
    seen: list[tuple[Any, Any]] = []
    client = chat(lambda *args, **kw: seen.append((args, kw)))
    for kw in ({"model": None, "messages": 1}, {"model": "a b\n", "messages": ""}, {"model": Hostile(), "n": "x"},
               {"model": "m", "max_tokens": "many", "tools": Hostile(), "user": 3, "config": Hostile()}):  # fmt: skip
        tk.track(client, kit=kit).chat.completions.create(5, **kw)
        assert seen[-1] == ((5,), kw)
    assert len(all_of(kit)) == 4


def test_mocks_come_back_as_they_are(kit: tk.Kit) -> None:
    mock = MagicMock()
    with pytest.warns(RuntimeWarning, match="could not read a client's answer"):
        answer = tk.tracked_completion(model="m", messages=ASKED, provider_client=mock, kit=kit)
    assert answer is mock.chat.completions.create.return_value
    mock.chat.completions.create.assert_called_once_with(model="m", messages=ASKED)
    client = tk.track(mock, kit=kit)
    client.chat.completions.create(model="m", messages=ASKED)
    client.chat.completions.create.assert_called_with(model="m", messages=ASKED)
    whole = N(choices=[N(message=N(content="Yes."))], usage=N(prompt_tokens=3, completion_tokens=1))
    waits = N(chat=N(completions=N(create=AsyncMock(return_value=whole))))
    made = tk.tracked_completion(model="m", messages=ASKED, provider_client=waits, kit=kit)
    assert asyncio.run(made) is whole
    assert used(last(kit)) == ("ok", 3, 1, "reported")
    late = tk.tracked_completion(model="m", messages=ASKED, provider_client=waits, kit=kit, stream=True)
    assert asyncio.run(late) is whole  # asked for a stream, answered at once
    parts = [N(choices=[N(delta=N(content=word), finish_reason=None)]) for word in ("Yes", ".")]
    for said in (parts, {"choices": [{"message": {"content": "Yes."}}]}):
        client = N(chat=N(completions=N(create=lambda said=said, **kw: said)))
        made = tk.tracked_completion(model="m", messages=ASKED, provider_client=client, kit=kit, stream=True)
        assert made is said
        assert (last(kit).status, last(kit).answer) == ("ok", "Yes.")


def test_messages_from_a_generator_are_read_once_and_all_sent(kit: tk.Kit, server: FaultServer) -> None:
    bare = json.loads(completion("Yes."))
    del bare["usage"]
    server.script(reply(body=json.dumps(bare).encode()))
    client = tk.track(openai(server), kit=kit)
    client.chat.completions.create(model="gpt-4o", messages=(one for one in ASKED))
    assert json.loads(server.requests[0].body)["messages"] == ASKED
    assert used(last(kit)) == ("ok", 11, 2, "estimated")

    def breaking() -> Iterator[Any]:
        yield ASKED[0]
        raise LookupError("the caller's own")

    with pytest.raises(LookupError, match="own"):
        client.chat.completions.create(model="gpt-4o", messages=breaking())
    assert len(server.requests) == 1


def test_two_threads_share_a_client_and_a_stream(kit: tk.Kit, server: FaultServer, said: set[str]) -> None:
    server.script(reply(body=completion("Yes.")))
    client = tk.track(openai(server), kit=kit)

    def ask() -> None:
        for _ in range(10):
            client.chat.completions.create(model="gpt-4o", messages=ASKED)

    with kit.budgets.cap("1 USD") as cap:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    stands = kit.budgets.standing(cap)
    assert (stands.calls, stands.held) == (40, 0)
    assert stands.spent == sum(one.cost_nanos or 0 for one in all_of(kit)) == 40 * (9 * 2_500 + 3 * 10_000)
    assert not said


def test_a_kit_closed_meanwhile(kit: tk.Kit, server: FaultServer) -> None:
    client = tk.track(openai(server), kit=kit)
    kit.close()
    assert client.chat.completions.create(model="gpt-4o", messages=ASKED).choices
    assert len(all_of(kit)) == 1  # the journal opens again for it


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.filterwarnings("ignore:tokenkit could not")
def test_a_journal_that_cannot_be_written(
    kit: tk.Kit, server: FaultServer, said: set[str], monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    kit.journal.close()
    for file in kit.home.glob("journal.sqlite3*"):
        file.unlink()
    (kit.home / "journal.sqlite3").mkdir()
    client = tk.track(openai(server), kit=kit)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if strict else "ignore")
        with kit.budgets.cap("0.01 USD") as cap:
            assert client.chat.completions.create(model="gpt-4o", messages=ASKED, max_tokens=9).choices
        server.script(error(429))
        with pytest.raises(Exception, match="429"):
            client.chat.completions.create(model="gpt-4o", messages=ASKED)
    assert kit.budgets.standing(cap).held == 0
    assert kit.budgets.standing(cap).spent == 9 * 2_500 + 3 * 10_000  # caps are kept in the process
    assert "write down a tracked call" in said


def test_tracked_calls_are_heard_charged_and_redacted_as_the_kits_own(tmp_path: Path, server: FaultServer) -> None:
    def hide(receipt: tk.Receipt) -> tk.Receipt:
        raise ValueError("broken hook")

    with tk.Kit(home=tmp_path, environ={"TOKENKIT_SIMULATED": "1"}, redact=hide) as kit:
        heard: list[tk.Receipt] = []
        kit.on_receipt.append(heard.append)
        kit.budgets.set("1 USD", window="day")
        tk.track(openai(server), kit=kit).chat.completions.create(model="gpt-4o", messages=ASKED, max_tokens=9)
        receipt = last(kit)
        assert [one.id for one in heard] == [receipt.id]
        assert receipt.prompt is None
        assert [charge.charged for charge in receipt.charges] == [receipt.cost_nanos]
        assert receipt.prompt_sha256


def test_the_books_of_the_default_home(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch, said: set[str]
) -> None:
    (tmp_path / "tokenkit.toml").write_text('[[budget]]\nlimit = "0.001 USD"\nwindow = "day"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENKIT_HOME", str(tmp_path / "home"))
    client = tk.track(openai(server))
    client.chat.completions.create(model="gpt-4o", messages=ASKED, max_tokens=9)
    with pytest.raises(BudgetExceeded):
        client.chat.completions.create(model="gpt-4o", messages=ASKED, max_tokens=9_000)
    assert len(server.requests) == 1
    with tk.Kit(home=tmp_path / "home", environ={"TOKENKIT_SIMULATED": "1"}) as kit:
        assert [len(one.charges) for one in all_of(kit)] == [1]
    assert not said
