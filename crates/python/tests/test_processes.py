"""Threads, forks, signals, processes."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pyarrow as pa
import pytest

from deltalakedb import Catalog, Table
from deltalakedb.exceptions import ForkedError, InvalidInputError

COLUMNS = "id long, who long"
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def rows(*ids, who=0):
    return pa.table({"id": pa.array(ids, pa.int64()), "who": pa.array([who] * len(ids), pa.int64())})


def in_child(work, seconds=30):
    """What a forked child answers; an error if it hangs."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer = b"died"
        try:
            answer = pickle.dumps(work())
        except BaseException as error:
            answer = pickle.dumps(repr(error))
        finally:
            os.write(writer, answer)
            os._exit(0)
    os.close(writer)
    deadline = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the forked child hangs")
        time.sleep(0.01)
    with os.fdopen(reader, "rb") as file:
        return pickle.loads(file.read())


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_anew(catalog, lake):
    """`deltalake` panics here: delta-io/delta-rs#2744."""
    table = catalog.create_table("t", COLUMNS, location=lake)
    table.write(rows(1))

    def work():
        assert catalog.table("t").version() >= 1
        table.write(rows(2))
        return catalog.sql("SELECT count(*) AS n FROM t").to_arrow()["n"].to_pylist()

    assert in_child(work) == [2]
    # The parent goes on with what it had.
    assert catalog.table("t").version() == 2
    table.write(rows(3))
    assert sorted(catalog.table("t").to_arrow()["id"].to_pylist()) == [1, 2, 3]
    # A child of a child.
    assert in_child(lambda: in_child(work)) == [4]


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_rows_of_the_parent_are_not_read_in_a_child(catalog, lake):
    table = catalog.create_table("t", COLUMNS, location=lake)
    table.write(rows(1, 2, 3))
    stream = iter(table.rows())

    def work():
        try:
            next(stream)
        except Exception as error:
            return error.code
        return "read"

    assert in_child(work) == "forked"


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forks_while_other_threads_work(catalog, lake):
    table = catalog.create_table("t", COLUMNS, location=lake)
    stop, errors, done = threading.Event(), [], [0]

    def reads():
        while not stop.is_set():
            try:
                catalog.table("t").files().to_arrow()
                done[0] += 1
            except Exception as error:
                errors.append(repr(error))

    threads = [threading.Thread(target=reads) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        answers = [in_child(lambda: catalog.table("t").version()) for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert answers == [0] * 5
    assert done[0] > 0
    # Rows that are just read end with an error when a process forks; nothing hangs or is wrong.
    assert all("ForkedError" in error for error in errors), errors
    assert table.version() == 0


def test_a_catalog_in_memory_stays_in_its_process():
    with Catalog("memory://", create=True) as catalog:
        catalog.create_table("t", COLUMNS, location="memory://python/t")
        assert catalog.table("t").version() == 0
        if hasattr(os, "fork"):
            assert "ForkedError" in in_child(lambda: catalog.table("t").version())


def test_threads_share_a_catalog(catalog, lake):
    catalog.create_table("t", COLUMNS, location=lake)
    errors = []

    def writes(who):
        try:
            for number in range(3):
                catalog.table("t").write(rows(number, who=who))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=writes, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert catalog.table("t").version() == 12
    assert catalog.table("t").to_arrow().num_rows == 12


def test_other_threads_run_while_a_call_waits(lite):
    """`deltalake` held the interpreter's lock here: delta-io/delta-rs#4402."""
    ticks, stop = [0], threading.Event()

    def count():
        while not stop.wait(0.001):
            ticks[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        began, before = time.monotonic(), ticks[0]
        heavy = "SELECT sum(a.value * b.value) AS n FROM generate_series(1, 4000) a, generate_series(1, 4000) b"
        lite.sql(heavy).to_arrow()
        took, counted = time.monotonic() - began, ticks[0] - before
    finally:
        stop.set()
        thread.join()
    assert counted > took / 0.05, f"{counted} ticks in {took:.3f} s"


INTERRUPTED = """
    import signal, sys, threading, time, os
    from deltalakedb import Catalog

    catalog = Catalog(sys.argv[1], create=True)
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    try:
        catalog.sql(
            "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 100000000) b "
            "WHERE (a.value * b.value) % 7 = 3"
        ).to_arrow()
    except KeyboardInterrupt:
        late = time.monotonic() - began - 1.0
        print(f"interrupted {late:.2f}")
        # It goes on to work.
        assert catalog.list_tables() == []
        catalog.close()
        print("works")
"""


def run(script, *arguments, seconds=60):
    """The output of a Python process."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True, text=True, timeout=seconds, check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_ctrl_c_ends_a_call(tmp_path):
    said = run(INTERRUPTED, f"sqlite://{tmp_path}/catalog.db").split()
    assert said[0] == "interrupted" and said[2] == "works"
    assert float(said[1]) < 1.0


ENDS = """
    import os, sys
    from deltalakedb import Catalog
    catalog = Catalog(sys.argv[1], create=True)
    rows = iter(catalog.sql("SELECT * FROM generate_series(1, 1000000)"))
    next(rows)
    print("ends")
"""


def test_a_program_ends_with_a_catalog_and_rows_open(tmp_path):
    assert run(ENDS, f"sqlite://{tmp_path}/catalog.db") == "ends\n"


def test_a_table_is_pickled_without_its_password(url, lake, monkeypatch):
    with Catalog(url, create=True) as catalog:
        table = catalog.create_table("t", COLUMNS, location=lake)
        table.write(rows(1))
        table.load_as_version(0)
        packed = pickle.dumps(table)
        password = url.partition("://")[2].partition("@")[0].partition(":")[2]
        assert not password or password.encode() not in packed
        if password:
            monkeypatch.setenv("DELTA_DB_PASSWORD", password)
        again = pickle.loads(packed)
        assert (again.name, again.version(), again.id) == ("default.t", 0, table.id)
        again_catalog = pickle.loads(pickle.dumps(catalog))
        assert again_catalog.url == catalog.url and again_catalog.table("t").version() == 1


def append(uri, who, count):
    table = Table(uri)
    for number in range(count):
        table.write(rows(number, who=who))
    return who


@pytest.mark.parametrize("start", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_append_and_nothing_is_lost(lite, lake, start):
    """`deltalake` lost commits of many writers: delta-io/delta-rs#3736."""
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {start}")
    table = lite.create_table("t", COLUMNS, location=lake)
    workers, each = (4, 3) if start == "spawn" else (16, 3)
    with multiprocessing.get_context(start).Pool(workers) as pool:
        done = pool.starmap(append, [(table.table_uri, who, each) for who in range(workers)], 1)
    assert sorted(done) == list(range(workers))
    table.update_incremental()
    got = sorted(zip(*(table.to_arrow()[name].to_pylist() for name in ("who", "id"))))
    assert got == [(who, number) for who in range(workers) for number in range(each)]
    assert table.version() == workers * each


def own_threads():
    """Names of the threads of the native part."""
    from pathlib import Path

    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if name.startswith(("deltalakedb", "dl-"))]


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_no_thread_is_there_when_a_process_forks(catalog, lake):
    """A child inherits the table in which `parking_lot` notes who waits: with threads that it does not have, it hung,
    in one of fifteen pools of sixteen processes."""
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("this system has no /proc")
    from deltalakedb import _internal

    table = catalog.create_table("t", COLUMNS, location=lake)
    table.write(rows(1))
    catalog.sql("SELECT * FROM t").to_arrow()
    assert own_threads()
    _internal.before_fork()
    try:
        deadline = time.monotonic() + 5
        while own_threads() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert own_threads() == []
    finally:
        _internal.after_fork_in_parent()
    table.write(rows(2))
    assert table.to_arrow().num_rows == 2


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_is_open_in_the_parent_says_that_it_forked(catalog, lake):
    table = catalog.create_table("t", COLUMNS, location=lake)
    table.write(rows(*range(100)))
    stream, other = iter(table.rows()), table.rows()
    reader = pa.RecordBatchReader.from_stream(table.rows())
    with pytest.raises(ForkedError), catalog.transaction() as tx:
        tx.table("t").write(rows(7))
        assert in_child(lambda: 1) == 1
        tx.table("t").write(rows(8))
    # Never fewer rows than there are.
    with pytest.raises(ForkedError):
        list(stream)
    with pytest.raises(Exception, match="forked"):
        reader.read_all()
    # Of these nothing was read yet.
    assert other.to_arrow().num_rows == 100 and table.version() == 1


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_catalog_in_memory_outlives_a_fork(tmp_path):
    with Catalog("memory://", create=True) as catalog:
        table = catalog.create_table("t", COLUMNS, location="memory://python/fork")
        table.write(rows(1))
        assert in_child(lambda: 1) == 1
        table.write(rows(2))
        assert sorted(table.to_arrow()["id"].to_pylist()) == [1, 2]


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_pools_of_forked_processes_do_not_hang(lite, lake):
    from concurrent.futures import ProcessPoolExecutor, wait

    table = lite.create_table("t", COLUMNS, location=lake)
    context = multiprocessing.get_context("fork")
    for number in range(3):
        table.write(rows(number, who=99))
        with ProcessPoolExecutor(16, mp_context=context) as pool:
            futures = [pool.submit(append, table.table_uri, who, 1) for who in range(16)]
            done, hanging = wait(futures, timeout=120)
            for process in pool._processes.values() if hanging else ():
                process.kill()
            assert not hanging
            assert sorted(future.result() for future in done) == list(range(16))
    table.update_incremental()
    assert table.to_arrow().num_rows == 3 * 17


def test_a_signal_handler_that_raises_is_heard(lite):
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no timers of processes")

    class Alarm(Exception):
        pass

    def ring(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(Alarm):
            lite.sql("SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 100000000) b "
                     "WHERE (a.value * b.value) % 7 = 3").to_arrow()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(InvalidInputError):
        lite.table("")
