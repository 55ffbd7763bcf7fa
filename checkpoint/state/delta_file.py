"""The one file a batch writes: its changes of every table, and the whole manifest of its version in the footer.

Arrow streams one after another, each at a multiple of 64; then the footer, JSON; then crc32 and length of the footer and the magic word. A
reader takes the last 16 bytes, then the footer, then what it wants.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from microbatch.checkpoint.state.files import StateFiles
from microbatch.checkpoint.state.hashing import hash_order
from microbatch.checkpoint.state.run import DeltaRef, damaged
from microbatch.errors import CheckpointCorruptError

MAGIC = b"MBSTATE1"
FORMAT = 1
_TAIL = struct.Struct("<II8s")
_ALIGN = 64

Footer = dict[str, Any]


def encode(name: str, changes: Mapping[str, Sequence[pl.DataFrame]]) -> tuple[bytes, dict[str, list[DeltaRef]]]:
    """Return the streams of a delta file that will have this name, and where each table's changes lie in it."""
    out, order = io.BytesIO(), hash_order()
    refs: dict[str, list[DeltaRef]] = {}
    for table, frames in changes.items():
        for frame in frames:
            out.write(b"\0" * (-out.tell() % _ALIGN))
            offset = out.tell()
            frame.write_ipc_stream(out, compression="uncompressed")
            data = out.getbuffer()[offset:]
            ref = DeltaRef(file=name, offset=offset, length=len(data), crc=zlib.crc32(data), rows=frame.height, order=order)
            refs.setdefault(table, []).append(ref)
            data.release()
    return out.getvalue(), refs


def write_delta(files: StateFiles, name: str, streams: bytes, footer: Footer) -> None:
    """Write the file so that it lasts; a name is used once."""
    text = json.dumps(footer, separators=(",", ":")).encode()
    tail = _TAIL.pack(zlib.crc32(text), len(text), MAGIC)
    if not files.add(name, streams + text + tail):
        msg = f"{files.path}/{name} exists already: another run writes here; stop one of them"
        raise CheckpointCorruptError(msg)


def read_footer(path: Path) -> Footer:
    """Return the footer of a delta file; CheckpointCorruptError, naming file and damage, if it cannot be trusted."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < _TAIL.size:
                raise damaged(path, f"it has {size} bytes")
            file.seek(size - _TAIL.size)
            crc, length, magic = _TAIL.unpack(file.read())
            if magic != MAGIC or length + _TAIL.size > size:
                raise damaged(path, f"it does not end in {MAGIC.decode()}")
            file.seek(size - _TAIL.size - length)
            text = file.read(length)
    except FileNotFoundError as cause:
        raise damaged(path, "it is missing") from cause
    if zlib.crc32(text) != crc:
        raise damaged(path, "the checksum of its footer does not fit")
    footer: Footer = json.loads(text)
    if footer.get("format") != FORMAT:
        msg = f"{path} has state format {footer.get('format')}, this version reads {FORMAT}: use a version of microbatch that wrote it"
        raise CheckpointCorruptError(msg)
    return footer


def read_version(path: Path, version: int) -> Footer:
    """Return the footer of the delta that makes a version. Raises CheckpointCorruptError, also if it makes another one."""
    footer = read_footer(path)
    if footer.get("version") != version:
        raise damaged(path, f"it holds version {footer.get('version')}, not {version}")
    return footer


def read_stream(folder: Path, ref: DeltaRef) -> pl.DataFrame:
    """Return one table's changes from a delta file, its checksum verified."""
    path = folder / ref.file
    try:
        with path.open("rb") as file:
            file.seek(ref.offset)
            data = file.read(ref.length)
    except FileNotFoundError as cause:
        raise damaged(path, "it is missing") from cause
    if len(data) != ref.length or zlib.crc32(data) != ref.crc:
        raise damaged(path, f"the checksum of the rows at byte {ref.offset} does not fit")
    return pl.read_ipc_stream(io.BytesIO(data)).rechunk()
