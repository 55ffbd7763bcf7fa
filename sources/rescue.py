"""Which rows of a file are malformed, told from the whole file with Polars' own parsers: the slow way, taken when the fast one failed."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from microbatch.sources.csv_records import Dialect, records_of
from microbatch.sources.file_formats import (
    Data,
    footer,
    has_footer,
    infer_schema,
    mismatch,
    parsed_schema,
    parsing_options,
    scan,
)

_VERDICT = pl.Schema({"line": pl.UInt32, "raw": pl.String, "reason": pl.String})
_RAW, _REASON = pl.col("raw"), pl.col("reason")
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # told from the first bytes, as Polars does, never from the name


class UnreadableFileError(Exception):
    """A file of which not even lines or a footer can be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The rows of one file, malformed ones among them as rows of nulls.

    ``verdicts`` stands beside them: ``line`` (from 1), ``raw`` text, and the ``reason`` why a row is malformed, null for good rows.
    """

    rows: pl.DataFrame
    verdicts: pl.DataFrame


def judge(file_format: str, data: Data, schema: pl.Schema, options: Mapping[str, Any]) -> Judged:
    """Return all rows of a file, each judged by itself, in the order of the file.

    CSV: malformed is a row with another number of fields than the schema, with text behind a closing quote, or with a value that does
    not parse; blank lines are passed over (in files of one column they are nulls). NDJSON: a line that is no JSON object, or
    has a value of another type; blank lines are passed over. Text: a line that is not UTF-8. Parquet and IPC have no malformed rows.

    Raises
    ------
    UnreadableFileError
        Nothing of the file can be read, or it has other columns.
    FileNotFoundError
        It is gone.
    """
    try:
        if has_footer(file_format):
            return _judge_footer(file_format, data, schema)
        judge_lines = {"csv": _judge_csv, "ndjson": _judge_ndjson, "text": _judge_text}[file_format]
        return judge_lines(data, schema, options)
    except FileNotFoundError:
        raise
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UnreadableFileError(str(error).partition("\n")[0]) from error


def unread_file(schema: pl.Schema, reason: str) -> Judged:
    """Return one malformed row that stands for a whole file."""
    return Judged(schema.to_frame().clear(1), pl.DataFrame({"line": [None], "raw": [None], "reason": [reason]}, schema=_VERDICT))


def may_lack_fields(rows: pl.DataFrame, files: Sequence[Data], schema: pl.Schema, options: Mapping[str, Any]) -> bool:
    """Return True if a row that the CSV parser took may have too few fields: it says nothing then, and leaves the last ones null."""
    if len(schema) == 1:
        return False
    last = {_last_column(data, schema, options) for data in files}
    looked_at = list(schema) if None in last else [name for name in last if name is not None]
    empty = pl.col(looked_at).is_null()
    if options.get("empty_string_is_null") is False:
        empty |= pl.col(looked_at).cast(pl.String) == ""
    if not rows.select(pl.any_horizontal(empty.any())).item():
        return False
    return len(files) > 1 or not _has_all_separators(files[0], rows.height, schema, options)


def _last_column(data: Data, schema: pl.Schema, options: Mapping[str, Any]) -> str | None:
    """Return the file's last column, None if a look at its first bytes does not tell."""
    if not options.get("has_header", True):
        return list(schema)[-1]
    with _open(data) as file:
        first = file.readline().decode("utf-8", "replace").rstrip("\r\n")
    name = first.rpartition(options.get("separator", ","))[2].strip(options.get("quote_char", '"') or "")
    return name if name in schema else None


def _has_all_separators(data: Data, n_rows: int, schema: pl.Schema, options: Mapping[str, Any]) -> bool:
    """Return True if the file surely has all its fields: no row has more, so their sum tells."""
    with _open(data) as file:
        content = file.read()
    quote = options.get("quote_char", '"')
    if quote and quote.encode() in content:
        return False
    n_lines = n_rows + bool(options.get("has_header", True))
    return content.count(options.get("separator", ",").encode()) == n_lines * (len(schema) - 1)


