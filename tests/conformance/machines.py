"""Per-key machines of the cases; the seam for the engine's per-key state."""

from __future__ import annotations

from typing import Any

from tests.conformance import engine
from tests.conformance.relation import Relation
from tests.conformance.report import NotSupportedError


def stateful(relation: Relation, op: dict[str, Any]) -> Relation:
    """Return the relation after ``op``: one row (key, value) for each call of its machine that emits."""
    engine.feature(relation.frame, "apply_state", "map_with_state", "stateful", "map_groups_with_state")
    msg = f"per-key machine {op['machine']['rule']}"
    raise NotSupportedError(msg)
