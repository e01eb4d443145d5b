"""The command line as a person meets it: a process, its output, its exit code, and one clear line for a mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import faults
import pytest
from faults import FaultServer, reply

KEY = "sk-live-2f9c71e0b4d8"


def run(*words: str, home: Path, said: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    env |= {"TOKENKIT_HOME": str(home), "XDG_CONFIG_HOME": str(home / "none"), **environ}
    command = [sys.executable, "-m", "tokenkit", *words]
    return subprocess.run(command, input=said, capture_output=True, text=True, env=env, cwd=home, timeout=120)


def test_a_prompt_answers_on_stdout_and_is_counted(tmp_path: Path) -> None:
    asked = run("prompt", "Name a river.", "--model", "swift", "--max-tokens", "9", "--user", "ada", home=tmp_path)
    assert asked.returncode == 0
    assert asked.stdout.startswith("[simulated by swift")
    assert "Receipt(" in asked.stderr
    assert "simulated provider answers" in asked.stderr
    assert run("prompt", home=tmp_path, said="From stdin.").returncode == 0
    dry = run("prompt", "How much?", "--dry", home=tmp_path)
    assert "at most" in dry.stdout
    assert "simulated/swift" in run("stats", home=tmp_path).stdout
    assert "ada" in run("stats", "--by", "user", home=tmp_path).stdout
    said = run("ledger", "verify", home=tmp_path).stdout
    assert "All 2 receipts" in said
    head = said.split()[-1]
    assert run("ledger", "verify", "--head", head, home=tmp_path).returncode == 0
    other = run("ledger", "verify", "--head", "ab" * 32, home=tmp_path)
    assert (other.returncode, "No row has the head" in other.stdout) == (1, True)
    assert run("ledger", "export", "calls.csv", home=tmp_path).returncode == 0
    assert (tmp_path / "calls.csv").read_text().count("\n") == 3
    assert "weight" in run("model", "list", home=tmp_path).stdout
    assert "well" in run("provider", "health", home=tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prompt", "hi", "--modle", "x"), "--modle"),
        (("prompt", "hi", "--model", "swfit"), "Did you mean 'swift'"),
        (("prompt", "  "), "empty"),
        (("promt",), "promt"),
        ((), "COMMAND"),
        (("stats", "--by", "colour"), "colour"),
        (("--config", "nowhere.toml", "stats"), "no such file"),
        (("provider", "add", "opnai"), "Did you mean 'openai'"),
        (("vault", "list"), "no vault"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run(*words, home=tmp_path)
    told = [line for line in done.stderr.splitlines() if not line.startswith("tokenkit: no tokenkit.toml")]
    assert done.returncode == 2
    assert len(told) == 1
    assert said in told[0]


def test_broken_configuration_is_told_whole_and_hides_keys(tmp_path: Path) -> None:
    (tmp_path / "tokenkit.toml").write_text(f'[[provider]]\nnam = "x"\napi_key = "{KEY}"\n')
    done = run("validate", home=tmp_path)
    assert done.returncode == 2
    assert "nam" in done.stderr
    assert "api_key" in done.stderr
    assert KEY not in done.stderr + done.stdout
    (tmp_path / "tokenkit.toml").write_text("[[provider]\n")
    assert "line 1" in run("validate", home=tmp_path).stderr


def test_a_key_goes_into_the_vault_by_stdin_and_is_used_from_there(tmp_path: Path) -> None:
    vault = {"TOKENKIT_VAULT_KEY": "5a" * 32}
    assert run("provider", "add", "openai", home=tmp_path, said=f"  {KEY}\n", **vault).returncode == 0
    assert run("vault", "set", "anthropic", home=tmp_path, said="sk-ant-77\n", **vault).returncode == 0
    assert run("vault", "list", home=tmp_path, **vault).stdout.split() == ["anthropic", "openai"]
    assert run("vault", "delete", "anthropic", home=tmp_path, **vault).returncode == 0
    assert KEY.encode() not in (tmp_path / "vault").read_bytes()
    with FaultServer(faults.streamed(faults.events("Hello"))) as server:
        (tmp_path / "tokenkit.toml").write_text(f'[[provider]]\nname = "openai"\nbase_url = "{server.url}/v1"\n')
        asked = run("prompt", "hi", "--model", "openai/gpt-4o", home=tmp_path, **vault)
        assert asked.stdout.strip() == "Hello", asked.stderr
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
        server.script(reply(401, b'{"error": {"message": "wrong key"}}'))
        refused = run("prompt", "hi", "--model", "openai/gpt-4o", home=tmp_path, **vault)
        assert refused.returncode == 1
        assert refused.stderr.startswith("AuthError: wrong key")
    wrong = run("vault", "list", home=tmp_path, TOKENKIT_VAULT_KEY="6b" * 32)
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1
    assert "Traceback" not in wrong.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m tokenkit model list | head -1"
    env = {**os.environ, "TOKENKIT_HOME": str(tmp_path), "TOKENKIT_SIMULATED": "1"}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=env, timeout=60)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_the_demo_leaves_one_page_that_needs_no_network(tmp_path: Path) -> None:
    done = run("demo", "--out", "page.html", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "simulated/sage" in done.stdout
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page or "<svg" in page
    assert "<script" not in page
    assert 'src="http' not in page
    assert 'href="http' not in page
