"""Logging, metrics, configuration."""

import logging
import os
import pickle
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from deltalakedb import Catalog, SqlConfig, Table, setup_logging, stop_logging
from deltalakedb.exceptions import InvalidInputError
from deltalakedb.prometheus import CatalogCollector

COLUMNS = "id long"


# ---- logging ----


def eventually(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)


@pytest.fixture
def logged(caplog):
    yield caplog
    stop_logging()


def slow(url, lake):
    """A call that is told to be slow."""
    with Catalog(url, create=True, config={"monitoring": {"slow_call_threshold": "1ms"}}) as catalog:
        catalog.create_table("t", COLUMNS, location=lake)


def test_what_happens_comes_to_logging(tmp_path, lake, logged):
    logger = setup_logging(logging.DEBUG)
    assert logger.name == "deltalakedb"
    slow(f"sqlite://{tmp_path}/c.db", lake)
    eventually(lambda: any(r.name.startswith("deltalakedb.") and r.levelno >= logging.INFO for r in logged.records))
    record = logged.records[0]
    assert abs(record.created - time.time()) < 60 and record.getMessage()
    # Nothing more after the end.
    stop_logging()
    logged.clear()
    slow(f"sqlite://{tmp_path}/d.db", lake + "d")
    time.sleep(0.2)
    assert logged.records == []


def test_levels(tmp_path, lake, logged):
    setup_logging("ERROR", logger="mine")
    slow(f"sqlite://{tmp_path}/c.db", lake)
    stop_logging()
    assert not [r for r in logged.records if r.name.startswith("mine")]
    setup_logging("WARNING", logger="mine")
    slow(f"sqlite://{tmp_path}/d.db", lake + "d")
    stop_logging()
    mine = [r for r in logged.records if r.name.startswith("mine.")]
    assert mine and all(r.levelno >= logging.WARNING for r in mine)
    for wrong in ("LOUD", -1, True, 1.5):
        with pytest.raises(InvalidInputError):
            setup_logging(wrong)


LOGS = """
    import logging, os, sys, threading
    from deltalakedb import Catalog, setup_logging

    logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
    setup_logging(logging.DEBUG)

    def work(name):
        with Catalog(f"sqlite://{sys.argv[1]}/{name}.db", create=True, config={"monitoring.slow_call_threshold": "1ms"}) as c:
            c.list_tables()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    if hasattr(os, "fork"):
        child = os.fork()
        if child == 0:
            print("in the child", flush=True)
            work("child")
            logging.shutdown()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
    work("last")
    # The interpreter ends while lines wait.
"""


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_logging_works_with_forks_and_ends_with_the_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(LOGS), str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert ":deltalakedb." in done.stdout
    # The last lines are not lost.
    assert "last.db" in done.stdout or done.stdout.count("slow") > 0
    before, _, after = done.stdout.partition("in the child")
    assert ":deltalakedb." in before
    assert after.count(":deltalakedb.") > 0


# ---- metrics ----


def scrape(collector):
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def test_metrics_for_prometheus(catalog, lake):
    table = catalog.create_table("t", COLUMNS, location=lake)
    table.write(pa.table({"id": [1]}))
    numbers = catalog.metrics()
    commits = [m for m in numbers["measured"] if m["name"] == "dl_commits_total"]
    assert sum(m["count"] for m in commits if m["labels"] == {"outcome": "committed"}) == 2
    text = scrape(CatalogCollector(catalog, {"catalog": "main"}))
    assert 'dl_commits_total{catalog="main",outcome="committed"} 2.0' in text
    assert "# TYPE dl_commit_seconds summary" in text
    assert 'dl_commit_seconds_count{catalog="main",outcome="committed"} 2.0' in text
    assert 'dl_cache_hits_total{catalog="main",kind="heads"}' in text
    assert "dl_cache_capacity_bytes" in text and 'dl_scrape_errors_total{catalog="main"} 0.0' in text
    if catalog.pool_stats() is not None:
        assert 'dl_pool_connections{catalog="main",state="idle"}' in text


def test_a_closed_catalog_does_not_break_a_scrape(lite):
    collector = CatalogCollector(lite)
    lite.close()
    assert "dl_scrape_errors_total 1.0" in scrape(collector)
    assert "dl_scrape_errors_total 2.0" in scrape(collector)


# ---- configuration ----


def test_a_program_gives_its_configuration(tmp_path, monkeypatch):
    url = f"sqlite://{tmp_path}/c.db"
    config = SqlConfig(url, cache={"size": "3MiB"}, retry={"deadline": timedelta(seconds=7)})
    with Catalog(config=config, create=True) as catalog:
        assert catalog.cache_stats()["capacity_bytes"] == 3 << 20
        again = pickle.loads(pickle.dumps(catalog))
        assert again.cache_stats()["capacity_bytes"] == 3 << 20 and again.url == catalog.url
    # Before environment and files, a dict, a file.
    monkeypatch.setenv("DELTA_CACHE_SIZE", "9MiB")
    monkeypatch.setenv("DELTA_DB_CONNECTION", "sqlite:///nowhere/none.db")
    with Catalog(config={"catalog": url, "cache": {"size": "4MiB"}}) as catalog:
        assert catalog.cache_stats()["capacity_bytes"] == 4 << 20
    monkeypatch.delenv("DELTA_DB_CONNECTION")
    monkeypatch.delenv("DELTA_CACHE_SIZE")
    file = tmp_path / "other.toml"
    file.write_text('catalog = "sqlite://./c.db"\n[cache]\nsize = "5MiB"\n')
    for given in (file, str(file), SqlConfig(file=file)):
        with Catalog(config=given) as catalog:
            assert catalog.cache_stats()["capacity_bytes"] == 5 << 20
    with Catalog(url, config={"cache.size": "6MiB"}) as catalog:
        assert catalog.cache_stats()["capacity_bytes"] == 6 << 20


def test_a_configuration_that_is_wrong(tmp_path):
    url = f"sqlite://{tmp_path}/c.db"
    Catalog(url, create=True).close()
    for config, text in [
        ({"cache": {"sise": "1MiB"}}, "cache.sise"), ({"cache": {"size": "much"}}, "cache.size|CACHE_SIZE"),
        ({"cache": {"size": [1]}}, "cache.size"), (7, "SqlConfig"), (str(tmp_path / "none.toml"), "none.toml"),
    ]:
        with pytest.raises(InvalidInputError, match=text):
            Catalog(url, config=config)
    with pytest.raises(InvalidInputError, match="cache.sise"):
        Table(f"delta+sql://{url}/a.b", config={"cache": {"sise": "1MiB"}})


def test_no_secret_is_shown_or_pickled():
    config = SqlConfig(database={"host": "h", "password": "geheim"})
    assert "geheim" not in repr(config) and config.settings["database.password"] == "geheim"
    from deltalakedb._config import portable

    assert portable(config.settings) == {}
