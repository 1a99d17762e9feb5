"""Errors. Each has a code that stays the same from version to version, and says what to do next."""

from __future__ import annotations

import builtins
import json
from typing import Any, Optional

__all__ = [
    "CatalogClosedError",
    "CommitUnknownError",
    "ConflictError",
    "CorruptError",
    "DeltaLakeDbError",
    "ForkedError",
    "InternalError",
    "InvalidInputError",
    "QueryError",
    "SchemaMismatchError",
    "SchemaVersionError",
    "TableExistsError",
    "TableFrozenError",
    "TableNotFoundError",
    "TimeoutError",
    "TransientError",
    "UnavailableError",
    "UnsupportedError",
    "VersionNotFoundError",
]


class DeltaLakeDbError(Exception):
    """The root of all errors of this package.

    Attributes:
        code: A word that stays the same from version to version, for programs.
        table: The table that the error is about, if it is about one.
        hint: What to do next.
    """

    code: str = "error"
    table: Optional[str] = None
    hint: str = "The message says what is wrong."

    def __init__(self, message: str, table: Optional[str] = None, **details: Any) -> None:
        super().__init__(message)
        self.table = table
        self._details = details

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors come back from worker processes as they were.
        return (_again, (type(self), str(self), self.code, self.table, self._details))


class InvalidInputError(DeltaLakeDbError, ValueError):
    """The input of a call is wrong. The same call fails again."""

    code = "invalid_input"
    hint = "Change the call as the message says."


class SchemaMismatchError(InvalidInputError):
    """Rows do not fit their table: columns or types are others."""

    code = "schema_mismatch"
    hint = 'Change the rows, or write with schema_mode="merge".'


class TableNotFoundError(DeltaLakeDbError, LookupError):
    """There is no table of this name or id."""

    code = "table_not_found"
    hint = "Catalog.list_tables() shows the tables, with dropped=True those that were dropped."


class TableExistsError(DeltaLakeDbError):
    """The name belongs to another table."""

    code = "table_exists"
    hint = "Choose another name, or drop the table first."


class VersionNotFoundError(DeltaLakeDbError, LookupError):
    """The table does not have this version, or none at this time.

    Attributes:
        earliest: First version that can be read.
        latest: The latest version.
    """

    code = "version_not_found"
    hint = "Table.history() shows the versions."

    @property
    def earliest(self) -> Optional[int]:
        """First version that can be read."""
        value: Optional[int] = self._details.get("earliest")
        return value

    @property
    def latest(self) -> Optional[int]:
        """The latest version."""
        value: Optional[int] = self._details.get("latest")
        return value


class ConflictError(DeltaLakeDbError):
    """Another commit was first, and the two do not go together. Nothing was written."""

    code = "conflict"
    hint = "Open the table again, and do the change again."

    @property
    def tables(self) -> list[str]:
        """The tables that the conflict is about."""
        return [] if self.table is None else [self.table]

    @property
    def versions(self) -> dict[str, Optional[int]]:
        """For each of them the version that was first; None where it is not known."""
        winning: Optional[int] = self._details.get("winning_version")
        return {table: winning for table in self.tables}

    @property
    def kind(self) -> Optional[str]:
        """Why the commits do not go together, as ``concurrent_append``."""
        value: Optional[str] = self._details.get("kind")
        return value


class TableFrozenError(DeltaLakeDbError):
    """The table is frozen: it can be read, and nothing is written to it."""

    code = "table_frozen"
    hint = "`dl unfreeze` lets the table be written again."


class UnsupportedError(DeltaLakeDbError, NotImplementedError):
    """The table uses something that is not known here."""

    code = "unsupported"
    hint = "Use the engine that made the table, or leave the feature out."


class SchemaVersionError(DeltaLakeDbError):
    """The database has no catalog, or one of another version of this package."""

    code = "schema"
    hint = "Catalog(url, create=True) makes or upgrades the catalog, and so does `dl init`."


class CorruptError(DeltaLakeDbError):
    """Data in the catalog or in a log contradicts itself."""

    code = "corrupt"
    hint = "`dl doctor` and `dl diff` show what is wrong."


class UnavailableError(DeltaLakeDbError, ConnectionError):
    """The database or the store of files did not do it."""

    code = "unavailable"
    hint = "Look at the database, the network and the rights of the user; `dl doctor` helps."


class TransientError(UnavailableError):
    """The database or the store did not do it now. The same call may succeed soon."""

    code = "busy"
    hint = "Make the same call again."


class CatalogClosedError(UnavailableError):
    """This program has closed the catalog."""

    code = "catalog_closed"
    hint = "Make a new Catalog."


class ForkedError(UnavailableError):
    """What is used was opened by the process that this one was forked from."""

    code = "forked"
    hint = "Open it again in this process. A Catalog and a Table do that by themselves."


class TimeoutError(DeltaLakeDbError, builtins.TimeoutError):
    """The call took longer than its limit."""

    code = "timeout"
    hint = "Give the call more time, or look at what it waits for."


class CommitUnknownError(DeltaLakeDbError):
    """The answer to a commit was lost: nobody knows whether the commit took effect."""

    code = "commit_unknown"
    hint = "Commit again with the same token: a token takes effect at most once."

    @property
    def token(self) -> Optional[str]:
        """The token to commit again with."""
        value: Optional[str] = self._details.get("token")
        return value


class QueryError(DeltaLakeDbError):
    """The query engine could not do it."""

    code = "query"
    hint = "Change the query or the rows as the message says."


class InternalError(DeltaLakeDbError):
    """A fault of this package."""

    code = "internal"
    hint = "Please report it, with the message."


_ALL: tuple[type[DeltaLakeDbError], ...] = (
    InvalidInputError,
    SchemaMismatchError,
    TableNotFoundError,
    TableExistsError,
    VersionNotFoundError,
    ConflictError,
    TableFrozenError,
    UnsupportedError,
    SchemaVersionError,
    CorruptError,
    UnavailableError,
    TransientError,
    CatalogClosedError,
    ForkedError,
    TimeoutError,
    CommitUnknownError,
    QueryError,
    InternalError,
)

#: The class of each code.
BY_CODE: dict[str, type[DeltaLakeDbError]] = {kind.code: kind for kind in _ALL}


def _again(
    kind: type[DeltaLakeDbError],
    message: str,
    code: str,
    table: Optional[str],
    details: dict[str, Any],
) -> DeltaLakeDbError:
    error = kind(message, table, **details)
    error.code = code
    return error


def _of_native(code: str, message: str, table: Optional[str], details: str) -> DeltaLakeDbError:
    """The error for a code of the native part."""
    kind = BY_CODE.get(code, DeltaLakeDbError)
    return _again(kind, message, code, table, json.loads(details))
