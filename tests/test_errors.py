"""The error classes: what users catch, and what they carry."""

from __future__ import annotations

import pytest

import microbatch as mb
from microbatch import errors

PUBLIC = [value for name, value in vars(errors).items() if isinstance(value, type) and not name.startswith("_")]


@pytest.mark.parametrize("error", PUBLIC)
def test_one_class_catches_them_all(error: type[Exception]) -> None:
    assert issubclass(error, errors.MicrobatchError)


@pytest.mark.parametrize("error", PUBLIC)
def test_each_is_a_public_name(error: type[Exception]) -> None:
    assert getattr(mb, error.__name__) is error


@pytest.mark.parametrize("error", PUBLIC)
def test_each_says_what_to_do_about_it(error: type[Exception]) -> None:
    assert error.__doc__
    assert ":" in error.__doc__ or ";" in error.__doc__


@pytest.mark.parametrize("error", [errors.PlanError, errors.DataError])
def test_wrong_values_are_also_value_errors(error: type[Exception]) -> None:
    assert issubclass(error, ValueError)


@pytest.mark.parametrize("error", [errors.SourceError, errors.SinkError])
def test_errors_of_the_outside_are_not_retryable_unless_said(error: type[errors.SourceError] | type[errors.SinkError]) -> None:
    assert not error("gone").retryable
    assert error("busy", retryable=True).retryable
    assert str(error("busy", retryable=True)) == "busy"


def test_source_and_sink_are_told_apart() -> None:
    assert not issubclass(errors.SourceError, errors.SinkError)
    assert not issubclass(errors.SinkError, errors.SourceError)


@pytest.mark.parametrize("batch_id", [None, 7])
def test_a_failed_query_names_itself_and_its_batch(batch_id: int | None) -> None:
    error = errors.QueryFailedError("it stopped", query_id="q", batch_id=batch_id)
    assert (str(error), error.query_id, error.batch_id) == ("it stopped", "q", batch_id)
