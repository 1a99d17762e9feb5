//! Running other programs.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The cargo that runs us, in the root of the workspace, without what it told us about ourselves.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    like_cargo(&mut command);
    command
}

/// The same for a program that runs cargo itself.
pub(crate) fn like_cargo(command: &mut Command) {
    command.current_dir(workspace::root());
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&key);
        }
    }
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    if let Some(name) = std::path::Path::new(&words[0]).file_name() {
        words[0] = name.to_string_lossy().into_owned();
    }
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Runs a command on our terminal. Whether it succeeded.
pub(crate) fn on_terminal(command: &mut Command) -> Result<bool> {
    println!("$ {}", shown(command));
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    Ok(status.success())
}

/// Runs a command and returns what it prints.
///
/// # Errors
/// If it cannot start or fails; with what it wrote to standard error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` failed ({}):\n{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command and returns whether it succeeded and all that it printed, of both outputs in the order
/// written. `shown`: on our terminal, too, as it comes.
pub(crate) fn watched(command: &mut Command, shown: bool) -> Result<(bool, String)> {
    let what = self::shown(command);
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let stderr = writer.try_clone().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer).stderr(stderr);
    let mut child = command.spawn().with_context(|| format!("cannot start `{what}`"))?;
    // Our copies of the pipe's write end: without them the end of the output is seen.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = BufReader::new(reader);
    let (mut text, mut line) = (String::new(), Vec::new());
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).with_context(|| format!("reading `{what}`"))? == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&line);
        if shown {
            print!("{line}");
        }
        text += &line;
    }
    let status = child.wait().with_context(|| format!("waiting for `{what}`"))?;
    Ok((status.success(), text))
}
