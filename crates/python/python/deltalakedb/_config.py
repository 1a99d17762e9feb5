"""The configuration, given by a program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Optional, Union

from .exceptions import InvalidInputError

__all__ = ["ConfigLike", "SqlConfig", "settings_of"]


class SqlConfig:
    """Configuration that a program gives: it goes before environment and config files.

    ::

        config = SqlConfig(
            database={"type": "postgresql", "host": "db.example", "user": "etl", "password": secret},
            cache={"size": "256MiB"},
            retry={"deadline": timedelta(seconds=30)},
        )
        catalog = Catalog(config=config)

    The keys are those of config files: ``dl config example`` shows all of them.
    """

    def __init__(
        self,
        catalog: Optional[str] = None,
        *,
        file: Union[str, os.PathLike[str], None] = None,
        **sections: Any,
    ) -> None:
        """Takes the configuration; a catalog that is opened checks it.

        Args:
            catalog: The catalog's URL.
            file: A config file to read, in place of those that are looked for.
            sections: Sections of keys, as ``cache={"size": "256MiB"}``.
        """
        self._settings: dict[str, str] = {}
        if catalog is not None:
            self._settings["catalog"] = catalog
        if file is not None:
            self._settings["file"] = os.fspath(file)
        _flatten("", sections, self._settings)

    @property
    def settings(self) -> dict[str, str]:
        """Keys and their values, as text: passwords too."""
        return dict(self._settings)

    def __repr__(self) -> str:
        # A value may be a secret.
        return f"SqlConfig({', '.join(sorted(self._settings))})"


#: A configuration, or a file with one.
ConfigLike = Union[SqlConfig, Mapping[str, Any], str, "os.PathLike[str]", None]

#: What leaves a process with a pickled catalog: neither a password nor what its URL says already.
_STAYS = ("catalog", "database.", "otlp.")


def _flatten(prefix: str, values: Mapping[str, Any], into: dict[str, str]) -> None:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if value is None:
            continue
        if isinstance(value, Mapping):
            _flatten(f"{name}.", value, into)
        elif isinstance(value, bool):
            into[name] = "true" if value else "false"
        elif isinstance(value, timedelta):
            into[name] = f"{value // timedelta(milliseconds=1)}ms"
        elif isinstance(value, (str, int, float)):
            into[name] = str(value)
        elif isinstance(value, os.PathLike):
            into[name] = os.fspath(value)
        else:
            kind = type(value).__name__
            raise InvalidInputError(f"config: '{name}' must be text, a number, a bool or a section, and is {kind}")


def settings_of(config: ConfigLike) -> dict[str, str]:
    """A configuration as keys and their values."""
    if config is None:
        return {}
    if isinstance(config, SqlConfig):
        return config.settings
    if isinstance(config, (str, os.PathLike)):
        return SqlConfig(file=config).settings
    if isinstance(config, Mapping):
        return SqlConfig(**config).settings
    kind = type(config).__name__
    raise InvalidInputError(f"config must be a SqlConfig, a dict or the path of a file, and is {kind}")


def portable(settings: dict[str, str]) -> dict[str, str]:
    """What may leave this process."""
    return {key: value for key, value in settings.items() if not key.startswith(_STAYS)}
