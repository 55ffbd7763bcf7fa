"""What may change between two runs of a query: compares its stateful operators with those that wrote the state.

Everything stateless may change, and sinks, triggers and a watermark's delay: none of it is in a fingerprint. A column of partial
aggregates may go (an aggregate was dropped). Opted in to, one may come (its value of old groups begins with what comes from now on), and so
may whole operators come and go. The rest is refused, for the state would mean something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from microbatch.errors import CheckpointMismatchError
from microbatch.model import Json

_COLUMNS = "state"  # the field of a fingerprint that lists columns of partial aggregates as [name, dtype]
_ABSENT = "-"


class Kind(StrEnum):
    """What happened to an operator since the state was written."""

    KEPT = "kept"
    NEW = "new"
    DROPPED = "dropped"
    CHANGED = "changed"


class Permission(StrEnum):
    """When a change is allowed."""

    ALWAYS = "always"
    EVOLVE = "with evolve=True"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of the comparison."""

    kind: Kind
    operator: str
    field: str = ""
    was: str = ""
    now: str = ""
    allowed: Permission = Permission.ALWAYS


def compare(logged: Mapping[str, Json], now: Mapping[str, Json]) -> list[Change]:
    """Return what happened to each operator, by name; ``logged`` and ``now`` are fingerprints by operator."""
    changes: list[Change] = []
    for name in sorted(logged.keys() | now.keys()):
        if name not in now:
            changes.append(Change(kind=Kind.DROPPED, operator=name, was=_kind(logged[name]), now=_ABSENT, allowed=Permission.EVOLVE))
        elif name not in logged:
            changes.append(Change(kind=Kind.NEW, operator=name, was=_ABSENT, now=_kind(now[name]), allowed=Permission.EVOLVE))
        else:
            changes += list(_changed(name, _fields(logged[name]), _fields(now[name]))) or [Change(kind=Kind.KEPT, operator=name)]
    return changes


def check(where: str, changes: list[Change], *, evolve: bool) -> None:
    """Raise CheckpointMismatchError, with a table of all changes, unless every one of them is allowed."""
    refused = [c for c in changes if c.allowed is Permission.NEVER or (c.allowed is Permission.EVOLVE and not evolve)]
    if not refused:
        return
    opt_in = all(c.allowed is Permission.EVOLVE for c in refused)
    way_out = (
        "if that is meant, run the query once with evolve=True: what is new begins empty, what was dropped is forgotten"
        if opt_in
        else "restore the old query, or take a new checkpoint (and a new table, or the rows come twice)"
    )
    hint = "; operators are told apart by name: name them with .named(...)" if {c.kind for c in refused} & {Kind.NEW, Kind.DROPPED} else ""
    msg = f"checkpoint {where} holds the state of another query:\n{_table(changes)}\n{way_out}{hint}"
    raise CheckpointMismatchError(msg)


def _changed(operator: str, was: Mapping[str, Json], now: Mapping[str, Json]) -> Iterator[Change]:
    for field in now.keys() | was.keys():
        before, after = was.get(field), now.get(field)
        if before == after:
            continue
        if field == _COLUMNS and isinstance(before, list) and isinstance(after, list):
            yield from _columns(operator, _by_name(before), _by_name(after))
        else:
            yield Change(kind=Kind.CHANGED, operator=operator, field=field, was=_shown(before), now=_shown(after), allowed=Permission.NEVER)


def _columns(operator: str, was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    for name in [*was, *(n for n in now if n not in was)]:
        before, after = was.get(name, _ABSENT), now.get(name, _ABSENT)
        if before != after:
            allowed = Permission.ALWAYS if after == _ABSENT else Permission.EVOLVE if before == _ABSENT else Permission.NEVER
            yield Change(kind=Kind.CHANGED, operator=operator, field=name, was=before, now=after, allowed=allowed)


def _by_name(columns: list[Json]) -> dict[str, str]:
    return {str(c[0]): str(c[1]) for c in columns if isinstance(c, list)}


def _fields(fingerprint: Json) -> Mapping[str, Json]:
    return fingerprint if isinstance(fingerprint, dict) else {"kind": fingerprint}


def _kind(fingerprint: Json) -> str:
    return _shown(_fields(fingerprint).get("kind"))


def _shown(value: Json) -> str:
    return "none" if value is None else str(value)


def _table(changes: list[Change]) -> str:
    """Return the changes as lines of aligned columns."""
    head = ("", "operator", "field", "was", "is", "allowed")
    cells = [head, *((c.kind.value, c.operator, c.field, c.was, c.now, c.allowed.value) for c in changes)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(head))]
    return "\n".join("  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells)
