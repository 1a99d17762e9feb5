//! A page's blocks, one after the other, in an empty folder.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::cargo;
use crate::markdown::{Block, Page};
use crate::needs::{Places, is_known, python};
use crate::output::difference;

/// How long one block may take: a database may have to be started for it.
const PATIENCE: Duration = Duration::from_secs(300);

/// How pages call their own folder in what is printed.
const FOLDER: &str = "/lake";

/// `cargo` on the path of a page: `dl` is what was built with these tests, other lines are looked at later.
const CARGO: &str = r#"#!/bin/sh
case "$*" in "run -p dl -- "*) shift 4; exec dl "$@" ;; esac
printf '%s\n' "$*" >> "$SESSION/cargo"
"#;

/// `dl` on the path of a block that is not run: it reads its arguments and does nothing.
const UNDERSTAND: &str = r#"#!/bin/sh
exec "$DL" "$@" --help
"#;

/// Puts the Delta extension of the engines' Python where DuckDB looks for those that were installed.
const EXTENSIONS: &str = "
import duckdb, importlib.util, os, pathlib
platform = duckdb.sql('PRAGMA platform').fetchone()[0]
folder = pathlib.Path.home() / '.duckdb' / 'extensions' / f'v{duckdb.__version__}' / platform
folder.mkdir(parents=True, exist_ok=True)
for name in ['delta', 'httpfs', 'unity_catalog']:
    package = pathlib.Path(importlib.util.find_spec('duckdb_extension_' + name).origin).parent
    for extension in package.rglob('*.duckdb_extension'):
        if not (folder / extension.name).exists():
            os.symlink(extension, folder / extension.name)
";

/// Runs a script of Python and ends at once: threads of a reader's own (Arrow's, for one) may abort the process
/// while the interpreter takes itself apart, after all that the script says was done. An error of the script
/// is one as ever.
const RUN_PYTHON: &str = "
import os, runpy, sys
runpy.run_path(sys.argv[1], run_name='__main__')
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
";

/// What became of a page.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Number of blocks that ran.
    pub(crate) ran: usize,
    /// Blocks that could not run here: what they need, by its names in `DL_REQUIRE`, and why not.
    pub(crate) missing: Vec<(Vec<&'static str>, String)>,
    /// What is wrong.
    pub(crate) wrong: Vec<String>,
}

struct Session {
    /// Beside the page's folder: the environment, the folder of the block before, scripts.
    home: tempfile::TempDir,
    places: Places,
    /// What runs until the end of the page.
    background: Vec<Child>,
}

impl Drop for Session {
    fn drop(&mut self) {
        for child in &mut self.background {
            let group = child.id();
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).output();
            let _ = child.wait();
        }
    }
}

/// Runs all blocks of a page; ends at the first that fails.
pub(crate) fn run(page: &Page) -> Outcome {
    let mut session = Session::begin();
    let mut outcome = Outcome::default();
    // What the last block has printed; none if it did not run.
    let mut printed: Option<String> = None;
    for block in page.blocks() {
        let result = match &*block.language {
            "text" if block.has("output") => {
                if let Some(printed) = &printed
                    && let Some(why) = difference(&block.text, printed)
                {
                    outcome.wrong.push(format!("{}: {why}", block.place));
                }
                continue;
            }
            "text" | "rust" => continue,
            // The Python package's own tests run these.
            "python" if block.has("package") => continue,
            _ if block.value("file").is_some() => {
                session.write(&block);
                if block.value("file") == Some("Cargo.toml")
                    && let Some(why) = cargo::manifest_trouble(&block.text)
                {
                    outcome.wrong.push(format!("{}: {why}", block.place));
                }
                continue;
            }
            _ if block.value("needs").is_some() => {
                printed = None;
                if let Err(why) = session.understand(&block) {
                    outcome.wrong.push(format!("{}: {why}", block.place));
                }
                continue;
            }
            _ => match session.places.prepare(&block) {
                Ok(()) => session.run(&block),
                Err((needs, why)) => Err(Trouble::Missing(needs, why)),
            },
        };
        match result {
            Ok(text) => {
                outcome.ran += 1;
                printed = Some(text);
            }
            Err(Trouble::Missing(needs, why)) => {
                printed = None;
                outcome.missing.push((needs, format!("{}: {why}", block.place)));
            }
            Err(Trouble::Failed(why)) => {
                outcome.wrong.push(format!("{}: {why}", block.place));
                break;
            }
        }
    }
    if let Ok(lines) = fs::read_to_string(session.path("cargo")) {
        for line in lines.lines() {
            if let Some(why) = cargo::trouble(line) {
                outcome.wrong.push(format!("{}: cargo {line}: {why}", page.name));
            }
        }
    }
    outcome
}

