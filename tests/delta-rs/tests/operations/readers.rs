//! Other engines on what is published: Python `deltalake`, Polars, DuckDB.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Names a Python that has the engines of `tests/interop/requirements.txt`.
const PYTHON: &str = "DL_TEST_PYTHON";

/// The engines, in a process that all tests share.
static READERS: Mutex<Option<Readers>> = Mutex::new(None);

struct Readers {
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    _child: Child,
}

impl Readers {
    fn start(python: &str) -> Readers {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../interop/compare.py");
        let mut child = Command::new(python)
            .args(["-u", script])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {python} ({PYTHON}): {e}"));
        let questions = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Readers { questions, answers, _child: child }
    }
}

/// Each engine that can read the one table reads the same from the other. How many could; none if no
/// engines are there.
pub(crate) fn read_the_same(what: &str, expected: &Path, found: &Path) -> Option<usize> {
    let python = std::env::var(PYTHON).ok()?;
    let mut readers = READERS.lock().unwrap_or_else(PoisonError::into_inner);
    let readers = readers.get_or_insert_with(|| Readers::start(&python));
    let question = serde_json::json!({ "expected": expected, "found": found });
    writeln!(readers.questions, "{question}").unwrap();
    let mut line = String::new();
    readers.answers.read_line(&mut line).unwrap();
    let answer: serde_json::Value =
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{what}: the engines died: {e}"));
    assert_eq!(answer["wrong"], serde_json::json!([]), "{what}");
    let unable = answer["unable"].as_object().unwrap();
    for (engine, why) in unable {
        println!("{what}: {engine} cannot read the plain table either: {why}");
    }
    Some(3 - unable.len())
}

#[test]
fn engines_are_there() {
    if std::env::var_os(PYTHON).is_none() {
        let why = format!("set {PYTHON} (`cargo xtask test` does) to compare what engines read");
        deltalakedb_test_servers::skip(&["interop"], why);
        return;
    }
    let missing = Path::new("/nonexistent");
    assert_eq!(read_the_same("no table", missing, missing), Some(0));
}
