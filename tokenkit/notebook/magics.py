"""The magics: ``%%route`` and ``%route``, ``%tokens``, ``%spend``, ``%receipt``. Parse, call, show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand
from IPython.display import display

from tokenkit import _html
from tokenkit.errors import ConfigError, TokenkitError, UserError, did_you_mean
from tokenkit.kit import Kit
from tokenkit.notebook.arguing import argue
from tokenkit.notebook.cells import as_typed
from tokenkit.notebook.lines import TEMPLATE, Option, Wants, filled, read
from tokenkit.notebook.live import Live
from tokenkit.receipts import Receipt
from tokenkit.streams import Stream
from tokenkit.types import Response

ROUTE = (
    Option("model", str, "auto, a name, or provider/name", "NAME"),
    Option("provider", str, "only models of this provider", "NAME"),
    Option("max-tokens", int, "bound of the answer", "TOKENS"),
    Option("system", str, "a system prompt", "TEXT"),
    Option("temperature", float, "sampling temperature", "NUMBER"),
    Option("deadline", float, "for the whole call, retries included", "SECONDS"),
    Option("user", str, "whose call this is, for the ledger", "NAME"),
    Option("session", str, "which conversation it belongs to", "NAME"),
    Option("endpoint", str, "which part of your work it belongs to", "NAME"),
    Option("budget", str, "the most this call may cost, such as 0.05", "USD"),
    Option("compress", str, "stages that shorten the prompt, such as normalize,summarize", "STAGES"),
    Option("target", float, "share of tokens to keep, such as 0.4", "SHARE"),
    Option("query", str, "what the text is read for, where the prompt does not end with the question", "TEXT"),
    Option("cache", str, "answer the same request again from the cache: always, or if no older than 7d", "AGE"),
    Option("no-cache", bool, "ask again, though the configuration says to use the cache"),
    Option("changes", bool, "in a --session: send edits to the text the model was given, where that is cheaper"),
    Option("out", str, "put the response in this variable", "NAME"),
    Option("dry", bool, "show the plan and the most it can cost; send nothing"),
    Option("verbose", bool, "show the plan and every stage beneath the receipt"),
    Option("template", bool, TEMPLATE),
    Option("no-stream", bool, "wait for the whole answer"),
    Option("adversarial", bool, "plan, let a critic attack the plan, and refine it"),
    Option("critic", str, "who attacks; by default the plan's second model", "NAME"),
    Option("rounds", int, "how often", "NUMBER"),
    Option("kit", str, "ask the kit in this variable", "NAME"),
)
KIT = ROUTE[-1]
TOKENS = (Option("model", str, "count for this model", "NAME"), KIT)
SPEND = (
    Option("by", str, "model, provider, user, session, endpoint, status, day or month", "WHAT"),
    Option("since", str, "today, week, month, an age such as 7d or 24h, or a date", "WHEN"),
    KIT,
)
RECEIPT = (Option("verbose", bool, "show the plan and every stage too"), KIT)

RATE = (Option("id", str, "another call than the last one, by its id or the end of it", "ID"), KIT)

ABOUT = {
    "%%route": "Ask a model: the cell is the prompt, byte for byte. `%route [options] prompt` asks from one line.",
    "%tokens": "Count tokens, offline: `%tokens [options] text`, or the cell with %%tokens.",
    "%spend": "Show what was spent.",
    "%rate": "Say how good the last answer was, from 0 (bad) to 1 (good): `%rate 1 [why]`. What-if learns from it.",
    "%receipt": "Show the last receipt, or the one whose id begins or ends like this: `%receipt [id]`.",
}

ASKED = (
    "model",
    "provider",
    "max_tokens",
    "system",
    "temperature",
    "deadline",
    "user",
    "session",
    "budget",
    "compress",
    "target",
    "query",
    "changes",
    "cache",
)
LONGEST_LINE = 2_000


class Told(Exception):
    """Fails the cell, so that Run All stops as ever, and shows one line instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return str(self).split("\n")


