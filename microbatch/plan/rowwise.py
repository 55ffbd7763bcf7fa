"""Tells whether an expression looks at one row at a time, by a list of what does; what is not on it is refused by name.

``Expr.meta.is_row_separable`` looks at the outermost node only, so it calls ``a - a.mean()`` row-wise. A stream is cut into batches
anywhere: an expression over other rows would give another answer for each cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import polars as pl

from microbatch.errors import PlanError
from microbatch.plan.trees import Tree, everything_in, expression_of, function_of, leaves, node, operands, text_of, tree_of

ALL_ROWS = "all rows"

_PLAIN = {"Column", "Selector", "Field", "Alias", "KeepName", "RenameAlias", "Cast", "BinaryExpr", "Ternary", "StructEval"}
# Both levels are listed: a group such as Boolean holds IsNull and IsFirstDistinct, StringExpr holds Split and ConcatVertical.
_GROUPS = {
    "Boolean": """Not IsNull IsNotNull IsFinite IsInfinite IsNan IsNotNan IsIn IsBetween IsClose AnyHorizontal AllHorizontal""",
    "StringExpr": """
        Uppercase Lowercase Titlecase LenBytes LenChars Contains StartsWith EndsWith Replace Slice Head Tail Split SplitN SplitExact
        StripChars StripCharsStart StripCharsEnd StripPrefix StripSuffix ZFill PadStart PadEnd Extract ExtractAll ExtractGroups
        ExtractMany CountMatches Find FindMany ToInteger ToDecimal Strptime JsonPathMatch JsonDecode Reverse ContainsAny ReplaceMany
        HexEncode HexDecode Base64Encode Base64Decode Normalize EscapeRegex ConcatHorizontal Format""",
    "BinaryExpr": """Size Contains StartsWith EndsWith HexEncode HexDecode Base64Encode Base64Decode Slice Head Tail Get Reinterpret""",
    "TemporalExpr": """
        Millennium Century Year Quarter Month DaysInMonth Week IsoYear WeekDay Day OrdinalDay Hour Minute Second Millisecond Microsecond
        Nanosecond IsLeapYear Date Time Truncate Round OffsetBy ConvertTimeZone ReplaceTimeZone TimeStamp ToString MonthStart MonthEnd
        CastTimeUnit TotalDays TotalHours TotalMinutes TotalSeconds TotalMilliseconds TotalMicroseconds TotalNanoseconds Combine
        BaseUtcOffset DSTOffset Replace Duration DatetimeFunction""",
    "Business": """BusinessDayCount AddBusinessDay IsBusinessDay""",
    "ListExpr": """
        Length Sum Max Min Mean Median Std Var Get Contains Sort Join Slice Concat Diff Shift SetOperation ToStruct ToArray ToMap
        DropNulls Gather GatherEvery ArgMin ArgMax CountMatches""",
    "ArrayExpr": """
        Length Sum Max Min Mean Median Std Var Get Contains Sort Join Concat Shift ToStruct ToList ArgMin ArgMax CountMatches Dot""",
    "StructExpr": """FieldByName SelectFields RenameFields PrefixFields SuffixFields JsonEncode""",
    "Categorical": """LenBytes LenChars StartsWith EndsWith Slice To""",
    "MapExpr": """Get ContainsKey Keys Values Length Entries""",
    "Sql": """Binary Round ToFloat IsIn""",
    "Pow": """Generic Sqrt Cbrt""",
    "Trigonometry": """Sin Cos Tan Cot ArcSin ArcCos ArcTan Sinh Cosh Tanh ArcSinh ArcCosh ArcTanh Degrees Radians""",
    "Bitwise": """CountOnes CountZeros LeadingOnes LeadingZeros TrailingOnes TrailingZeros""",
    "Range": """IntRanges DateRanges DatetimeRanges TimeRanges LinearSpaces""",
    "FillNullWithStrategy": """Zero One""",
}
_ALONE = """
        Abs Negate Sign Exp Log Log1p Erf Erfc Floor Ceil Round RoundSF Truncate Clip Atan2 FillNull Coalesce Hash Replace ReplaceStrict
        AsStruct SumHorizontal MeanHorizontal MinHorizontal MaxHorizontal Cut Bin Reinterpret ToPhysical RepeatBy"""
_FUNCTIONS = {*_ALONE.split(), *(f"{group}.{name}" for group, names in _GROUPS.items() for name in names.split())}
# Arguments that are a set or a mapping, not a value per row: a column given there is taken whole.
_SETS = {
    "Boolean.IsIn": {1}, "Sql.IsIn": {1}, "Replace": {1, 2}, "ReplaceStrict": {1, 2},
    "Business.BusinessDayCount": {2}, "Business.AddBusinessDay": {2}, "Business.IsBusinessDay": {1},
}  # fmt: skip
FILTERS = {"Filter", "DropNulls", "DropNans"}
EXPLODES = {"Explode", "ArrayExpr.Explode"}
CHANGING = frozenset(FILTERS | EXPLODES)
_RANDOM = {"Random", "ListExpr.Sample"}

_NAMESPACES = {
    "StringExpr": "str.", "BinaryExpr": "bin.", "TemporalExpr": "dt.", "ListExpr": "list.", "ArrayExpr": "arr.", "StructExpr": "struct.",
    "Categorical": "cat.", "Boolean": "", "Bitwise": "bitwise_", "Range": "",
}  # fmt: skip
_SPOKEN = {
    "Len": "pl.len()", "Gather": "get or gather", "Slice": "head, tail or slice", "FillNullWithStrategy": "fill_null(strategy=...)",
    "TopK": "top_k or bottom_k", "TopKBy": "top_k_by or bottom_k_by", "RLE": "rle", "RLEID": "rle_id", "QCut": "qcut",
    "Correlation": "corr or cov", "StringExpr.ConcatVertical": "str.join", "ArgWhere": "arg_where or arg_true",
    "Bin": "bins taken from the whole column", "NUnique": "n_unique", "ApproxNUnique": "approx_n_unique", "SetSortedFlag": "set_sorted",
}  # fmt: skip
_OVER_COLUMN = {
    "Product", "NullCount", "Quantile", "ApproxQuantile", "ApproxNUnique", "MinBy", "MaxBy", "Boolean.Any", "Boolean.All",
    "Boolean.HasNulls", "Bitwise.And", "Bitwise.Or", "Bitwise.Xor", "Skew", "Kurtosis", "Entropy", "Mode",
}  # fmt: skip
_INSTEAD = {
    "random": "a batch that is run again must give the same rows: draw from the row itself, with .hash(seed) of its id",
    "strptime": 'give the format, such as .str.to_datetime("%Y-%m-%d %H:%M:%S")',
    "set": "look the value up by a join (how='semi' for is_in), or in a list column with .list.contains(value)",
    "Literal": "one value for all rows is a constant of length 1; several are a pl.Series for is_in, or a frame to join",
    "Explode": "StreamFrame.explode(column), which makes rows",
    "Filter": "StreamFrame.filter(predicate), which drops rows, or pl.when(predicate).then(value)",
    "Categorical.Physical": "the codes of a Categorical differ from run to run; make it a pl.Enum, and take .to_physical()",
}
_ELSE = (
    "an aggregation, group_by(mb.window(...), ...).agg(...) or group_by(...).agg(...); a join with a bounded frame that holds the figure; "
    "or sink_foreach_batch(function), if the rows of one batch are really meant"
)


class NotRowWiseError(Exception):
    """Why an expression is not row-wise: the node's name, the same in the user's words, what to write instead. Never leaves this room."""

    def __init__(self, tag: str, spoken: str, instead: str = "") -> None:
        super().__init__(spoken)
        self.tag, self.spoken, self.instead = tag, spoken, instead


def check_row_wise(expressions: Sequence[pl.Expr], *, verb: str, allow_filter: bool = False, allow_explode: bool = False) -> None:
    """Raise PlanError unless every expression gives each row its value from that row alone, and the same if it is computed again.

    Parameters
    ----------
    expressions
        As the user wrote them; selectors and ``pl.all()`` stand for columns.
    verb
        Who asks, for the message.
    allow_filter, allow_explode
        Let ``.filter``, ``.drop_nulls`` and ``.drop_nans``, or ``.explode``, through: rows may then go or multiply, each by itself.

    Raises
    ------
    PlanError
        An expression looks at other rows, draws random numbers, guesses from the first row, or calls a Python function.
    """
    for expression in expressions:
        tree = tree_of(expression, verb=verb)
        try:
            rows_of(tree, changing=frozenset({*(FILTERS if allow_filter else ()), *(EXPLODES if allow_explode else ())}))
        except NotRowWiseError as found:
            msg = (
                f"{verb}: {expression} is not row-wise ({found.spoken}): a batch is only a piece of the stream, so the answer would depend "
                f"on where the stream is cut; instead: {found.instead or _ELSE}"
            )
            raise PlanError(msg) from None


def rows_of(tree: Tree, *, changing: frozenset[str] = frozenset()) -> str | None:
    """Return which rows a tree has a value for: ``ALL_ROWS``, a text that names the filter, or None if it is one constant.

    ``changing`` are the names of the nodes that may change it. What works on several operands needs them to have the same rows.

    Raises
    ------
    NotRowWiseError
        The tree looks at other rows.
    """
    tag, body = node(tree)
    if tag == "Literal":
        return _check_constant(tree)
    name, options = function_of(body) if tag == "Function" else (tag, None)
    _refuse_guesses(name, options, body)
    if name not in changing and not _is_listed(tag, name):
        return _check_constant(tree) if is_constant(tree) else _refuse(tree)
    if tag in ("Column", "Selector", "Field"):
        return ALL_ROWS
    if tag == "Eval":
        _check_evaluation(body)
    sets = _SETS.get(name, set[int]())
    parts = operands(tree)
    for k in sets & set(range(len(parts))):
        _check_set(parts[k], name)
    rows = {rows_of(part, changing=changing) for k, part in enumerate(parts) if k not in sets} - {None}
    if len(rows) > 1:
        raise NotRowWiseError(
            tag="", spoken="operands with different rows", instead="filter the whole expression: (a + b).filter(predicate)"
        )
    same = rows.pop() if rows else None
    if name not in changing or same is None:
        return same
    return f"{same}, {name} {text_of(parts[1] if name == 'Filter' else tree)}"


def _is_listed(tag: str, name: str) -> bool:
    return name in _FUNCTIONS if tag == "Function" else tag in _PLAIN or tag == "Eval"


def _refuse_guesses(name: str, options: Any, body: Any) -> None:
    """Raise for what is on the list but not with these options."""
    if name == "StringExpr.Strptime" and options[1]["format"] is None:
        raise NotRowWiseError(name, "a time format guessed from the first value", _INSTEAD["strptime"])
    if name == "Bin" and not ("Intervals" in options["method"] and "Breaks" in options["method"]["Intervals"]["spec"]):
        raise NotRowWiseError(name, _SPOKEN[name], "give the bounds: .bin_intervals([0.0, 1.0], labels=False)")
    if name == "Eval" and "Cumulative" in body["variant"]:
        raise NotRowWiseError(tag="CumulativeEval", spoken="cumulative_eval")


def _check_evaluation(body: dict[str, Tree]) -> None:
    """Raise if what is done to the elements of a list is more than a function of that list."""
    for name, options in everything_in(body["evaluation"]):
        if name in _RANDOM or (name == "Rank" and "Random" in text_of(options)):
            raise NotRowWiseError(name, _in_words(name, options), _INSTEAD["random"])
        if "." in name or name == "Bin":
            _refuse_guesses(name, options, None)


def _check_set(tree: Tree, name: str) -> None:
    if not is_constant(tree):
        words = f"{spoken(name)} with a column, which is taken whole"
        raise NotRowWiseError(name, words, _INSTEAD["set"])


def is_constant(tree: Tree) -> bool:
    """Return True if a tree reads no rows and is the same each time."""
    every = {tag for tag, _ in leaves(tree)}
    return every == {"Literal"} and not _RANDOM & {name for name, _ in everything_in(tree)}


def _check_constant(tree: Tree) -> str | None:
    if not expression_of(tree).meta.is_scalar():
        raise NotRowWiseError(tag="Literal", spoken="a constant of several values", instead=_INSTEAD["Literal"])
    return None


def _refuse(tree: Tree) -> str:
    tag, body = node(tree)
    name, options = function_of(body) if tag == "Function" else (tag, body)
    if name in _RANDOM:
        instead = _INSTEAD["random"]
    elif name in EXPLODES or name in FILTERS:
        instead = _INSTEAD["Explode" if name in EXPLODES else "Filter"]
    else:
        instead = _INSTEAD.get(name, "")
    raise NotRowWiseError(name, _in_words(name, options), instead)


def _in_words(name: str, options: Any) -> str:
    """Return a node as the user wrote it, by its name and options."""
    if name == "Agg":
        return f"{spoken(node(options)[0])} over the whole column"
    if name == "Random":
        return spoken(node(options["method"])[0])
    if name in ("RollingExpr", "RollingExprBy"):
        return f"rolling_{spoken(node(options.get('function') or options['function_by'])[0])}"
    return f"{spoken(name)} over the whole column" if name in _OVER_COLUMN else spoken(name)


def spoken(name: str) -> str:
    """Return a tag or the name of a function as users write it: ``CumSum`` is ``cum_sum``, ``ListExpr.Sample`` is ``list.sample``."""
    group, _, member = name.partition(".")
    if name in _SPOKEN or group in _SPOKEN:
        return _SPOKEN.get(name) or _SPOKEN[group]
    word = member if group in _NAMESPACES else group
    return _NAMESPACES.get(group, "") + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).lower()
