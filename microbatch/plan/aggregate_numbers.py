"""Counts, sums, means, variances and products as parts."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from microbatch.plan.partials import OLD, Asked, Part, Split, adding, make_part

_NARROW = (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32)


def counting(a: Asked, name: str, reduce: pl.Expr) -> Part:
    """Return a part that counts, kept as Int64."""
    # Polars' own dtype of counts is UInt32; past that the query stops rather than wraps.
    return adding(a, name, reduce.cast(pl.Int64), pl.Int64(), fits=pl.UInt32())


def rows_in(a: Asked) -> Part:
    """Return the part with the number of rows the aggregate looks at."""
    return counting(a, f"len({a.where})", a.rows.len() if a.where else pl.len())


def present(a: Asked) -> Part:
    """Return the part with the number of values that are not null."""
    return counting(a, f"count({a.label})", a.rows.count())


def count_of(part: Callable[[Asked], Part]) -> Callable[[Asked], Split]:
    """Return how to split an aggregate that is nothing but that count."""

    def split(a: Asked) -> Split:
        held = part(a)
        return Split(parts=(held,), finish=held.value.cast(a.dtype))

    return split


def len_or_count(a: Asked) -> Split:
    """Split ``len``, which counts nulls too, and ``count``, which does not."""
    return count_of(rows_in if a.options["include_nulls"] else present)(a)


def null_count(a: Asked) -> Part:
    """Return the part with the number of nulls."""
    return counting(a, f"null_count({a.label})", a.rows.null_count())


def exact_sum(values: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return the sum of integers, in 128 bits unless a batch cannot pass 64."""
    return values.cast(pl.Int64 if isinstance(dtype, _NARROW) or dtype == pl.Boolean else pl.Int128).sum()


def exact_product(values: pl.Expr) -> pl.Expr:
    """Return the product of integers in 128 bits, or a number too big for 64 bits if it is too big for 128."""
    size = values.cast(pl.Float64).product().fill_nan(0.0).abs()  # NaN is 0 times infinity, and then the product is 0
    limit = 2**126
    return pl.when(size < float(limit)).then(values.cast(pl.Int128).product()).otherwise(pl.lit(limit, pl.Int128))


def _integer_sum(a: Asked, *, fits: pl.DataType) -> Part:
    values = a.rows.to_physical() if a.input_dtype.is_temporal() else a.rows
    return make_part(
        a,
        f"sum({a.label})",
        pl.Int64(),
        reduce=exact_sum(values, a.input_dtype),
        merge=lambda v: v.cast(pl.Int128).sum(),
        pair=lambda old, new: old.cast(pl.Int128).fill_null(0) + new.cast(pl.Int128),
        fits=fits,
    )


def _float_sum(a: Asked) -> Part:
    return adding(a, f"float_sum({a.label})", a.rows.cast(pl.Float64).sum(), pl.Float64())


def _decimal_sum(a: Asked) -> Part:
    """Polars wraps at 38 digits in a ``group_by``: a sum of floats beside it tells."""
    assert isinstance(a.dtype, pl.Decimal)
    dtype, limit = a.dtype, 10.0 ** (38 - a.dtype.scale) * (1 - 1e-9)

    def total(v: pl.Expr) -> pl.Expr:
        return pl.when(v.cast(pl.Float64).sum().abs() < limit).then(v.sum())

    def both(old: pl.Expr, new: pl.Expr) -> pl.Expr:
        small = (old.cast(pl.Float64).fill_null(0.0) + new.cast(pl.Float64)).abs() < limit
        return pl.when(small).then(old.fill_null(0)) + pl.when(small).then(new)

    return make_part(a, f"sum({a.label})", dtype, reduce=total(a.rows), merge=total, pair=both, fits=dtype)