def told(error: BaseException) -> str:
    """Say an error of ours in one line, several faults of a configuration in one line each."""
    lines: Sequence[str] = (f"{type(error).__name__}: {error}",)
    if isinstance(error, KeyboardInterrupt):
        lines = ("interrupted",)
    elif isinstance(error, ConfigError):
        lines = error.problems
    elif isinstance(error, UserError):
        lines = (str(error),)
    return "\n".join(_html.visible(" ".join(line.split()), LONGEST_LINE) for line in lines)


def magic(
    name: str, options: tuple[Option, ...], about: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a method a magic: its line is read by ``options``, its mistakes are told in one line, -h prints help."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def called(self: Any, line: str = "", cell: str | None = None) -> Any:
            try:
                said, rest = read(name, line, options, about or ABOUT[name])
                return method(self, said, rest, cell)
            except Wants as help_:
                print(help_)
                return None
            except (TokenkitError, KeyboardInterrupt) as error:
                line = told(error)
            # Out here, so that neither traceback nor local variables of the call hang on to what the shell keeps.
            raise Told(line)

        return called

    return decorate


@magics_class
class Routing(Magics):  # type: ignore[misc]  # IPython is untyped here
    """Magics around the active kit."""

    last: tuple[Kit, Receipt] | None = None

    @no_var_expand
    @line_cell_magic
    @magic("%%route", ROUTE)
    def route(self, said: dict[str, Any], rest: str, cell: str | None) -> None:
        """Ask a model and stream its answer; -h lists the options."""
        if cell is not None and rest:
            raise UserError(
                f"%%route takes options only on its first line, and {rest.split()[0]!r} is none. -h lists them."
            )
        prompt = rest if cell is None else as_typed(self.shell, cell)
        if not prompt.strip():
            raise UserError("There is no prompt: write it beneath %%route, or after %route on its line.")
        if said.get("template"):
            prompt = filled(prompt, self.shell.user_ns)
        _check_name(said.get("out"))
        kit = kit_said(self.shell, said)
        if "cache" in said:
            said["cache"] = True if said["cache"] == "always" else said["cache"]
        if said.get("no_cache"):
            said["cache"] = False
        options = {key: said[key] for key in ASKED if key in said} | {"endpoint_name": said.get("endpoint")}
        if said.get("dry"):
            plan = kit.plan(prompt, **options)
            display(plan) if is_rich(self.shell) else print(plan)
            return
        response: Any = None
        if said.get("adversarial"):
            response = argue(kit, prompt, options, said, rich=is_rich(self.shell))
        elif "critic" in said or "rounds" in said:
            raise UserError("--critic and --rounds belong to --adversarial: say that too.")
        else:
            response = self._asked(kit, prompt, options, said)
        if said.get("out"):
            self.shell.user_ns[said["out"]] = response

    def _asked(self, kit: Kit, prompt: str, options: dict[str, Any], said: dict[str, Any]) -> Response | None:
        """Ask, show the answer as it comes and, however it ends, the receipt beneath."""
        live = Live(rich=is_rich(self.shell))
        stream: Stream | None = None
        receipt: Receipt | None = None
        card = True
        before, kit.on_sleep = kit.on_sleep, live.wait
        try:
            if said.get("no_stream"):
                response = kit.call(prompt, **options)
                receipt = response.receipt
                live.add(response.text)
                return response
            with kit.stream(prompt, **options) as stream:
                for delta in stream:
                    live.add(delta.text)
            return stream.response
        except (TokenkitError, KeyboardInterrupt) as error:
            receipt = getattr(error, "receipt", None)
            # Where nothing was sent, the line says it all.
            card = not isinstance(error, UserError) and (receipt is None or bool(receipt.attempts))
            raise
        finally:
            kit.on_sleep = before
            receipt = (stream.receipt if stream is not None else None) or receipt
            self.last = self.last if receipt is None else (kit, receipt)
            live.finish(receipt if card else None, verbose=bool(said.get("verbose")))
            if receipt is not None and receipt.status == "ok" and live.rich and kit.config.thumbs:
                _offer_thumbs(kit, receipt)

    @no_var_expand
    @line_cell_magic
    @magic("%tokens", TOKENS)
    def tokens(self, said: dict[str, Any], rest: str, cell: str | None) -> None:
        """Count tokens offline."""
        text = rest if cell is None else as_typed(self.shell, cell)
        model = said.get("model", "gpt-4o")
        count = kit_said(self.shell, said).count(text, model)
        exact = "exactly" if count.exact else f"about, at most {count.upper_bound:,}"
        print(f"{count.tokens:,} tokens for {model} ({exact}; {count.encoding})")

    @no_var_expand
    @line_magic
    @magic("%spend", SPEND)
    def spend(self, said: dict[str, Any], rest: str, cell: str | None) -> Any:
        """Show spend by model, or by what you say, and tell of hours with far more than usual."""
        from tokenkit.analysis.totals import unusual  # here, because it brings pandas

        _nothing_more("%spend", rest)
        ledger = kit_said(self.shell, said).ledger
        spent = ledger.spend(by=said.get("by", "model"), since=said.get("since"))
        for line in (ledger.note, unusual(ledger)):
            if line:
                print(_html.visible(line))
        return spent

    @no_var_expand
    @line_magic
    @magic("%receipt", RECEIPT)
    def receipt(self, said: dict[str, Any], rest: str, cell: str | None) -> None:
        """Show the last receipt, or one by its id."""
        kit = kit_said(self.shell, said)
        # The last of this kernel comes first: others may be writing to the same journal.
        mine = self.last[1] if self.last is not None and self.last[0] is kit else None
        receipt = kit.receipt(rest) if rest else mine or kit.receipt()
        if receipt is None:
            raise UserError(f"There is no receipt {rest!r}." if rest else "There is no receipt yet: ask something.")
        Live(rich=is_rich(self.shell)).finish(receipt, verbose=bool(said.get("verbose")))

    @no_var_expand
    @line_magic
    @magic("%rate", RATE)
    def rate(self, said: dict[str, Any], rest: str, cell: str | None) -> None:
        """Rate the last call of this kernel, or one by its id."""
        kit = kit_said(self.shell, said)
        mine = self.last[1] if self.last is not None and self.last[0] is kit else None
        receipt = kit.receipt(said["id"]) if "id" in said else mine or kit.receipt()
        if receipt is None:
            raise UserError(f"There is no receipt {said['id']!r}." if "id" in said else "There is no call to rate yet.")
        number, _, why = rest.partition(" ")
        try:
            rating = float({"up": "1", "down": "0", "👍": "1", "👎": "0"}.get(number, number))
        except ValueError:
            raise UserError(f"%rate needs a number from 0 to 1, up or down, not {number!r}.") from None
        kit.rate(receipt, rating, why.strip() or None)
        print(f"rated {receipt.model or receipt.requested_model} {rating:g} (receipt {receipt.id[-8:]})")


def kit_said(shell: Any, said: dict[str, Any]) -> Kit:
    """Return the kit to ask: the one in the variable that --kit names, else the active one."""
    name = said.get("kit")
    if name is None:
        from tokenkit import notebook

        return notebook.kit()
    found = shell.user_ns.get(name)
    if not isinstance(found, Kit):
        what = f"it is a {type(found).__name__}" if name in shell.user_ns else "there is no such variable"
        raise UserError(f"--kit needs the name of a variable that holds a Kit, and {name!r} does not: {what}.")
    return found


def is_rich(shell: Any) -> bool:
    """Return whether outputs can update and hold HTML: in a kernel, not in a terminal."""
    return getattr(shell, "kernel", None) is not None


def _offer_thumbs(kit: Kit, receipt: Receipt) -> None:
    from tokenkit.notebook.thumbs import Thumbs  # here, because it is built of what this module has

    Thumbs(lambda rating: kit.rate(receipt, rating)).show()


def _check_name(name: str | None) -> None:
    if name is not None and not name.isidentifier():
        raise UserError(f"--out needs the name of a variable, and {name!r} cannot be one.")


def _nothing_more(magic: str, rest: str) -> None:
    if rest:
        options = [f"--{option.name}" for option in SPEND]
        raise UserError(f"{magic} does not know {rest.split()[0]!r}. {did_you_mean(rest.split()[0], options)}")
