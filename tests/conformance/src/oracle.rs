//! Random operations on a backend and on the in-memory reference: every answer must be the same,
//! and so must the state at the end.

mod imports;
mod ops;
mod publishing;
mod registry;
mod world;

use std::fmt::Write as _;
use std::sync::Arc;

use libtest_mimic::Trial;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::Harness;
use crate::env::{CaseResult, Halt};
use crate::runner::{conclude, telling};
use ops::Op;
use world::World;

/// Sequences a run, unless `DL_ORACLE_CASES` says otherwise.
const SEQUENCES: u64 = 48;
/// Steps that are taken to make a failing sequence smaller.
const SHRINK_STEPS: u32 = 400;

pub(crate) fn trial(harness: Arc<dyn Harness>) -> Trial {
    let name = format!("{}::oracle::random_operations", harness.name());
    telling(name.clone(), move || {
        conclude("contract: every backend answers as the reference does", |runtime| {
            let (first, count) = plan()?;
            eprintln!("{name}: {count} sequences from DL_SEED={first} on");
            for seed in (0..count).map(|i| first.wrapping_add(i)) {
                sequence(&harness, runtime, seed)?;
            }
            Ok(())
        })
    })
}

/// The first seed, and how many.
fn plan() -> CaseResult<(u64, u64)> {
    if let Ok(seed) = std::env::var("DL_SEED") {
        return Ok((seed.parse()?, 1));
    }
    let count = match std::env::var("DL_ORACLE_CASES") {
        Ok(count) => count.parse()?,
        Err(_) => SEQUENCES,
    };
    // Six digits are enough to tell runs apart, and easy to copy.
    Ok((Uuid::new_v4().as_u64_pair().0 % 1_000_000, count))
}

/// Runs the sequence of a seed; a failing one is made as small as can be.
fn sequence(harness: &Arc<dyn Harness>, runtime: &Runtime, seed: u64) -> CaseResult {
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: SHRINK_STEPS,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = proptest::collection::vec(ops::op(), 1..80).prop_map(Arc::new);
    let outcome = runner.run(&strategy, |ops| {
        runtime.block_on(compare(harness, &ops)).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => Ok(()),
        Err(TestError::Abort(reason)) => Err(Halt::Fail(format!("aborted: {reason}"))),
        Err(TestError::Fail(reason, ops)) => {
            let mut text = format!("{reason}\nreplay with DL_SEED={seed}; the operations:\n");
            for (i, op) in ops.iter().enumerate() {
                let _ = writeln!(text, "{i:>4}  {op:?}");
            }
            Err(Halt::Fail(text))
        }
    }
}

async fn compare(harness: &Arc<dyn Harness>, ops: &[Op]) -> Result<(), String> {
    let fixture = harness.fresh().await.map_err(|e| e.to_string())?;
    let mut world = World::new(&*fixture.backend).await?;
    for (i, op) in ops.iter().enumerate() {
        world.step(op).await.map_err(|e| format!("operation {i}, {op:?}: {e}"))?;
    }
    world.compare_everything().await
}