enum Trouble {
    /// It cannot run here.
    Missing(Vec<&'static str>, String),
    Failed(String),
}

impl Session {
    fn begin() -> Session {
        let home = tempfile::tempdir().unwrap();
        let session = Session { home, places: Places::default(), background: Vec::new() };
        for folder in ["bin", "understand", "home", "page"] {
            fs::create_dir(session.path(folder)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_dl"), session.path("bin/dl")).unwrap();
        session.program("bin/cargo", CARGO);
        session.program("understand/cargo", CARGO);
        session.program("understand/dl", UNDERSTAND);
        fs::write(session.path("environment"), "").unwrap();
        fs::write(session.path("folder"), session.page()).unwrap();
        session
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().canonicalize().unwrap().join(name)
    }

    fn page(&self) -> String {
        self.path("page").to_str().unwrap().to_owned()
    }

    fn program(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A block with `file:NAME` is that file.
    fn write(&self, block: &Block) {
        let path = self.path("page").join(block.value("file").unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &block.text).unwrap();
    }

    fn run(&mut self, block: &Block) -> Result<String, Trouble> {
        let text = self.places.fill_in(&block.text);
        let script = match &*block.language {
            "sh" => text,
            "sql" => {
                fs::write(self.path("query.sql"), text).unwrap();
                "dl sql --file \"$SESSION/query.sql\"\n".to_owned()
            }
            "python" => {
                let python = python().map_err(|why| Trouble::Missing(vec!["interop"], why))?;
                fs::write(self.path("script.py"), text).unwrap();
                fs::write(self.path("extensions.py"), EXTENSIONS).unwrap();
                fs::write(self.path("run.py"), RUN_PYTHON).unwrap();
                format!(
                    "'{python}' \"$SESSION/extensions.py\"\n'{python}' \"$SESSION/run.py\" \
                     \"$SESSION/script.py\"\n"
                )
            }
            other => {
                return Err(Trouble::Failed(format!(
                    "nobody knows how to run a block of '{other}'"
                )));
            }
        };
        for word in &block.words {
            let known = is_known(word)
                || word.starts_with("exit:")
                || word == "background"
                || block.language == "text";
            if !known {
                return Err(Trouble::Failed(format!("nobody knows what '{word}' means")));
            }
        }
        let expected: i32 = block.value("exit").map_or(0, |code| code.parse().unwrap());
        let script = format!(
            ". \"$SESSION/environment\"\ncd \"$(cat \"$SESSION/folder\")\"\nset -eu\n{script}\n\
             export -p > \"$SESSION/environment\"\npwd > \"$SESSION/folder\"\n"
        );
        if block.has("background") {
            let mut command = self.command("bin", &script);
            let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            self.background.push(child);
            return Ok(String::new());
        }
        let (code, stdout, stderr) = self.shell("bin", &script);
        let stdout = stdout.replace(&self.page(), FOLDER);
        if code == Some(expected) {
            Ok(stdout)
        } else {
            let code = code.map_or("no exit code in time".to_owned(), |c| format!("exit code {c}"));
            Err(Trouble::Failed(format!("{code}\n{}\n{stdout}{stderr}", block.text)))
        }
    }

    /// Of a block that cannot be run, the lines of `dl` and cargo are read by these programs.
    fn understand(&self, block: &Block) -> Result<(), String> {
        if block.language != "sh" {
            return Ok(());
        }
        let joined = block.text.replace("\\\n", " ");
        for line in joined.lines().filter(|l| l.starts_with("dl ") || l.starts_with("cargo ")) {
            let (code, _, stderr) = self.shell("understand", line);
            if code != Some(0) {
                return Err(format!("{line}\n{stderr}"));
            }
        }
        Ok(())
    }

    /// A script as the leader of a group of processes.
    fn command(&self, programs: &str, script: &str) -> Command {
        // One that runs in the background reads its own.
        let file = self.path(&format!("script-{}.sh", self.background.len()));
        fs::write(&file, script).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .arg(file)
            .current_dir(self.page())
            .env_clear()
            .env("PATH", format!("{}:{path}", self.path(programs).display()))
            .env("HOME", self.path("home"))
            .env("SESSION", self.path(""))
            .env("DL", env!("CARGO_BIN_EXE_dl"))
            .env("DL_USER", "ann")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(self.places.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }

    /// Runs a script; gives its exit code (none if it took too long) and what it printed.
    fn shell(&self, programs: &str, script: &str) -> (Option<i32>, String, String) {
        let mut child = self.command(programs, script).spawn().unwrap();
        let group = child.id();
        let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
        let code = wait(&mut child);
        // Also what was started in the background and left there.
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).output();
        (code, stdout.join().unwrap(), stderr.join().unwrap())
    }
}

/// Reads all on a thread of its own, so that no pipe gets full.
fn reader(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The exit code, or none if it takes longer than [`PATIENCE`].
fn wait(child: &mut Child) -> Option<i32> {
    let group = child.id();
    let (ended, end) = channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        if late {
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).output();
        }
        late
    });
    let status = child.wait().unwrap();
    drop(ended);
    let late = watch.join().unwrap();
    status.code().filter(|_| !late)
}

fn of(text: &str) -> Outcome {
    run(&Page { name: "x.md".to_owned(), text: text.to_owned() })
}

#[test]
fn wrong_commands_and_wrong_output_are_noticed() {
    let right = "```sh\nA=1; export A\ndl init --catalog sqlite://c.db\nmkdir sub\ncd sub\n```\n\
                 ```sh\necho \"$A in $(pwd)\"\n```\n```text,output\n1 in /lake/sub\n```\n";
    let outcome = of(right);
    assert_eq!((outcome.ran, outcome.wrong), (2, Vec::new()));
    for (wrong, word) in [
        ("```sh\ndl initt\n```\n", "initt"),
        ("```sh\nfalse | true\ndl list --catalog sqlite://none.db\n```\n", "none.db"),
        ("```sh\necho a\n```\n```text,output\nb\n```\n", "the page shows"),
        ("```sh\ncargo xtask tset\n```\n", "tset"),
        ("```sh,needs:luck\ndl list --no-such-option\n```\n", "--no-such-option"),
        ("```sh,exit:3\ntrue\n```\n", "exit code 0"),
        ("```sh,postgress\ntrue\n```\n", "postgress"),
        ("```\ntrue\n```\n", "a block of ''"),
        ("```bash\ntrue\n```\n", "a block of 'bash'"),
        ("```json\n{}\n```\n", "a block of 'json'"),
    ] {
        let outcome = of(wrong);
        let [why] = &outcome.wrong[..] else { panic!("{wrong}: {outcome:?}") };
        assert!(why.contains(word), "{wrong}: {why}");
    }
}

/// It would keep the pipe open that its output is read from.
#[test]
fn what_a_block_leaves_running_ends() {
    let outcome = of("```sh\nsleep 1000 &\n```\n");
    assert_eq!((outcome.ran, outcome.wrong), (1, Vec::new()));
}

/// The names of files below a page's folder do not matter, its own path is replaced.
#[test]
fn the_folder_of_a_page_is_called_lake() {
    let outcome = of("```sh\npwd\n```\n```text,output\n/lake\n```\n");
    assert!(Path::new(FOLDER).is_absolute() && outcome.wrong.is_empty(), "{outcome:?}");
}
