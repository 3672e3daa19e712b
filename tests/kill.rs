//! `kill -9` of the real binary at random times under load, and every message accounted for.
//!
//! `KILL_ROUNDS=30 cargo test --release --test kill -- --nocapture`; `KILL_SEED=17` runs one.

use std::num::NonZero;
use std::sync::Mutex;

#[path = "crash/random.rs"]
mod random;

#[path = "kill/checker.rs"]
mod checker;
#[path = "kill/disk.rs"]
mod disk;
#[path = "kill/history.rs"]
mod history;
#[path = "kill/letter.rs"]
mod letter;
#[path = "kill/load.rs"]
mod load;
#[path = "kill/process.rs"]
mod process;
#[path = "kill/round.rs"]
mod round;
#[path = "kill/side.rs"]
mod side;

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(one) = number("KILL_SEED") {
        return one..one + 1;
    }
    0..number("KILL_ROUNDS").unwrap_or(default)
}

/// As many rounds at a time as there are cores: each waits more than it works.
#[expect(clippy::print_stdout, reason = "figures for who asks for them")]
#[test]
fn everything_is_accounted_for_after_a_kill() {
    let seeds = Mutex::new(seeds(3));
    let outcome = Mutex::new((round::Figures::default(), Vec::new()));
    let next = || seeds.lock().expect("no thread panics with it").next();
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        while let Some(seed) = next() {
            let round = runtime.block_on(round::run(seed, &[]));
            let mut outcome = outcome.lock().expect("no thread panics with it");
            match round {
                Ok(figures) => {
                    println!("seed {seed}: {figures}");
                    outcome.0 += figures;
                }
                Err(failure) => {
                    println!("{failure}");
                    outcome.1.push(failure.to_string());
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
    });
    let (all, failed) = outcome.into_inner().expect("no thread panics with it");
    println!("all that went well: {all}");
    assert!(failed.is_empty(), "{} rounds failed:\n{}", failed.len(), failed.join("\n"));
}
