"""Options of Spark's file source under our names."""

from __future__ import annotations

from tests.conformance.ports import file_options, snake


def test_camel_case_becomes_snake_case() -> None:
    assert snake("maxFilesPerTrigger") == "max_files_per_trigger"


def test_numbers_may_be_texts_and_what_is_none_stays_for_the_engine_to_refuse() -> None:
    assert file_options("text", {"maxFilesPerTrigger": "5"}) == {"max_files_per_trigger": 5}
    assert file_options("text", {"maxFilesPerTrigger": "abc"}) == {"max_files_per_trigger": "abc"}


def test_a_csv_file_has_no_header_unless_it_says_so() -> None:
    assert file_options("csv", {}) == {"format_options": {"has_header": False}}
    assert file_options("csv", {"header": True, "sep": ";"}) == {"format_options": {"has_header": True, "separator": ";"}}


def test_options_with_another_name_are_translated() -> None:
    assert file_options("text", {"cleanSource": "archive", "sourceArchiveDir": "x"}) == {"clean_source": "archive", "archive_dir": "x"}
