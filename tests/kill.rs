//! `kill -9` of the real binary at random times under load, and every message accounted for.
//!
//! `KILL_ROUNDS=30 cargo test --release --test kill -- --nocapture`; `KILL_SEED=17` runs one.

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

#[expect(clippy::print_stdout, reason = "figures for who asks for them")]
#[tokio::test]
async fn everything_is_accounted_for_after_a_kill() {
    let mut failed = Vec::new();
    let mut all = round::Figures::default();
    for seed in seeds(3) {
        match round::run(seed, &[]).await {
            Ok(figures) => {
                println!("seed {seed}: {figures}");
                all += figures;
            }
            Err(failure) => {
                println!("{failure}");
                failed.push(failure.to_string());
            }
        }
    }
    println!("all that went well: {all}");
    assert!(failed.is_empty(), "{} rounds failed:\n{}", failed.len(), failed.join("\n"));
}
