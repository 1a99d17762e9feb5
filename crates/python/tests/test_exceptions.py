"""Errors and their codes."""

import pickle

import pytest

from deltalakedb import _internal, exceptions
from deltalakedb.exceptions import BY_CODE, DeltaLakeDbError


def test_each_code_of_the_native_part_has_a_class():
    assert sorted(BY_CODE) == sorted(_internal.ERROR_CODES)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_an_error_says_what_it_is(code):
    error = exceptions._of_native(code, "it went wrong", "a.b", '{"winning_version": 7}')
    assert type(error) is BY_CODE[code]
    assert isinstance(error, DeltaLakeDbError)
    assert (error.code, error.table, str(error)) == (code, "a.b", "it went wrong")
    assert error.hint and error.hint != DeltaLakeDbError.hint
    assert type(error).__doc__
    assert type(error).__name__ in exceptions.__all__
    # As it comes back from a worker process.
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.code, again.table, str(again)) == (code, "a.b", "it went wrong")


def test_errors_are_those_of_python_too():
    assert issubclass(exceptions.InvalidInputError, ValueError)
    assert issubclass(exceptions.TableNotFoundError, LookupError)
    assert issubclass(exceptions.TimeoutError, TimeoutError)
    assert issubclass(exceptions.UnavailableError, ConnectionError)


def test_a_conflict_names_tables_and_versions():
    error = exceptions._of_native("conflict", "x", "a.b", '{"winning_version": 7, "kind": "k"}')
    assert error.tables == ["a.b"] and error.versions == {"a.b": 7} and error.kind == "k"


def test_an_unknown_code_is_still_an_error():
    error = exceptions._of_native("of_tomorrow", "x", None, "{}")
    assert type(error) is DeltaLakeDbError and error.code == "of_tomorrow"
