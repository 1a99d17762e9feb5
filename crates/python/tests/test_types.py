"""Types: of the package, of its stubs, and of a user's script."""

import inspect
import subprocess
import sys
from pathlib import Path

import deltalakedb
from deltalakedb import _internal

HERE = Path(__file__).parent


def mypy(*targets, config):
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file", config, *map(str, targets)],
        capture_output=True, text=True, timeout=300, check=False, cwd=HERE,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_and_a_users_script_pass_mypy(tmp_path):
    package = Path(deltalakedb.__file__).parent
    assert "site-packages" in str(package), "what is installed is tested"
    config = str(HERE.parent / "pyproject.toml")
    mypy("-p", "deltalakedb", config=config)
    mypy(HERE / "user_script.py", config=config)


def test_the_stubs_are_those_of_the_native_part():
    stubs = (Path(deltalakedb.__file__).parent / "_internal.pyi").read_text()
    for name, kind in vars(_internal).items():
        if name.startswith("_") and name != "__version__" or name == "ERROR_CODES":
            continue
        assert f"class {name}:" in stubs or f"def {name}(" in stubs or f"{name}: " in stubs, name
        for method in vars(kind) if inspect.isclass(kind) else ():
            if not method.startswith("__") or method.startswith("__arrow"):
                assert f"def {method}(" in stubs, f"{name}.{method}"


def test_everything_public_has_a_doc():
    for name in deltalakedb.__all__:
        thing = getattr(deltalakedb, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        assert inspect.getdoc(thing), name
        for method, member in vars(thing).items() if inspect.isclass(thing) else ():
            if not method.startswith("_") and callable(member):
                assert inspect.getdoc(member), f"{name}.{method}"
