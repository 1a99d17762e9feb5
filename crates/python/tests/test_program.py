"""What one `pip install` of the wheel brings: the program `dl`, and the script of the README."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from pathlib import Path

import deltalakedb
import pytest

README = Path(__file__).parent.parent / "README.md"
PROGRAM = Path(sysconfig.get_path("scripts")) / ("dl.exe" if os.name == "nt" else "dl")


def test_the_wheel_brings_dl(lite):
    program = PROGRAM
    assert program.is_file(), "the wheel that is tested has no dl in it"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and deltalakedb.__version__ in done.stdout, done.stderr
    lite.create_table("s.t", "id long", location="lake/t")
    done = subprocess.run(
        [program, "--catalog", lite.url, "list"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and "s.t" in done.stdout, done.stderr


def test_dl_of_the_wheel_ends_with_the_codes_of_dl(tmp_path):
    for arguments, code in [
        (["--catalog", "sqlite://none.db", "list"], 1),
        (["no-such-command"], 2),
        ([b"--catalog", b"sqlite://\xff.db", b"list"], 2),
        (["--catalog", "sqlite://c.db", "init"], 0),
        (["--catalog", "sqlite://c.db", "sql", "SELECT 40 + 2 AS answer"], 0),
    ]:
        done = subprocess.run(
            [os.fsencode(PROGRAM), *arguments], capture_output=True, timeout=60, check=False, cwd=tmp_path
        )
        assert done.returncode == code, (arguments, done)
        assert b"Traceback" not in done.stderr, done
    assert b"42" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_dl_of_the_wheel_handles_signals(lite, how):
    command = [PROGRAM, "--catalog", lite.url, "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:
        try:
            line = service.stderr.readline()
            base = line.rsplit("Listening on ", 1)[-1].strip()
            with urllib.request.urlopen(f"{base}/ready", timeout=30) as answer:
                assert answer.read() == b'{"status":"ready"}'
            service.send_signal(how)
            assert service.wait(timeout=60) == 0, service.stderr.read()
        finally:
            service.kill()


def test_the_script_of_the_readme_runs_without_other_packages(tmp_path):
    """In a fresh environment with this package alone."""
    (script,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)
    assert len(script.strip().splitlines()) <= 25
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout.strip()
    package = Path(deltalakedb.__file__).parent
    # What the wheel has of it, as pip would unpack it.
    os.symlink(package, Path(purelib) / "deltalakedb", target_is_directory=True)
    done = subprocess.run(
        [python, "-c", script], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "3 orders" in done.stdout, done.stdout
    assert sys.prefix not in str(home)
