//! `dl completions`

use std::io::{Write, stdout};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::context::Context;
use crate::failure::Result;

/// Arguments of `dl completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dl completions bash > /etc/bash_completion.d/dl
  dl completions zsh > ~/.zfunc/_dl
  dl completions fish > ~/.config/fish/completions/dl.fish")]
pub(crate) struct Completions {
    /// Shell to complete in
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, _: &Context) -> Result<()> {
        // The generator panics on a write error: it writes to memory.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "dl", &mut script);
        let mut out = stdout().lock();
        out.write_all(&script)?;
        Ok(out.flush()?)
    }
}
