"""``tokenkit ledger …``: verify the log, take in and give out history, let go of what is old."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tokenkit.cli.parts import Parser, group, kit_of
from tokenkit.ledger.imports import FORMS


def commands_of(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the commands of the ledger."""
    ledger = group(
        commands,
        "ledger",
        "the log of every call",
        {
            "verify": (_verify, "check that no receipt was changed"),
            "export": (_export, "write Parquet, CSV or JSONL, or a folder of Parquet by month"),
            "import": (_import, "take in what LiteLLM, OpenTelemetry, Langfuse, llm or a table has logged"),
            "retain": (_retain, "drop what is older"),
            "compact": (_compact, "give back the disk that dropped calls took"),
        },
    )
    ledger["verify"].add_argument("--head", help="a head noted earlier, which a row must still have")
    ledger["export"].add_argument("path", type=Path)
    ledger["export"].add_argument("--otel", action="store_true", help="as OpenTelemetry spans (OTLP/JSON)")
    ledger["import"].add_argument("path", type=Path)
    ledger["import"].add_argument("--format", dest="form", default=None, help=f"{', '.join(FORMS)}; guessed without")
    ledger["retain"].add_argument("days", type=float, help="how many days to keep")
    ledger["retain"].add_argument("--texts", action="store_true", help="drop only prompts and answers")
    ledger["retain"].add_argument("--keep-journal", action="store_true", help="drop from the ledger alone")


def _verify(said: argparse.Namespace) -> int:
    with kit_of(said) as kit:
        verdict = kit.ledger.verify(said.head)
        print(verdict)
        if verdict:
            print(f"head {verdict.head}")
        return 0 if verdict else 1


def _export(said: argparse.Namespace) -> int:
    with kit_of(said) as kit:
        kit.ledger.export(said.path, form="otel" if said.otel else None)
    print(f"wrote {said.path}")
    return 0


def _import(said: argparse.Namespace) -> int:
    with kit_of(said) as kit:
        done = kit.ledger.import_(said.path, said.form)
    print(f"took in {done.rows:,} calls; {done.known:,} were there already")
    for fault in done.faults[:20]:
        print(fault, file=sys.stderr)
    if done.faults:
        print(f"{len(done.faults):,} rows were left out", file=sys.stderr)
    return 1 if done.faults else 0


def _retain(said: argparse.Namespace) -> int:
    with kit_of(said) as kit:
        print(kit.ledger.retain(said.days, texts_only=said.texts, keep_journal=said.keep_journal))
    return 0


def _compact(said: argparse.Namespace) -> int:
    with kit_of(said) as kit:
        print(f"{kit.ledger.compact():,} bytes given back")
    return 0