def sum_of(a: Asked) -> Split:
    """Split ``sum``: of integers into Int64, of floats into Float64, of decimals into 38 digits, of flags into a count."""
    if a.input_dtype.is_float():
        part = _float_sum(a)
        return Split(parts=(part,), finish=part.value.cast(a.dtype))
    if a.input_dtype.is_decimal():
        part = _decimal_sum(a)
        return Split(parts=(part,), finish=part.value)
    as_count = a.input_dtype == pl.Boolean
    part = _integer_sum(a, fits=pl.UInt32() if as_count else pl.Int64())
    return Split(parts=(part,), finish=part.value if a.input_dtype.is_integer() else part.value.cast(a.dtype))


def mean_of(a: Asked) -> Split:
    """Means of integers and times come from exact sums, so they do not depend on how the stream is cut."""
    n = present(a)
    if a.input_dtype.is_float() or a.input_dtype.is_decimal():
        total = _float_sum(a)
    elif isinstance(a.input_dtype, _NARROW) or a.input_dtype == pl.Boolean:
        total = _integer_sum(a, fits=pl.UInt32() if a.input_dtype == pl.Boolean else pl.Int64())
    else:
        values = a.rows.cast(a.dtype).to_physical() if a.dtype.is_temporal() else a.rows
        wide = pl.Decimal(38, 0)
        total = adding(a, f"total({a.label})", values.cast(pl.Int128).sum().cast(wide), wide)
    mean = pl.when(n.value > 0).then(total.value.cast(pl.Float64) / n.value)
    return Split(parts=(total, n), finish=(mean.cast(pl.Int64) if a.dtype.is_temporal() else mean).cast(a.dtype))


def variance_or_deviation(a: Asked) -> Split:
    """Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances (1979)."""
    count = present(a)
    values, n, n_old = a.rows.cast(pl.Float64), count.value, pl.col(count.name + OLD).fill_null(0)
    mean_name = f"mean({a.label})"
    mean, mean_old = pl.col(mean_name).fill_null(0.0), pl.col(mean_name + OLD).fill_null(0.0)
    overall = (mean * n).sum() / n.sum()
    all_n, shift = n_old + n, mean - mean_old
    means = make_part(
        a,
        mean_name,
        pl.Float64(),
        reduce=values.mean(),
        merge=lambda _: pl.when(n.sum() > 0).then(overall),
        pair=lambda _old, _new: pl.when(all_n > 0).then(mean_old + shift * n / all_n),
    )
    squares = make_part(
        a,
        f"m2({a.label})",
        pl.Float64(),
        reduce=(values.var(ddof=0) * values.count()).fill_null(0.0),
        merge=lambda v: v.sum() + pl.when(n.sum() > 0).then((n * (mean - overall) ** 2).sum()).otherwise(0.0),
        pair=lambda old, new: old.fill_null(0.0) + new + pl.when(all_n > 0).then(shift**2 * n_old * n / all_n).otherwise(0.0),
    )
    ddof = a.options[1]
    variance = pl.when(n > ddof).then(squares.value / (n - ddof))
    return Split(parts=(count, means, squares), finish=(variance.sqrt() if "Std" in a.tree["Agg"] else variance).cast(a.dtype))


def product_of(a: Asked) -> Split:
    """Split ``product``: of integers into Int64, of floats into Float64."""
    if a.dtype.is_float():
        part = make_part(
            a,
            f"float_product({a.label})",
            pl.Float64(),
            reduce=a.rows.cast(pl.Float64).product(),
            merge=lambda v: v.product(),
            pair=lambda old, new: old.fill_null(1.0) * new,
        )
        return Split(parts=(part,), finish=part.value.cast(a.dtype))
    part = make_part(
        a,
        f"product({a.label})",
        pl.Int64(),
        reduce=exact_product(a.rows),
        merge=exact_product,
        pair=lambda old, new: old.cast(pl.Int128).fill_null(1) * new.cast(pl.Int128),
        fits=pl.Int64(),
    )
    return Split(parts=(part,), finish=part.value)
