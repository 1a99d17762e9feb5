"""What the tests share: catalogs on each database, and events for the counts of `cargo xtask test`."""

import faulthandler
import json
import os
import sys
import uuid
from pathlib import Path

import pytest

from deltalakedb import Catalog

#: Databases, and the variables that name a server of each.
SERVERS = {"postgres": "DL_TEST_POSTGRES_URL", "mysql": "DL_TEST_MYSQL_URL"}
REQUIRED = {name.strip() for name in os.environ.get("DL_REQUIRE", "").split(",")}


def pytest_addoption(parser):
    parser.addoption("--events", type=Path, help="file for one line of JSON a test")


class Events:
    """Writes what became of each test, as Rust's runner has it."""

    def __init__(self, path):
        self.file = path.open("w", encoding="utf-8")

    def write(self, name, event, **more):
        line = {"type": "test", "event": event, "name": name, **more}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def pytest_runtest_logstart(self, nodeid):
        self.write(nodeid, "started")

    def pytest_runtest_logreport(self, report):
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.write(report.nodeid, "ignored", reason=reason.removeprefix("Skipped: "))
        elif report.failed:
            self.write(report.nodeid, "failed")
        elif report.when == "call":
            self.write(report.nodeid, "ok")


# All tests together take a minute or two. What hangs ends them, with a trace of each thread.
LONGEST_RUN = 900


def pytest_configure(config):
    faulthandler.dump_traceback_later(LONGEST_RUN, exit=True, file=sys.__stderr__)
    path = config.getoption("--events")
    if path is not None:
        config.pluginmanager.register(Events(path))


def server_url(backend):
    """The URL of a catalog of its own on a server; skips where there is none, fails where there must be one."""
    variable = SERVERS[backend]
    urls = os.environ.get(variable, "").replace(",", " ").split()
    if not urls:
        why = f"set {variable} to a server"
        if backend in REQUIRED:
            pytest.fail(f"{why}: DL_REQUIRE names {backend}")
        pytest.skip(why)
    url = urls[0]
    sign = "&" if "?" in url else "?"
    return f"{url}{sign}table_prefix=py{uuid.uuid4().hex[:8]}_"


@pytest.fixture(params=["sqlite", *SERVERS])
def url(request, tmp_path):
    """The URL of a catalog that is not there yet, on each database."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/catalog.db"
    return server_url(request.param)


@pytest.fixture
def catalog(url):
    """An empty catalog on each database."""
    with Catalog(url, create=True) as catalog:
        yield catalog


@pytest.fixture
def lite(tmp_path):
    """An empty catalog on SQLite."""
    with Catalog(f"sqlite://{tmp_path}/catalog.db", create=True) as catalog:
        yield catalog


@pytest.fixture
def lake(tmp_path):
    """A folder for tables."""
    return str(tmp_path / "lake")


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch, tmp_path):
    """No configuration of the machine is read."""
    for name in list(os.environ):
        if name.startswith(("DELTA_DB_", "DL_CONFIG")) or name == "ENVIRONMENT":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
