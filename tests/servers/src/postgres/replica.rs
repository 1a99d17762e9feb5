//! Streaming replicas.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Postgres, SUPERUSER};
use crate::process;
use crate::wait::wait_until;

impl Postgres {
    /// Makes and starts a streaming replica (hot standby) of this server: it answers reads, and
    /// refuses writes. It has the roles and passwords of this server.
    ///
    /// # Errors
    /// If the copy fails or the replica does not start, with the end of its log.
    pub fn replica(&self) -> Result<Postgres> {
        let mut options = self.options.clone();
        options.version = Some(self.version());
        let mut replica = Postgres::new(options, self.password.clone())?;
        let mut copy = replica.command("pg_basebackup");
        copy.arg("--pgdata").arg(replica.data());
        copy.args(["--host", "127.0.0.1", "--username", SUPERUSER, "--no-password", "--no-sync"]);
        copy.arg("--port").arg(self.port.to_string());
        copy.args(["--write-recovery-conf", "--wal-method", "stream", "--checkpoint", "fast"]);
        copy.env("PGPASSWORD", &self.password);
        process::run(&mut copy, None).context("copying a PostgreSQL server")?;
        replica.first_start()?;
        Ok(replica)
    }

    /// On a replica: changes are received and not shown, until [`Postgres::resume_replay`].
    /// Returns when that is so.
    ///
    /// # Errors
    /// On a server that is not a replica.
    pub fn pause_replay(&self) -> Result<()> {
        self.psql("SELECT pg_wal_replay_pause();")?;
        // Version 14 tells an asked for pause from one in effect.
        let state = if self.version() >= 14 {
            "SELECT pg_get_wal_replay_pause_state() = 'paused';"
        } else {
            "SELECT pg_is_wal_replay_paused();"
        };
        wait_until("the replica pauses", Duration::from_secs(30), || Ok(self.psql(state)? == "t"))
    }

    /// Undoes [`Postgres::pause_replay`].
    ///
    /// # Errors
    /// On a server that is not a replica.
    pub fn resume_replay(&self) -> Result<()> {
        self.psql("SELECT pg_wal_replay_resume();").map(drop)
    }

    /// On a replica: waits until it shows all that `primary` has committed by now.
    ///
    /// # Errors
    /// If that takes longer than `limit`, for instance because replay is paused.
    pub fn wait_caught_up(&self, primary: &Postgres, limit: Duration) -> Result<()> {
        let position = primary.psql("SELECT pg_current_wal_lsn();")?;
        ensure!(!position.contains('\''), "no position: {position}");
        let shown = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn;");
        wait_until("the replica catches up", limit, || Ok(self.psql(&shown)? == "t"))
    }
}