def _open(data: Data) -> BinaryIO:
    return io.BytesIO(data) if isinstance(data, bytes) else Path(data).open("rb")


def _judge_footer(file_format: str, data: Data, schema: pl.Schema) -> Judged:
    if difference := mismatch(footer(file_format, data), schema):
        raise UnreadableFileError(difference)
    rows = scan(file_format, [data], schema, {}).collect()
    return Judged(rows, _VERDICT.to_frame().clear(rows.height))


def _judge_text(data: Data, schema: pl.Schema, _options: Mapping[str, Any]) -> Judged:
    lines = _read_lines(data, lossy=False)
    good = lines.filter(_REASON.is_null())
    return _assembled(lines, good.select(value="raw"), good["reason"], schema)


def _judge_csv(data: Data, schema: pl.Schema, options: Mapping[str, Any]) -> Judged:
    has_header = options.get("has_header", True)
    names = infer_schema("csv", data, {**parsing_options(options), "infer_schema_length": 0}).names() if has_header else list(schema)
    if not names:
        return Judged(schema.to_frame(), _VERDICT.to_frame())
    if difference := mismatch(dict.fromkeys(names), schema):
        raise UnreadableFileError(difference)
    dialect = Dialect(options.get("separator", ","), options.get("quote_char", '"'))
    lines = _read_lines(data, lossy=options.get("encoding") == "utf8-lossy")
    records = records_of(lines, dialect, len(names)).slice(1 if has_header else 0)
    good = records.filter(_REASON.is_null()).select(dialect.quoted_where_needed(_RAW))["raw"]
    parsing: dict[str, Any] = {**parsing_options(options), "has_header": False, "ignore_errors": True}

    def parse(columns: pl.Schema) -> pl.DataFrame:
        in_file_order = pl.Schema({name: columns[name] for name in names})
        return pl.scan_csv(_bytes(good), schema=in_file_order, raise_if_empty=False, **parsing).collect()

    return _typed("csv", records, schema, parse)


def _judge_ndjson(data: Data, schema: pl.Schema, _options: Mapping[str, Any]) -> Judged:
    lines = _read_lines(data, lossy=False).filter(_RAW.str.strip_chars() != "")
    is_object = _RAW.str.json_path_match("$").is_not_null() & _RAW.str.strip_chars_start().str.starts_with("{")
    records = lines.with_columns(reason=pl.coalesce(_REASON, pl.when(~is_object).then(pl.lit("not a JSON object"))))
    good = records.filter(_REASON.is_null())["raw"]

    def parse(columns: pl.Schema) -> pl.DataFrame:
        return pl.scan_ndjson(_bytes(good), schema=columns, ignore_errors=True).collect()

    return _without_nested(_typed("ndjson", records, schema, parse), schema)


def _typed(file_format: str, records: pl.DataFrame, schema: pl.Schema, parse: Callable[[pl.Schema], pl.DataFrame]) -> Judged:
    """Return the records with the values ``parse`` finds in those without a reason yet; a text that gives no value is a reason."""
    texts = parse(pl.Schema(dict.fromkeys(schema, pl.String())))
    typed = parse(parsed_schema(file_format, schema)).cast(schema, strict=False).select(*schema)
    reason = pl.coalesce(*(_value_reason(typed[name], texts[name]) for name in schema))
    reasons = typed.select(row=pl.int_range(pl.len())).select(pl.when(pl.col("row") >= 0).then(reason))
    return _assembled(records, typed, reasons.to_series(), schema)


def _value_reason(typed: pl.Series, text: pl.Series) -> pl.Expr:
    said = pl.concat_str(pl.lit(f"column {typed.name!r} holds '"), pl.lit(text).str.slice(0, 80), pl.lit(f"', not {typed.dtype}"))
    return pl.when(pl.lit(typed.is_null() & text.is_not_null())).then(said)


