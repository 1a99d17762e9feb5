//! The worker processes of a run, and what comes through their pipes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};

use crate::journal::Line;
use crate::worker::CATALOG_VARIABLE;

/// How one worker is started.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) arguments: Vec<String>,
    /// In the environment, not among the arguments: it may hold a password.
    pub(crate) url: String,
}

/// What a reader of a pipe hands on.
enum News {
    Line(Line),
    /// A line that is none of ours.
    Garbled(String),
    End,
}

/// Workers. Those that still run when this is dropped are killed.
pub(crate) struct Crew {
    workers: Vec<Child>,
    news: Receiver<(usize, News)>,
    deadline: Instant,
}

impl Crew {
    /// Starts them all. They connect, and wait.
    pub(crate) fn start(
        program: &Path,
        orders: Vec<Order>,
        limit: Duration,
    ) -> anyhow::Result<Crew> {
        let (sender, news) = channel();
        let deadline = Instant::now() + limit;
        let mut crew = Crew { workers: Vec::new(), news, deadline };
        for (index, order) in orders.into_iter().enumerate() {
            let mut worker = Command::new(program)
                .arg("worker")
                .args(order.arguments)
                .env(CATALOG_VARIABLE, order.url)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("starting {}", program.display()))?;
            let stdout = worker.stdout.take().context("a worker without a pipe")?;
            crew.workers.push(worker);
            let sender = sender.clone();
            std::thread::spawn(move || read(index, stdout, &sender));
        }
        Ok(crew)
    }

    /// Waits until all are connected, and lets them go at once.
    pub(crate) fn go(&mut self) -> anyhow::Result<()> {
        for _ in 0..self.workers.len() {
            match self.next()? {
                (_, Line::Ready) => {}
                (index, line) => bail!("worker {index} did not wait: {line:?}"),
            }
        }
        for worker in &mut self.workers {
            let mut stdin = worker.stdin.take().context("a worker without stdin")?;
            stdin.write_all(b"go\n")?;
        }
        Ok(())
    }

    /// Reads all that they tell until they are done; counts acknowledged commits as they come.
    pub(crate) fn finish(&mut self, acknowledged: &AtomicU64) -> anyhow::Result<Vec<Vec<Line>>> {
        let mut told: Vec<Vec<Line>> = self.workers.iter().map(|_| Vec::new()).collect();
        let mut at_work = self.workers.len();
        while at_work > 0 {
            let (index, line) = self.next()?;
            match &line {
                Line::Committed { .. } => {
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Line::Done { .. } => at_work -= 1,
                _ => {}
            }
            told[index].push(line);
        }
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let status = worker.wait()?;
            ensure!(status.success(), "worker {index} ended with {status}");
        }
        Ok(told)
    }

    /// The next line of any worker.
    fn next(&mut self) -> anyhow::Result<(usize, Line)> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let (index, news) =
                self.news.recv_timeout(left).map_err(|_| anyhow!("the workers hang"))?;
            match news {
                News::Line(line) => return Ok((index, line)),
                News::Garbled(text) => bail!("worker {index} printed: {text}"),
                News::End => {
                    let worker = self.workers.get_mut(index).context("an unknown worker")?;
                    let status = worker.wait()?;
                    ensure!(status.success(), "worker {index} ended with {status}");
                }
            }
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // Those that are done cannot be killed any more.
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

fn read(index: usize, stdout: std::process::ChildStdout, sender: &Sender<(usize, News)>) {
    for text in BufReader::new(stdout).lines().map_while(Result::ok) {
        let news = serde_json::from_str(&text).map_or(News::Garbled(text), News::Line);
        if sender.send((index, news)).is_err() {
            return;
        }
    }
    // Nobody listens to a run that failed.
    let _ = sender.send((index, News::End));
}
