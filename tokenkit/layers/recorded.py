"""recorded: however a call ends, write exactly one receipt for it.

The write is idempotent by receipt id, so a Ctrl-C that lands inside it is answered by writing again and only then
obeyed. A ledger that cannot be written never costs the caller the answer: the receipt then says it was not recorded.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace

from tokenkit.effects import Call, Flow, Layer
from tokenkit.errors import LedgerError, TokenkitError
from tokenkit.money import Nanos
from tokenkit.receipts import Attempt, Receipt, Status, Trail
from tokenkit.types import Message, Request, Response, Usage


def recorded(
    write: Callable[[Receipt], None],
    *,
    charged: Callable[[Receipt], Receipt] = lambda receipt: receipt,
    store_prompts: bool = True,
    redact: Callable[[Receipt], Receipt] | None = None,
    now: Callable[[], int] = time.time_ns,
    clock: Callable[[], float] = time.perf_counter,
) -> Layer:
    """Hand one Receipt per call to ``write``, and attach it to the response and the trail.

    ``charged`` adds what the call takes from its budgets.
    With ``store_prompts`` off only the SHA-256 of the prompt is kept; ``redact`` sees every receipt before it is
    written, and when it fails the texts are dropped rather than written unredacted.
    """

    def layer(call: Call) -> Call:
        def flow(request: Request, trail: Trail) -> Flow:
            started_at, began = now(), clock()
            response: Response | None = None
            stop: BaseException | None = None
            try:
                response = yield from call(request, trail)
            except BaseException as error:
                stop = error
                raise
            finally:

                def settled() -> Receipt:
                    receipt = charged(_freeze(request, trail, response, stop, started_at, clock() - began))
                    return redacted(receipt if store_prompts else replace(receipt, prompt=None, answer=None), redact)

                _settle(trail, settled, write)
                if isinstance(stop, TokenkitError | KeyboardInterrupt):
                    stop.receipt = trail.receipt  # type: ignore[union-attr]  # an interrupted call has one to show too
            trail.response = replace(response, receipt=trail.receipt)
            return trail.response

        return flow

    return layer


def _settle(trail: Trail, settled: Callable[[], Receipt], write: Callable[[Receipt], None]) -> None:
    """Write the receipt even if interrupts land meanwhile; pass the last of them on once it is written."""
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            trail.receipt = receipt = settled()
            write(receipt)
            break
        except LedgerError as error:
            trail.receipt = replace(receipt, notes=(*receipt.notes, f"not recorded: {error}"))
            break
        except KeyboardInterrupt as stop:
            interrupt = stop
    if interrupt is not None:
        raise interrupt


def _freeze(
    request: Request,
    trail: Trail,
    response: Response | None,
    stop: BaseException | None,
    started_at: int,
    seconds: float,
) -> Receipt:
    attempts = trail.settled()
    last = attempts[-1] if attempts else None
    prompt = transcript(request.messages)
    status: Status = "ok" if stop is None else "error" if isinstance(stop, Exception) else "cancelled"
    known = isinstance(stop, TokenkitError)
    return Receipt(
        id=trail.id,
        started_at=started_at,
        seconds=seconds,
        status=status,
        requested_model=request.model,
        model=last.model if last is not None else trail.answered[0],
        provider=last.provider if last is not None else trail.answered[1],
        operation=trail.operation,
        finish_reason=response.finish_reason if response is not None else None,
        usage=total_usage(attempts),
        cost_nanos=0 if trail.cached else total_cost(attempts),
        price=last.price if last is not None else None,
        plan=trail.plan,
        attempts=attempts,
        stages=tuple(trail.stages),
        verdicts=tuple(trail.verdicts),
        notes=tuple(trail.notes),
        error_type=stop.kind if isinstance(stop, TokenkitError) else type(stop).__name__ if stop is not None else None,
        error=str(stop) if known else None,
        cached=trail.cached,
        cached_from=trail.cached_from,
        streamed=request.stream,
        user=request.user,
        session=request.session,
        endpoint_name=request.endpoint_name,
        prompt=prompt,
        answer=response.text if response is not None else None,
        prompt_sha256=hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest(),
        parent=trail.parent,
    )


def total_usage(attempts: tuple[Attempt, ...]) -> Usage | None:
    """Add up what every billed try used; ``None`` when none was billed."""
    total: Usage | None = None
    for attempt in attempts:
        if attempt.usage is not None:
            total = attempt.usage if total is None else total + attempt.usage
    return total


def total_cost(attempts: tuple[Attempt, ...]) -> Nanos | None:
    """Add up what every try cost in nano-USD; one unknown price makes the sum unknown."""
    costs = [attempt.cost_nanos for attempt in attempts]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def transcript(messages: tuple[Message, ...]) -> str:
    """Return messages as one readable text: the text alone for a single user turn, else ``role: text`` lines."""
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].text
    return "\n\n".join(f"{message.role}: {message.text}" for message in messages)


def redacted(receipt: Receipt, redact: Callable[[Receipt], Receipt] | None) -> Receipt:
    """Return a receipt as the caller's hook wants it kept; without its texts where the hook fails."""
    if redact is None:
        return receipt
    try:
        return redact(receipt)
    except Exception as error:  # the caller's hook may raise anything; the answer must still reach the caller
        note = f"texts dropped: the redact hook raised {type(error).__name__}"
        return replace(receipt, prompt=None, answer=None, error=None, notes=(*receipt.notes, note))
