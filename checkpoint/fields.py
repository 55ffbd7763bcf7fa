"""JSON as the logs write it, and its fields read back with errors that name the file."""

from __future__ import annotations

import json
from typing import cast

from microbatch.checkpoint.metadata_log import damaged, shown
from microbatch.model import Json


def compact_json(value: Json) -> str:
    """Return JSON text in one line without spaces, letters beyond ASCII as they are: Spark's form. NaN and infinity raise ValueError."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def parse_json(text: str, where: str) -> Json:
    """Return the value of a JSON text; CheckpointCorruptError, naming ``where``, if it is none."""
    try:
        return cast("Json", json.loads(text))
    except ValueError as error:
        raise damaged(where, shown(text), f"JSON ({error})") from error


class Fields:
    """The fields of one JSON object in a file.

    A missing field reads as its default, unknown ones are ignored (Spark: OffsetSeqMetadata, CommitMetadata), one of another type
    raises CheckpointCorruptError.
    """

    def __init__(self, value: Json, where: str) -> None:
        if not isinstance(value, dict):
            raise damaged(where, shown(compact_json(value)), "a JSON object")
        self._fields = value
        self._where = where

    @classmethod
    def parse(cls, text: str, where: str) -> Fields:
        """Return the fields of a JSON text."""
        return cls(parse_json(text, where), where)

    def integer(self, name: str) -> int:
        """Return a whole number; 0 if it is missing."""
        value = self._fields.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, value, "a whole number")
        return value

    def integer_or_none(self, name: str) -> int | None:
        """Return a whole number; None if it is missing or null."""
        return None if self._fields.get(name) is None else self.integer(name)

    def text_or_none(self, name: str) -> str | None:
        """Return a text; None if it is missing or null."""
        value = self._fields.get(name)
        if value is not None and not isinstance(value, str):
            raise self._wrong(name, value, "text")
        return value

    def inner(self, name: str) -> Fields | None:
        """Return the fields of an object within this one; None if it is missing or null."""
        value = self._fields.get(name)
        return None if value is None else Fields(value, f"{self._where}, {name}")

    def texts(self, name: str) -> dict[str, str]:
        """Return an object of texts; empty if it is missing."""
        inner = self.inner(name)
        return {} if inner is None else {key: inner.text_or_none(key) or "" for key in inner.names()}

    def integers(self, name: str) -> dict[str, int]:
        """Return an object of whole numbers; empty if it is missing."""
        inner = self.inner(name)
        return {} if inner is None else {key: inner.integer(key) for key in inner.names()}

    def names(self) -> list[str]:
        """Return the names of all fields."""
        return list(self._fields)

    def _wrong(self, name: str, value: Json, expected: str) -> Exception:
        return damaged(f"{self._where}, field {name}", shown(compact_json(value)), expected)
