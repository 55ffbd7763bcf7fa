"""Who a checkpoint belongs to: the query's id as Spark keeps it, and the facts only we keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from microbatch.checkpoint.fields import Fields, compact_json, parse_json
from microbatch.checkpoint.layout import FACTS, METADATA
from microbatch.checkpoint.metadata_log import damaged, decoded, shown
from microbatch.clock import new_uuid
from microbatch.errors import CheckpointCorruptError
from microbatch.model import Json
from microbatch.protocols import Folder

FORMAT_VERSION = 1
"""Version of everything we write in a checkpoint beyond Spark's own files."""


def read_query_id(folder: Folder) -> str | None:
    """Return the id of the query a checkpoint belongs to, or None if it has none yet. Raises CheckpointCorruptError."""
    data = folder.read(METADATA)
    if data is None:
        return None
    where = f"{folder.path}/{METADATA}"
    query_id = Fields.parse(decoded(data, where), where).text_or_none("id")
    if not query_id:
        raise damaged(where, shown(decoded(data, where)), 'JSON such as {"id":"<uuid>"}')
    return query_id


def create_query_id(folder: Folder) -> str:
    """Return the checkpoint's query id, a new one if it has none; of several who create it at once all get the same.

    The file is Spark's (StreamMetadata): ``{"id":"<uuid>"}``, without version line.
    """
    folder.add(METADATA, compact_json({"id": new_uuid()}).encode())
    query_id = read_query_id(folder)
    if query_id is None:
        msg = f"{folder.path}/{METADATA} vanished while it was read; start again"
        raise CheckpointCorruptError(msg)
    return query_id


def read_facts(folder: Folder) -> dict[str, Json]:
    """Return what ``write_facts`` wrote last, empty if nothing.

    Raises CheckpointCorruptError if it is damaged or was written by a newer version of this package.
    """
    data = folder.read(FACTS)
    if data is None:
        return {}
    where = f"{folder.path}/{FACTS}"
    facts = parse_json(decoded(data, where), where)
    version = Fields(facts, where).integer_or_none("format")
    if version is None or version < 1:
        raise damaged(where, f"format {version}", f"a format from 1 to {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        msg = (
            f"{where} has format {version}, this program knows up to {FORMAT_VERSION}: it was written by a newer version; "
            "run the query with that version, or restore the folder from a copy; nothing was changed"
        )
        raise CheckpointCorruptError(msg)
    return {name: value for name, value in cast("dict[str, Json]", facts).items() if name != "format"}


def write_facts(folder: Folder, facts: Mapping[str, Json]) -> None:
    """Replace the facts; the format version is added. Durable on return."""
    text = json.dumps({"format": FORMAT_VERSION, **facts}, indent=1, ensure_ascii=False, allow_nan=False)
    folder.replace(FACTS, text.encode())
