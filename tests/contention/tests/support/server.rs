//! What is run on every database that has a server of its own.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use deltalakedb_contention::run::Disturbance;
use deltalakedb_contention::scenario::Scenario;

use super::{Halt, Outcome, figures, plan};

/// How long a worker sits out an outage.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server is stopped where it is.
const PAUSE: Duration = Duration::from_secs(3);

/// A server that can be disturbed.
pub(crate) trait Server: Send + Sized + 'static {
    /// Starts one, with a database for these tests.
    fn boot() -> anyhow::Result<Self>;
    /// URL of that database.
    fn url(&self) -> String;
    /// The same through another port.
    fn url_at(&self, port: u16) -> String {
        self.url().replace(&format!(":{}/", self.port()), &format!(":{port}/"))
    }
    /// Where it listens.
    fn port(&self) -> u16;
    /// Kills it.
    fn kill(&mut self);
    /// Starts it after that.
    fn start_again(&mut self) -> anyhow::Result<()>;
    /// Stops it where it is.
    fn pause(&self);
    /// Lets it go on.
    fn resume(&self);
}

/// A server that the tests of this process share.
pub(crate) type Shared<S> = Arc<Mutex<S>>;
/// Where it is kept, once it is needed.
pub(crate) type Slot<S> = OnceLock<Result<Shared<S>, String>>;

/// The server in a slot, or why it cannot be had.
pub(crate) fn shared<S: Server>(slot: &Slot<S>) -> Result<Shared<S>, Halt> {
    let server = slot.get_or_init(|| match S::boot() {
        Ok(server) => Ok(Arc::new(Mutex::new(server))),
        Err(error) => Err(format!("{error:#}")),
    });
    server.clone().map_err(Halt::Unavailable)
}

/// The server itself.
pub(crate) fn lock<S>(server: &Shared<S>) -> MutexGuard<'_, S> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing goes wrong: no error may reach a writer. On the server that was given, if one was.
pub(crate) fn undisturbed<S: Server>(
    slot: &Slot<S>,
    given: Option<String>,
    scenario: Scenario,
) -> Outcome {
    let url = match given {
        Some(given) => given,
        None => lock(&shared(slot)?).url(),
    };
    figures(plan(&[url], scenario))
}

/// The server is killed twice, and stands still for a while.
pub(crate) fn through_outages<S: Server>(slot: &Slot<S>, scenario: Scenario) -> Outcome {
    let server = shared(slot)?;
    let url = lock(&server).url();
    let killed = |percent| {
        let server = Arc::clone(&server);
        Disturbance::new(percent, "killing the server and starting it again", move || {
            let mut server = lock(&server);
            server.kill();
            server.start_again()
        })
    };
    let paused = Arc::clone(&server);
    let paused = Disturbance::new(40, "stopping the server for a while", move || {
        let server = lock(&paused);
        server.pause();
        std::thread::sleep(PAUSE);
        server.resume();
        Ok(())
    });
    figures(plan(&[url], scenario).disturbed(PATIENCE, vec![killed(15), paused, killed(65)]))
}