def _without_nested(judged: Judged, schema: pl.Schema) -> Judged:
    """Return the verdicts with rows added whose lists or structs hold a value of another type, which the lenient parser makes null."""
    if not any(dtype.is_nested() for dtype in schema.dtypes()):
        return judged
    numbered = judged.verdicts.with_row_index("row").filter(_REASON.is_null())
    bad = _refused(numbered, parsed_schema("ndjson", schema))
    is_bad = pl.int_range(pl.len(), dtype=pl.UInt32).is_in(bad)
    verdicts = judged.verdicts.with_columns(reason=pl.when(is_bad).then(pl.lit("a nested value of another type")).otherwise(_REASON))
    return Judged(judged.rows.with_columns(pl.when(~is_bad).then(pl.all())), verdicts)


def _refused(numbered: pl.DataFrame, schema: pl.Schema) -> list[int]:
    """Return the ``row`` of each line the strict parser refuses, found by halving: as many reads as such rows, times log2 of all."""
    if numbered.is_empty():
        return []
    try:
        pl.scan_ndjson(_bytes(numbered["raw"]), schema=schema).collect()
    except pl.exceptions.PolarsError:
        if numbered.height == 1:
            return numbered["row"].to_list()
        half = numbered.height // 2
        return _refused(numbered.head(half), schema) + _refused(numbered.slice(half), schema)
    return []


def _assembled(records: pl.DataFrame, typed: pl.DataFrame, reasons: pl.Series, schema: pl.Schema) -> Judged:
    """Return all records: beside those that have no reason yet stand ``typed`` and ``reasons``."""
    good, bad = records.filter(_REASON.is_null()), records.filter(_REASON.is_not_null())
    if typed.height != good.height:
        msg = f"its rows cannot be told apart: {good.height} were found, {typed.height} were parsed"
        raise UnreadableFileError(msg)
    values = pl.when(_REASON.is_null()).then(pl.lit(typed.to_struct())).alias("values")
    with_values = good.with_columns(reason=reasons).with_columns(values)
    without = bad.with_columns(pl.lit(None, dtype=pl.Struct(schema)).alias("values"))
    ordered = pl.concat([with_values, without]).sort("line", maintain_order=True)
    return Judged(ordered["values"].struct.unnest(), ordered.select(*_VERDICT))


def _bytes(lines: pl.Series) -> bytes:
    text: str = lines.str.join("\n").item() + "\n" if len(lines) else ""
    return text.encode()


def _read_lines(data: Data, *, lossy: bool) -> pl.DataFrame:
    """Return ``line``, ``raw`` and, for lines that are not UTF-8, ``reason``."""
    try:
        raw = pl.scan_lines(data, name="raw", glob=False).collect()["raw"]
        broken = pl.Series([False]).new_from_index(0, len(raw))
    except pl.exceptions.ComputeError:
        raw, broken = _decode_lines(data, lossy=lossy)
    reason = pl.when(pl.lit(broken)).then(pl.lit("not UTF-8"))
    numbers = pl.int_range(1, pl.len() + 1, dtype=pl.UInt32)
    return raw.to_frame().select(numbers.alias("line"), _RAW.str.strip_prefix("\ufeff"), reason.alias("reason"))


def _decode_lines(data: Data, *, lossy: bool) -> tuple[pl.Series, pl.Series]:
    import pyarrow as pa

    with _open(data) as file:
        first = file.read(4)
    compression = next((codec for magic, codec in _MAGIC.items() if first.startswith(magic)), None)
    content: bytes = pa.input_stream(pa.py_buffer(data) if isinstance(data, bytes) else data, compression=compression).read()
    if lossy:
        raw = _split(content.decode("utf-8", "replace"))
        return raw, pl.Series([False]).new_from_index(0, len(raw))
    raw = _split(content.decode("utf-8", "backslashreplace"))
    return raw, raw != _split(content.decode("utf-8", "ignore"))


def _split(text: str) -> pl.Series:
    lines = pl.Series("raw", [text.removesuffix("\n")]).str.split("\n").explode()
    return lines.str.strip_suffix("\r")
