"""The commit log: which batches are finished, and what they leave to the next one."""

from __future__ import annotations

from microbatch.checkpoint.fields import Fields, compact_json
from microbatch.checkpoint.metadata_log import MetadataLog
from microbatch.checkpoint.offset_log import spark_watermark_ms, watermark_us_from_spark
from microbatch.model import BatchCommit, Json
from microbatch.protocols import Folder


class CommitLog:
    """Finished batches by batch id, in the text Spark's CommitLog writes.

    Line 1 is ``v1``, line 2 ``{"nextBatchWatermarkMs":..}`` with one more field ``microbatch`` that holds what only we keep: the
    watermarks in microseconds, each operator's own, and the name of the state delta. Without it (written by Spark) the
    watermark is Spark's (0 or missing: None).

    Parameters
    ----------
    folder
        ``<checkpoint>/commits``.
    """

    def __init__(self, folder: Folder) -> None:
        self._log = MetadataLog(folder)

    def add(self, commit: BatchCommit) -> bool:
        """Write that a batch is finished; False, and nothing changed, if that is written already. Durable on return."""
        return self._log.add(commit.batch_id, commit_text(commit))

    def get(self, batch_id: int) -> BatchCommit | None:
        """Return what a batch left, or None if it is not finished. Raises CheckpointCorruptError."""
        text = self._log.get(batch_id)
        return None if text is None else parse_commit(batch_id, text, self._log.where(batch_id))

    def latest(self) -> BatchCommit | None:
        """Return the entry of the highest finished batch, or None for an empty log. Raises CheckpointCorruptError."""
        batch_id = self._log.latest_id()
        return None if batch_id is None else self.get(batch_id)

    def ids(self) -> list[int]:
        """Return the ids of all finished batches, ascending."""
        return self._log.ids()

    def purge_below(self, batch_id: int) -> None:
        """Remove the entries of the batches below ``batch_id``."""
        self._log.purge_below(batch_id)

    def remove(self, batch_id: int) -> None:
        """Remove one entry, if it is there. Durable on return."""
        self._log.remove(batch_id)


def commit_text(commit: BatchCommit) -> str:
    """Return a commit as the line that follows the version line."""
    fields: dict[str, Json] = {
        "nextBatchWatermarkMs": spark_watermark_ms(commit.next_watermark_us),
        "microbatch": {
            "nextWatermarkUs": commit.next_watermark_us,
            "operatorWatermarksUs": dict(commit.operator_watermarks_us),
            "state": commit.state,
        },
    }
    return compact_json(fields)


def parse_commit(batch_id: int, text: str, where: str) -> BatchCommit:
    """Return the commit of what follows a version line. Raises CheckpointCorruptError, naming ``where``."""
    fields = Fields.parse(text, where)
    ours = fields.inner("microbatch")
    if ours is None:
        return BatchCommit(batch_id=batch_id, next_watermark_us=watermark_us_from_spark(fields.integer("nextBatchWatermarkMs")))
    return BatchCommit(
        batch_id=batch_id,
        next_watermark_us=ours.integer_or_none("nextWatermarkUs"),
        operator_watermarks_us=ours.integers("operatorWatermarksUs"),
        state=ours.text_or_none("state"),
    )
