"""The offset log: what was decided about each batch, before it ran."""

from __future__ import annotations

from microbatch.checkpoint.fields import Fields, compact_json, parse_json
from microbatch.checkpoint.metadata_log import MetadataLog, damaged
from microbatch.errors import CheckpointMismatchError
from microbatch.model import BatchPlan, Json, Marks, Offset
from microbatch.protocols import Folder

_NO_OFFSET = "-"


class OffsetLog:
    """Batch plans by batch id, in the text Spark's OffsetSeqLog writes.

    Line 1 is ``v1``; line 2 is Spark's metadata ``{"batchWatermarkMs":..,"batchTimestampMs":..,"conf":{..}}`` with one more field
    ``microbatch`` that holds our marks and batch time in microseconds; then one line a source in plan order, ``-`` for no offset
    yet; no newline at the end.

    An entry without our field was written by Spark: its watermark is the eviction mark (0: None) and its late mark, which Spark
    takes from the batch before, reads as None: that batch drops no row as late. Only queries without state move between the two.

    Parameters
    ----------
    folder
        ``<checkpoint>/offsets``.
    n_sources
        How many sources the query has, to be compared with every entry; None: not compared.
    """

    def __init__(self, folder: Folder, n_sources: int | None = None) -> None:
        self._log = MetadataLog(folder)
        self._n_sources = n_sources

    def add(self, plan: BatchPlan) -> bool:
        """Write a plan; False, and nothing changed, if its batch has one: another run writes here. Durable on return."""
        self._check_sources(plan)
        return self._log.add(plan.batch_id, plan_text(plan))

    def get(self, batch_id: int) -> BatchPlan | None:
        """Return a batch's plan, or None if there is none.

        Raises CheckpointCorruptError, and CheckpointMismatchError if it has not one offset for each source.
        """
        text = self._log.get(batch_id)
        if text is None:
            return None
        plan = parse_plan(batch_id, text, self._log.where(batch_id))
        self._check_sources(plan)
        return plan

    def latest(self) -> BatchPlan | None:
        """Return the plan of the highest batch, or None for an empty log. Raises as ``get``."""
        batch_id = self._log.latest_id()
        return None if batch_id is None else self.get(batch_id)

    def ids(self) -> list[int]:
        """Return the ids of all batches with a plan, ascending."""
        return self._log.ids()

    def purge_below(self, batch_id: int) -> None:
        """Remove the plans of the batches below ``batch_id``."""
        self._log.purge_below(batch_id)

    def remove(self, batch_id: int) -> None:
        """Remove one plan, if it is there. Durable on return."""
        self._log.remove(batch_id)

    def _check_sources(self, plan: BatchPlan) -> None:
        if self._n_sources is None or len(plan.offsets) == self._n_sources:
            return
        msg = (
            f"{self._log.where(plan.batch_id)} has offsets of {len(plan.offsets)} sources, the query reads {self._n_sources}; "
            "restore the old query, or take a new checkpoint"
        )
        raise CheckpointMismatchError(msg)


def plan_text(plan: BatchPlan) -> str:
    """Return a plan as the lines that follow the version line."""
    marks = plan.marks
    metadata: dict[str, Json] = {
        "batchWatermarkMs": spark_watermark_ms(marks.eviction_us),
        "batchTimestampMs": plan.batch_time_us // 1_000,
        "conf": dict(plan.conf),
        "microbatch": {"evictionUs": marks.eviction_us, "lateUs": marks.late_us, "batchTimeUs": plan.batch_time_us},
    }
    return "\n".join([compact_json(metadata), *(_NO_OFFSET if offset is None else compact_json(offset) for offset in plan.offsets)])


def parse_plan(batch_id: int, text: str, where: str) -> BatchPlan:
    """Return the plan of what follows a version line. Raises CheckpointCorruptError, naming ``where``."""
    # split, not splitlines: the latter also cuts at characters that stand in JSON texts as they are, such as U+2028.
    first, *rest = text.removesuffix("\n").split("\n")
    if not first and not rest:
        raise damaged(where, "a version line and nothing more", "a line of metadata and one offset a source")
    metadata = Fields.parse(first.strip() or "{}", where)
    marks, batch_time_us = _times(metadata)
    return BatchPlan(
        batch_id=batch_id,
        offsets=tuple(_parse_offset(line, where) for line in rest),
        marks=marks,
        batch_time_us=batch_time_us,
        conf=metadata.texts("conf"),
    )


def _times(metadata: Fields) -> tuple[Marks, int]:
    """Return marks and batch time, from our own field if the entry has it, else from Spark's."""
    ours = metadata.inner("microbatch")
    if ours is None:
        eviction_us = watermark_us_from_spark(metadata.integer("batchWatermarkMs"))
        return Marks(late_us=None, eviction_us=eviction_us), metadata.integer("batchTimestampMs") * 1_000
    marks = Marks(late_us=ours.integer_or_none("lateUs"), eviction_us=ours.integer_or_none("evictionUs"))
    return marks, ours.integer("batchTimeUs")


def _parse_offset(line: str, where: str) -> Offset:
    return None if line == _NO_OFFSET else parse_json(line, where)


def spark_watermark_ms(watermark_us: int | None) -> int:
    """Return a watermark as Spark logs it: milliseconds, rounded down, 0 for None and for times before 1970."""
    return max(0, (watermark_us or 0) // 1_000)


def watermark_us_from_spark(watermark_ms: int) -> int | None:
    """Return a watermark Spark logged: microseconds, None for 0, which is Spark's "no event time was seen yet"."""
    return watermark_ms * 1_000 if watermark_ms > 0 else None
