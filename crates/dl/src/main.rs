//! `dl`: Delta tables whose log lives in SQL, from a command line.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    ExitCode::from(dl::run(&arguments))
}
