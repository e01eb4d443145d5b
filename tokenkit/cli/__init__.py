"""The command line: parse, call the kit, show. No logic lives here that Python could not reach."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile

from tokenkit.cli import budgets, ledgers, serving, vaults
from tokenkit.cli.parts import Parser, Run, group, kit_of
from tokenkit.errors import TokenkitError, UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a call or check failed, 2 the command was wrong."""
    try:
        said = _parser().parse_args(argv)
        run: Run = said.run
        return run(said)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except TokenkitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has left: nobody is there to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> Parser:
    parser = Parser(prog="tokenkit", description="Know and steer what LLM calls cost.")
    parser.add_argument("--config", help="path of a tokenkit.toml (else it is searched for)")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Run, about: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about)
        sub.set_defaults(run=run)
        return sub

    demo = command("demo", _demo, "run the quickstart notebook headless and write an HTML report")
    demo.add_argument("--configured", action="store_true", help="use your own providers instead of the simulated one")
    demo.add_argument("--out", type=Path, default=Path("tokenkit-report.html"), help="where the report goes")
    demo.add_argument(
        "--history", default=None, metavar="CALLS", help="instead, write a synthetic log of so many calls"
    )
    demo.add_argument("--home", type=Path, default=Path("tokenkit-history"), help="the folder that log goes to")
    demo.add_argument("--seed", type=int, default=0, help="another seed, another history")
    command("lab", _lab, "open the quickstart notebook in JupyterLab")
    prompt = command("prompt", _prompt, "ask once; the answer goes to stdout, the receipt to stderr")
    prompt.add_argument("text", nargs="?", help="the prompt; without it, stdin is read")
    prompt.add_argument("--model", default=None, help="auto, a name, or provider/name")
    prompt.add_argument("--provider", default=None, help="only models of this provider")
    prompt.add_argument("--max-tokens", type=int, default=None, help="bound of the answer in tokens")
    prompt.add_argument("--system", default=None, help="a system prompt")
    prompt.add_argument("--user", default=None, help="whose call this is, for the ledger")
    prompt.add_argument("--endpoint", default=None, help="which part of your work this call belongs to")
    prompt.add_argument("--dry", action="store_true", help="show the plan and the upper-bound bill; send nothing")
    stats = command("stats", _stats, "show what was spent")
    stats.add_argument("--by", default="model", help="model, provider, user, endpoint, session or day")
    stats.add_argument("--since", default=None, help="today, month, a number of days such as 7d, or a date")
    group(commands, "model", "the models routing chooses from", {"list": (_models, "list prices and windows")})
    provider = group(
        commands,
        "provider",
        "the configured providers",
        {
            "list": (_providers, "list their addresses"),
            "add": (vaults.provider_add, "store a provider's key in the vault"),
            "health": (_health, "ask each whether it is there"),
        },
    )
    provider["add"].add_argument("name", help="openai, anthropic, google …")
    vaults.commands_of(commands)
    budgets.commands_of(commands)
    ledgers.commands_of(commands)
    serving.commands_of(commands)
    command("validate", _validate, "check tokenkit.toml and say everything that is wrong with it")
    return parser


def _demo(said: argparse.Namespace) -> int:
    if said.history is not None:
        return _history(said)
    from tokenkit import report
    from tokenkit.kit import Kit

    source = report.quickstart()
    said.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tokenkit-demo-") as folder:
        environ = {"TOKENKIT_HOME": folder}
        if not said.configured:
            environ["TOKENKIT_SIMULATED"] = "1"
        print(f"Running {source.name} in a temporary folder …", file=sys.stderr)
        notebook = report.execute(source, Path(folder), environ)
        with Kit(said.config if said.configured else None, environ={**os.environ, **environ}) as kit:
            print(kit.ledger.spend(by="model").to_string(index=False))
            said.out.write_text(report.page(notebook, kit, "tokenkit quickstart"), encoding="utf-8")
    print(f"\nThe whole run is in {said.out}: open it in a browser. It needs no network.")
    return 0


def _history(said: argparse.Namespace) -> int:
    from tokenkit.ledger.synthetic import write_history

    try:
        calls = float(said.history)
    except ValueError:
        raise UserError(f"--history needs a number of calls, such as 1e6, not {said.history!r}.") from None
    if calls != int(calls):
        raise UserError(f"--history needs a whole number of calls, not {said.history}.")
    print(write_history(said.home.absolute(), int(calls), seed=said.seed))
    print(f"Open it with: tokenkit.Kit.synthetic(home={str(said.home)!r})")
    return 0


def _lab(said: argparse.Namespace) -> int:
    from tokenkit import report

    if find_spec("jupyterlab") is None:
        raise UserError("JupyterLab is not installed here. Install it with: pip install 'tokenkit[lab]'")
    mine = Path("tokenkit-quickstart.ipynb")
    if not mine.exists():
        copyfile(report.quickstart(), mine)
    return subprocess.call([sys.executable, "-m", "jupyterlab", str(mine)])  # noqa: S603 - our own interpreter


def _prompt(said: argparse.Namespace) -> int:
    text = said.text if said.text is not None else sys.stdin.read()
    with kit_of(said) as kit:
        options = {
            "model": said.model, "provider": said.provider, "max_tokens": said.max_tokens, "system": said.system,
            "user": said.user, "endpoint_name": said.endpoint,
        }  # fmt: skip
        if said.dry:
            print(kit.plan(text, **options))
            return 0
        with kit.stream(text, **options) as stream:
            for delta in stream:
                print(delta.text, end="", flush=True)
            print()
        print(stream.receipt, file=sys.stderr)
    return 0


def _stats(said: argparse.Namespace) -> int:
    with kit_of(said) as kit:
        print(kit.ledger.spend(by=said.by, since=said.since).to_string(index=False))
    return 0


def _models(said: argparse.Namespace) -> int:
    with kit_of(said) as kit:
        for model in kit.models:
            window = f"{model.context_window:,}" if model.context_window else "unknown"
            price = str(model.price.receipt(0)) if model.price else "unpriced"
            print(f"{model.id:44} weight {model.weight:<5g} window {window:>10}  {price}")
    return 0


def _providers(said: argparse.Namespace) -> int:
    with kit_of(said) as kit:
        for provider in kit.providers:
            print(f"{provider.name:16} {provider.base_url}")
    return 0


def _health(said: argparse.Namespace) -> int:
    with kit_of(said) as kit:
        found = kit.health().values()
        for one in found:
            print(one)
        return 0 if all(found) else 1


def _validate(said: argparse.Namespace) -> int:
    from tokenkit.config import load

    config = load(None if said.config is None else Path(said.config), os.environ)
    print(f"{config.path}: nothing wrong" if config.path else "There is no tokenkit.toml here; the defaults hold.")
    return 0
