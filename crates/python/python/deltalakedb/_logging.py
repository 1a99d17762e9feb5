"""What the native part logs, in Python's ``logging``."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import Optional, Union

from . import _internal
from .exceptions import InvalidInputError

__all__ = ["setup_logging", "stop_logging"]

#: Below DEBUG.
TRACE = 5
_LEVELS = {4: logging.ERROR, 3: logging.WARNING, 2: logging.INFO, 1: logging.DEBUG, 0: TRACE}
#: How long a fetch of lines waits, and the end for the last of them, seconds.
_WAIT = 1.0
_LAST = 5.0

_lock = threading.Lock()
_thread: Optional[threading.Thread] = None
_root = "deltalakedb"


def setup_logging(level: Union[int, str, None] = None, logger: str = "deltalakedb") -> logging.Logger:
    """Hands what this package logs over to Python's ``logging``.

    Lines wait in a queue of 10,000, from which a thread of Python's fetches them: no call waits for a
    handler. What does not fit is thrown away, and a warning says how many lines that were. It may be called
    again, with another level.

    Args:
        level: How much: ``logging.DEBUG``, ``"INFO"``, …; by default what the logger says.
        logger: Name of the logger. Modules have loggers below it.

    Returns:
        The logger.
    """
    global _thread, _root
    target = logging.getLogger(logger)
    if isinstance(level, str):
        known = logging.getLevelName(level.upper())
        if not isinstance(known, int):
            raise InvalidInputError(f"level {level!r} is none: DEBUG, INFO, WARNING or ERROR")
        level = known
    if level is None:
        level = target.getEffectiveLevel()
    elif isinstance(level, bool) or not isinstance(level, int) or level < 0:
        raise InvalidInputError(f"level must be a level of logging, and is {level!r}")
    else:
        target.setLevel(level)
    with _lock:
        _root = logger
        _internal.set_log_level(min(level, 100) // 10 + 1)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_hand_over, name="deltalakedb-logging", daemon=True)
            _thread.start()
    return target


def stop_logging() -> None:
    """Hands over what still waits, and ends that."""
    global _thread
    with _lock:
        thread, _thread = _thread, None
    if thread is not None and thread.is_alive():
        _internal.end_logs()
        thread.join(_LAST)


def _hand_over() -> None:
    while (fetched := _internal.next_logs(_WAIT)) is not None:
        lines, lost = fetched
        for tens, target, text, at in lines:
            _handle(_LEVELS[tens], target, text, at)
        if lost:
            text = f"{lost} lines of the log were thrown away: they came faster than they were handled"
            logging.getLogger(_root).warning(text)


def _handle(level: int, target: str, text: str, at: float) -> None:
    parts = target.split("::")
    # Our modules are below the logger, whatever its name is.
    parts[0] = parts[0].removeprefix("deltalakedb").lstrip("_")
    logger = logging.getLogger(".".join([_root, *filter(None, parts)]))
    if logger.isEnabledFor(level):
        record = logger.makeRecord(logger.name, level, target, 0, text, (), None)
        record.created = at
        record.msecs = at % 1 * 1000
        logger.handle(record)


def _after_fork() -> None:
    global _thread, _lock
    _lock = threading.Lock()
    if _thread is not None:
        _thread = threading.Thread(target=_hand_over, name="deltalakedb-logging", daemon=True)
        _thread.start()


atexit.register(stop_logging)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
