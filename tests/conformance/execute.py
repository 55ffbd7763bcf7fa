"""One case, from its line to its result."""

from __future__ import annotations

import signal
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microbatch.errors import PlanError
from tests.conformance import deliberate, engine
from tests.conformance.cases import Case, Form
from tests.conformance.others import case as others
from tests.conformance.report import MismatchError, NotSupportedError, Outcome, Result
from tests.conformance.runners import absent, delta, files, log, rows, shape, sink_calls, trigger_clock, unit

Runner = Callable[[dict[str, Any], Path], str]

RUNNERS: dict[str, Runner] = {
    "rows": rows.run,
    "log": log.run,
    "sink-calls": sink_calls.run,
    "trigger-clock": trigger_clock.run,
    "unit": unit.run,
    "file-sink": files.run,
    "file-log": files.run,
    "file-clean": files.run,
    "delta": delta.run,
    "timers": rows.run,
}

CASE_SECONDS = 60


def execute_all(cases: Iterable[Case]) -> list[Result]:
    """Return the result of every case, in order."""
    return [execute(case) for case in cases]


def execute(case: Case) -> Result:
    """Run a case in a folder of its own and return what became of it; nothing it does stops the run."""
    body, sentence = deliberate.as_we_do(case.body)
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        outcome, reason = _outcome(_runner(case), body, Path(folder))
    if outcome is Outcome.FAILED and body.get("lenient"):
        outcome, reason = Outcome.PASSED, f"another answer, which the case allows ({body.get('note', '')}): {reason}"
    return Result(id=case.id, area=case.area, outcome=outcome, reason="; ".join(filter(None, [sentence, reason])))


def _runner(case: Case) -> Runner:
    if case.form is Form.SHAPE:
        return shape.run
    if case.form is Form.OTHERS:
        return others.run
    return RUNNERS.get(str(case.body.get("runner", "rows")), absent.run)


def _outcome(run: Runner, body: dict[str, Any], folder: Path) -> tuple[Outcome, str]:
    try:
        with _time_limit(CASE_SECONDS):
            return Outcome.PASSED, run(body, folder)
    except NotSupportedError as missing:
        return Outcome.NOT_SUPPORTED, f"not supported: {missing}"
    except MismatchError as mismatch:
        return Outcome.FAILED, str(mismatch)
    except PlanError as refusal:
        # A whole query refused when it was defined is one the engine cannot serve; whether it should is what the shapes ask.
        return Outcome.NOT_SUPPORTED, f"not supported: refused: {refusal}"
    except Exception as error:
        return Outcome.FAILED, f"{type(error).__name__}: {error} at {_place(error)}"


def _place(error: BaseException) -> str:
    innermost = list(engine.causes(error))[-1]
    frames = traceback.extract_tb(innermost.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the main thread when the block takes too long: a query that hangs must not hang the run."""

    def give_up(number: int, frame: object) -> None:
        msg = f"the case took more than {seconds} s"
        raise TimeoutError(msg)

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
