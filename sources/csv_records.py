"""The records of a CSV file and which of them are broken, told from its lines by regular expressions alone (RFC 4180)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

_LINE, _RAW, _REASON = pl.col("line"), pl.col("raw"), pl.col("reason")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How fields are told apart; ``quote`` None: no character quotes."""

    separator: str
    quote: str | None

    @property
    def _between(self) -> str:
        return re.escape(self.separator)

    @property
    def _begin(self) -> str:
        return f"(^|{self._between})"

    @property
    def _quoted(self) -> str:
        """A whole quoted field."""
        quote = re.escape(self.quote or "")
        return f"{quote}(?:[^{quote}]|{quote}{quote})*{quote}"

    def _emptied(self, raw: pl.Expr) -> pl.Expr:
        """Return the text with whole quoted fields made two quotes: what else stands there can then be told by looking at field starts.

        A field still open at the end loses its text up to the last pair of quotes in it, and so begins with three quotes.
        """
        return raw.str.replace_all(self._begin + self._quoted, "${1}" + 2 * self.quote) if self.quote else raw

    def is_open(self, raw: pl.Expr) -> pl.Expr:
        """Return True where a quoted field is still open at the end."""
        quote = re.escape(self.quote or "")
        return self._emptied(raw).str.contains(f"{self._begin}{quote}(?:[^{quote}]|$|{quote}{quote})")

    def has_tail(self, raw: pl.Expr) -> pl.Expr:
        """Return True where text follows a closing quote within its field."""
        quote = re.escape(self.quote or "")
        return self._emptied(raw).str.contains(f"{self._begin}{quote}{quote}[^{self._between}{quote}]")

    def fields(self, raw: pl.Expr) -> pl.Expr:
        """Return the number of fields."""
        return self._emptied(raw).str.count_matches(self.separator, literal=True) + 1

    def quoted_where_needed(self, raw: pl.Expr) -> pl.Expr:
        """Return the text with quotes around the unquoted fields that hold a quote character, as a parser wants them."""
        quote, between = self.quote, self._between
        if quote is None:
            return raw
        is_stray = f"{self._begin}[^{between}{re.escape(quote)}][^{between}]*{re.escape(quote)}"
        # Behind a separator too, the first field matches like the others.
        fields = (pl.lit(self.separator) + raw).str.extract_all(f"{between}(?:{self._quoted}|[^{between}]*)")
        text = pl.element().str.strip_prefix(self.separator)
        stray = ~text.str.starts_with(quote) & text.str.contains(quote, literal=True)
        doubled = pl.lit(quote) + text.str.replace_all(quote, quote * 2, literal=True) + pl.lit(quote)
        mended = fields.list.eval(pl.when(stray).then(doubled).otherwise(text)).list.join(self.separator)
        return pl.when(~self._emptied(raw).str.contains(is_stray)).then(raw).otherwise(mended)


def records_of(lines: pl.DataFrame, dialect: Dialect, n_fields: int) -> pl.DataFrame:
    """Return the records of lines (``line``, ``raw``, ``reason``), with the reason why one has not ``n_fields`` fields.

    A record that spans lines counts only if it is whole: otherwise each of its lines is a record, so that one lost quote does not
    swallow the rows behind it. Blank lines are no records, unless there is one field.
    """
    joined = _joined(lines, dialect)
    judged = _with_reason(joined, dialect, n_fields)
    torn = judged.filter(_REASON.is_not_null() & (pl.col("lines") > 1))
    if not torn.is_empty():
        alone = lines.with_columns(record=_record_ids(lines, dialect)).join(torn, on="record", how="semi").with_columns(lines=pl.lit(1))
        whole = joined.join(torn, on="record", how="anti")
        judged = _with_reason(pl.concat([whole, alone.select(whole.columns).cast(whole.schema)]).sort("line"), dialect, n_fields)
    if n_fields > 1:
        judged = judged.filter(_RAW != "")
    return judged.select(_LINE, _RAW, _REASON)


def _joined(lines: pl.DataFrame, dialect: Dialect) -> pl.DataFrame:
    """Return ``line``, ``raw``, ``reason``, ``record`` and the number of ``lines`` of each record."""
    groups = lines.with_columns(record=_record_ids(lines, dialect)).group_by("record", maintain_order=True)
    return groups.agg(_LINE.first(), _RAW.str.join("\n"), _REASON.drop_nulls().first(), lines=pl.len().cast(pl.UInt32))


def _record_ids(lines: pl.DataFrame, dialect: Dialect) -> pl.Series:
    """Return the number of the record each line belongs to.

    Whether a line ends within quotes depends on how it began: it fixes the state, keeps it or swaps it. So the state at any
    line is that of the last line that fixed it, swapped as often as lines since then did.
    """
    if dialect.quote is None or not lines["raw"].str.contains(dialect.quote, literal=True).any():
        return pl.Series("record", range(1, lines.height + 1), dtype=pl.UInt32)
    ends = lines.select(outside=dialect.is_open(_RAW), inside=dialect.is_open(pl.lit(dialect.quote) + _RAW))
    outside, inside = pl.col("outside"), pl.col("inside")
    swaps = (outside & ~inside).cum_sum()
    fixes = outside == inside
    fixed = pl.when(fixes).then(outside).forward_fill().fill_null(value=False)
    since = swaps - pl.when(fixes).then(swaps).forward_fill().fill_null(0)
    return ends.select(record=(~(fixed ^ (since % 2 == 1)).shift(1, fill_value=False)).cum_sum().cast(pl.UInt32))["record"]


def _with_reason(records: pl.DataFrame, dialect: Dialect, n_fields: int) -> pl.DataFrame:
    fields = dialect.fields(_RAW)
    count = pl.when((fields != n_fields) & (_RAW != "")).then(pl.format("{} fields instead of {}", fields, pl.lit(n_fields)))
    if dialect.quote is None:
        return records.with_columns(reason=pl.coalesce(_REASON, count))
    unclosed = pl.when(dialect.is_open(_RAW)).then(pl.lit("a quote is not closed"))
    tail = pl.when(dialect.has_tail(_RAW)).then(pl.lit("text behind a closing quote"))
    return records.with_columns(reason=pl.coalesce(_REASON, unclosed, tail, count))
