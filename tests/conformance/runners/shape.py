"""Shapes: a query that must be refused with a PlanError, or accepted, when it is defined or with its first batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from microbatch.errors import PlanError
from tests.conformance import engine
from tests.conformance.pipeline import Inputs, build
from tests.conformance.report import MismatchError, NotSupportedError
from tests.conformance.steps import Script
from tests.conformance.subject import Subject

NEVER_ON_A_STREAM = frozenset({"StreamFrame.slice", "StreamFrame.sample", "StreamFrame.rollup"})
"""Verbs a stream will not get: to lack them is to refuse the shape."""


def run(body: dict[str, Any], folder: Path) -> str:
    """Compare what the engine says of a shape with the verdict; return a remark on how it was refused."""
    refusal = _refusal(body, folder)
    verdict = body["verdict"]
    if verdict == "either":
        return "" if refusal is None else f"refused, which is right too: {refusal}"
    if (refusal is None) == (verdict == "accept"):
        return ""
    if refusal is not None and engine.is_lacking(refusal):
        raise NotSupportedError(str(refusal)) from refusal
    got = "it was accepted" if refusal is None else f"it was refused: {refusal}"
    msg = f"{body.get('shape')}: expected {verdict}, {got}"
    raise MismatchError(msg)


def _refusal(body: dict[str, Any], folder: Path) -> PlanError | None:
    """Return the engine's refusal, or None if it takes the shape."""
    try:
        _try(body, folder)
    except PlanError as refusal:
        if body["verdict"] == "refuse" and engine.is_lacking(refusal):
            raise NotSupportedError(str(refusal)) from refusal
        return refusal
    except NotSupportedError as lacking:
        if str(lacking) in NEVER_ON_A_STREAM:
            return PlanError(str(lacking.__cause__ or lacking))
        raise
    return None


def _try(body: dict[str, Any], folder: Path) -> None:
    if body.get("batch"):
        _collect(body, folder)
        return
    subject = Subject(body, folder)
    try:
        if body.get("stage") == "first_batch":
            _run_first_batch(subject, body)
        else:
            subject.define()
    finally:
        subject.close()


def _run_first_batch(subject: Subject, body: dict[str, Any]) -> None:
    """Run one batch; a refusal may be the cause of the query's failure."""
    steps = [{"add": body["add"]}] if body.get("add") else []
    try:
        Script(subject, body).do([*steps, {"run": True}])
    except PlanError:
        raise
    except Exception as error:
        refusal = next((e for e in engine.causes(error) if isinstance(e, PlanError)), None)
        raise (refusal or error) from None


def _collect(body: dict[str, Any], folder: Path) -> None:
    relation = build(body["pipeline"], Inputs(frames={}, columns={}))
    rows: pl.DataFrame = engine.feature(relation.frame, "as_batch")().collect()
    assert rows.columns
