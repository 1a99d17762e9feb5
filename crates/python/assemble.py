"""Puts a library that cargo has built and the Python files into a wheel, as maturin would.

    python assemble.py --library target/debug/libdeltalakedb_python.so --version 0.1.0 --out target/python

So the tests install what they test, and nothing is built twice.
"""

import argparse
import base64
import hashlib
import sysconfig
import zipfile
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

HERE = Path(__file__).parent


def metadata(project: dict, version: str) -> str:
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {version}",
        f"Summary: {project['description']}",
        f"Requires-Python: {project['requires-python']}",
        f"License-Expression: {project['license']}",
    ]
    lines += [f"Classifier: {text}" for text in project["classifiers"]]
    lines += [f"Requires-Dist: {text}" for text in project["dependencies"]]
    for extra, needs in project["optional-dependencies"].items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f"Requires-Dist: {need}; extra == '{extra}'" for need in needs]
    lines.append("Description-Content-Type: text/markdown")
    return "\n".join(lines) + "\n\n" + (HERE / project["readme"]).read_text(encoding="utf-8")


def assemble(library: Path, version: str, out: Path) -> Path:
    told = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))
    project, native = told["project"], told["tool"]["maturin"]["module-name"].replace(".", "/")
    name = project["name"]
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    oldest = project["requires-python"].removeprefix(">=").replace(".", "")
    tag = f"cp{oldest}-abi3-{platform}"
    suffix = ".pyd" if library.suffix == ".dll" else ".abi3.so"
    info = f"{name}-{version}.dist-info"
    wheel = f"Wheel-Version: 1.0\nGenerator: assemble.py\nRoot-Is-Purelib: false\nTag: {tag}\n"
    scripts = "[console_scripts]\n" + "".join(f"{at} = {call}\n" for at, call in project["scripts"].items())
    source = HERE / told["tool"]["maturin"]["python-source"]
    files = [(path.relative_to(source).as_posix(), path) for path in sorted((source / name).rglob("*"))]
    entries: list[tuple[str, "Path | str"]] = [
        (at, path) for at, path in files if path.is_file() and path.suffix in {".py", ".pyi", ".typed"}
        or path.name == "py.typed"
    ]
    entries += [
        (native + suffix, library),
        (f"{info}/METADATA", metadata(project, version)),
        (f"{info}/WHEEL", wheel),
        (f"{info}/entry_points.txt", scripts),
    ]
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{name}-{version}-{tag}.whl"
    record = []
    # Not packed: it is read once.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for at, content in entries:
            data = content.encode() if isinstance(content, str) else content.read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{at},sha256={digest},{len(data)}")
            entry = zipfile.ZipInfo(at)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
        record.append(f"{info}/RECORD,,")
        archive.writestr(f"{info}/RECORD", "\n".join(record) + "\n")
    return target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    print(assemble(given.library, given.version, given.out))
