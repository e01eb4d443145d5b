"""Embeddings and health through a kit: batched, priced, recorded; nearest texts; providers that are there or not."""

from __future__ import annotations

import json
from pathlib import Path

import faults
import pytest
from faults import FaultServer, reply

import tokenkit as tk
from tokenkit.catalog import Model
from tokenkit.embeddings import cosine, nearest
from tokenkit.errors import ProtocolError, UnknownModel, UserError
from tokenkit.pricing import flat
from tokenkit.providers import openai
from tokenkit.types import Secret


def vectors(*rows: list[float], tokens: int = 8) -> bytes:
    data = [{"index": i, "embedding": row} for i, row in enumerate(rows)]
    return json.dumps({"object": "list", "data": data, "model": "e", "usage": {"prompt_tokens": tokens}}).encode()


def kit_on(server: FaultServer, tmp_path: Path) -> tk.Kit:
    provider = openai.provider(name="here", base_url=f"{server.url}/v1", key=Secret("sk-here-123456"))
    able = Model("here", "e", 1.0, flat("user", "e", input=0.02, output=0), 8192, capabilities=frozenset({"embed"}))
    return tk.Kit(home=tmp_path, providers=[provider], models=[able], environ={})


def test_embeddings_are_calls_with_receipts(tmp_path: Path) -> None:
    answers = faults.error(503), reply(200, vectors([1.0, 0.0], [0.0, 1.0]))
    with FaultServer(*answers) as server, kit_on(server, tmp_path) as kit:
        made = kit.embed(["one", "two"], user="ada")
        assert list(made) == [[1.0, 0.0], [0.0, 1.0]]
        (receipt,) = made.receipts
        assert (receipt.operation, receipt.user, receipt.model) == ("embeddings", "ada", "here/e")
        assert [a.status for a in receipt.attempts] == ["error", "ok"]
        assert receipt.cost_nanos == 8 * 20
        assert receipt.usage is not None
        assert receipt.usage.output_tokens == 0
        assert len(kit.ledger.df()) == 1


def test_more_texts_than_one_request_holds_are_sent_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from tokenkit import embeddings
    from tokenkit.providers.embeddings import embedder_of

    monkeypatch.setattr(embeddings, "embedder_of", lambda p: replace(embedder_of(p), most=3))
    with tk.Kit.simulated(pace=0) as kit:
        texts = [f"text {n}" for n in range(8)]
        made = kit.embed(texts)
        assert len(made) == 8
        assert len(made.receipts) == 3
        assert list(made) == [kit.embed(text)[0] for text in texts]


def test_a_provider_that_gives_too_few_vectors_is_caught(tmp_path: Path) -> None:
    too_few = pytest.raises(ProtocolError, match="1 vectors for 2 texts")
    with FaultServer(reply(200, vectors([1.0]))) as server, kit_on(server, tmp_path) as kit, too_few:
        kit.embed(["one", "two"])


def test_the_nearest_texts_come_first() -> None:
    with tk.Kit.simulated(pace=0) as kit:
        texts = ["rivers of Europe", "prime numbers", "the rivers in Europe and Asia"]
        near = kit.similar("European rivers", texts, top=2)
        assert {n.text for n in near} == {texts[0], texts[2]}
        assert near[0].score >= near[1].score
        assert texts[near[0].place] == near[0].text


def test_mistakes_are_told() -> None:
    with tk.Kit.simulated(pace=0) as kit:
        with pytest.raises(UnknownModel):
            kit.embed("x", model="nope")
        with pytest.raises(UserError):
            kit.embed(["fine", ""])
    with pytest.raises(ProtocolError, match="two models"):
        cosine([1.0], [1.0, 2.0])
    assert cosine([0.0], [1.0]) == 0.0
    assert [n.place for n in nearest([1.0], [[1.0], [1.0]], ["a", "b"], 5)] == [0, 1]


def test_health_asks_all_at_once_and_believes_for_a_while(tmp_path: Path) -> None:
    models = json.dumps({"object": "list", "data": [{"id": "e"}, {"id": "f"}]}).encode()
    with FaultServer(reply(200, models)) as server, kit_on(server, tmp_path) as kit:
        found = kit.health()["here"]
        assert found
        assert found.models == ("e", "f")
        assert "well, 2 models" in str(found)
        kit.health()
        assert len(server.requests) == 1
        assert server.requests[0].line.startswith("GET /v1/models ")


def test_health_says_what_is_wrong(tmp_path: Path) -> None:
    with FaultServer(faults.error(401, "no such key")) as server, kit_on(server, tmp_path) as kit:
        found = kit.health()["here"]
        assert not found
        assert "AuthError" in str(found)
    with kit_on(server, tmp_path) as kit:
        assert "TransportError" in (kit.health()["here"].error or "")
    with tk.Kit.simulated() as kit:
        assert kit.health()["simulated"].well
