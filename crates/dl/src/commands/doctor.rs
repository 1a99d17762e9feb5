//! `dl doctor`

use std::time::Duration;

use clap::Args;
use deltalakedb::core::diagnosis::Level;
use deltalakedb::doctor::DoctorOptions;
use deltalakedb::view;

use crate::context::Context;
use crate::failure::{Result, exit};
use crate::output::one_line;

/// Arguments of `dl doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Looks at versions, at the database's settings that commits rest on, at this login's rights, sizes,
clocks, publishing, the stores of tables and the skipping index. Each finding says what is there,
why that matters and what to do. Nothing is changed; --write-probe puts a small object into the log
folder of each table that is looked at, tries to put it again, and deletes it: that tells whether
the store keeps two writers apart.

Exit codes: 0 nothing but notes, 2 a warning, 1 an error.

Examples:
  dl doctor
  dl doctor --write-probe --max-tables 10
  dl doctor --format json | jq '.findings[] | select(.level == \"warning\")'")]
pub(crate) struct Doctor {
    /// Put an object into each table's log folder, conditionally, and delete it
    #[arg(long)]
    write_probe: bool,
    /// Longest that one look takes
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    deadline: u32,
    /// Tables whose store and index are looked at
    #[arg(long, value_name = "N", default_value_t = 100)]
    max_tables: usize,
    /// Also show what is as it should be
    #[arg(long)]
    all: bool,
}

impl Doctor {
    pub(crate) async fn run(&self, context: &Context) -> Result<u8> {
        let options = DoctorOptions {
            deadline: Duration::from_secs(u64::from(self.deadline)),
            max_tables: self.max_tables,
            write_probe: self.write_probe,
        };
        let db = context.db().await?;
        let report = db.diagnose(&options).await?;
        if context.out.is_json() {
            context.out.document(&view::plain(&report))?;
        } else {
            let mut fine = 0;
            for finding in &report.findings {
                if finding.level == Level::Ok && !self.all {
                    fine += 1;
                    continue;
                }
                let mut text =
                    format!("{:<8} {}: {}", finding.level, finding.what, one_line(&finding.found));
                for part in [&finding.why, &finding.advice] {
                    if !part.is_empty() {
                        text.push_str("\n         ");
                        text.push_str(&one_line(part));
                    }
                }
                context.out.text(text)?;
            }
            if fine > 0 {
                context
                    .out
                    .say(format!("{fine} looks found what should be (--all shows them)."))?;
            }
        }
        Ok(match report.worst {
            Level::Ok | Level::Note => exit::OK,
            Level::Warning => exit::FINDINGS,
            Level::Error => exit::ERROR,
        })
    }
}
