"""The README's provider of one's own: short, installed as a package of its own, and asked over a real socket."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from faults import FaultServer, reply

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")

ASK = """
import json, sys
import tokenkit as tk
with tk.Kit(sys.argv[1], home=sys.argv[2], environ={"ACME_KEY": "acme-key-123"}) as kit:
    whole = kit.call("How are you?", model="acme/m", max_tokens=9)
    stream = kit.stream("How are you?", model="acme/m")
    text = "".join(delta.text for delta in stream)
    print(json.dumps([whole.text, text, whole.receipt.cost_nanos, stream.receipt.cost_nanos, stream.receipt.status]))
"""


def block() -> str:
    (found,) = [b for b in re.findall(r"^```python\n(.*?)^```", README, re.M | re.S) if "x-acme-key" in b]
    return found


def test_it_is_short() -> None:
    lines = [line for line in block().splitlines() if line.strip()]
    assert len(lines) <= 25, f"the README promises a short provider, and this one has {len(lines)} lines"


def test_it_is_installed_and_asked(tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "acme_tokenkit-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "acme_tokenkit.py").write_text(block(), encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-tokenkit\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tokenkit.providers]\nacme = acme_tokenkit:provider\n")
    with FaultServer(reply(200, json.dumps({"said": "Fine.", "read": 4, "wrote": 2}).encode())) as server:
        config = tmp_path / "tokenkit.toml"
        config.write_text(
            f'[[provider]]\nname = "acme"\nbase_url = "{server.url}"\nkey_env = "ACME_KEY"\n'
            '[[model]]\nprovider = "acme"\nname = "m"\nprice = { input = 1, output = 2 }\n'
        )
        env = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(
            [sys.executable, "-c", ASK, str(config), str(tmp_path)], env=env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == ["Fine.", "Fine.", 8000, 8000, "ok"]
        assert [seen.headers["x-acme-key"] for seen in server.requests] == ["acme-key-123"] * 2
        assert json.loads(server.requests[0].body) == {"use": "m", "say": "How are you?", "most": 9}
