"""The vocabularies: tiktoken's own bytes, read offline by the whole process, verified, never written or fetched."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import tiktoken_ext.openai_public as public

from tokenkit import tokens, vocab
from tokenkit.errors import TokenkitError


def test_the_vocabularies_are_tiktokens_own() -> None:
    expected = {"cl100k_base": "223921b7", "o200k_base": "446a9538"}
    for name, head in expected.items():
        packed = (vocab.FOLDER / f"{name}.tiktoken.gz").read_bytes()
        assert packed[4:8] == b"\0\0\0\0", "the gzip header must hold no time, or the wheel differs with each build"
        assert hashlib.sha256(gzip.decompress(packed)).hexdigest().startswith(head)
    assert "Copyright (c) 2022 OpenAI, Shantanu Jain" in (vocab.FOLDER / "LICENSE-tiktoken").read_text()


OFFLINE = """
    import os, socket, sys
    def refuse(*args, **kw): raise AssertionError("the network was touched")
    socket.socket = socket.create_connection = socket.getaddrinfo = refuse
    import tokenkit.tokens
    assert "tiktoken" not in sys.modules, "import tokenkit.tokens brought tiktoken in"
    tokenkit.tokens.install()
    tokenkit.tokens.install()
    import tiktoken
    for name in tokenkit.tokens.CARRIED:
        encoding = tiktoken.get_encoding(name)
        assert encoding.decode(encoding.encode("Grüße")) == "Grüße"
    assert tiktoken.encoding_for_model("gpt-4o") is tiktoken.get_encoding("o200k_base")
    assert tiktoken.get_encoding("o200k_harmony").encode("<|start|>", allowed_special="all") == [200006]
    assert tokenkit.tokens.count("Hello, world!") == 4
    print("offline", sorted(os.listdir(os.environ["TMPDIR"])), os.environ.get("TIKTOKEN_CACHE_DIR"))
"""


def test_offline_everywhere_in_the_process(tmp_path: Path) -> None:
    environ = {k: v for k, v in os.environ.items() if k not in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")}
    code = textwrap.dedent(OFFLINE)
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "offline [] None", run.stderr


def test_the_parameters_are_tiktokens() -> None:
    for name, build in vocab.constructors(public).items():
        made = build()
        assert made["name"] == name
        assert set(made) == {"name", "pat_str", "mergeable_ranks", "special_tokens"}
    assert set(vocab.constructors(public)) == set(tokens.CARRIED)
    assert public.load_tiktoken_bpe is not vocab.ranks, "tiktoken's own module must stay as it is"


def test_a_damaged_vocabulary_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (vocab.FOLDER / "cl100k_base.tiktoken.gz").read_bytes()
    monkeypatch.setattr(vocab, "FOLDER", tmp_path)
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    file = tmp_path / "cl100k_base.tiktoken.gz"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    other = gzip.compress(b"IQ== 0\n")
    for content in (None, b"", whole[:-100], bytes(flipped), b"<html>", other):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(TokenkitError, match=r"cl100k_base.*cannot be used.*--force-reinstall tokenkit"):
            vocab.constructors(public)["cl100k_base"]()


def test_the_users_cache_is_read_and_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
    mine = tmp_path / "cache" / hashlib.sha1(url.encode()).hexdigest()
    mine.parent.mkdir()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(mine.parent))
    build = vocab.constructors(public)["cl100k_base"]
    mine.write_bytes(b"not a vocabulary")
    ranks = build()["mergeable_ranks"]
    assert mine.read_bytes() == b"not a vocabulary"
    assert os.listdir(mine.parent) == [mine.name]
    mine.write_bytes(gzip.decompress((vocab.FOLDER / "cl100k_base.tiktoken.gz").read_bytes()))
    monkeypatch.setattr(vocab, "FOLDER", tmp_path / "gone")
    assert build()["mergeable_ranks"] == ranks
    shutil.rmtree(mine.parent)
    with pytest.raises(TokenkitError, match="cannot be used"):
        build()
