//! Real brokers on hosts of their own, cut off from each other and killed under load, and every message accounted for.
//!
//! The hosts are network namespaces that the test makes itself: it needs root, `ip` and `nft`, and says so where it is skipped.
//! `HOST_ROUNDS=12 cargo test --profile ci --test hosts -- --nocapture`; `HOST_SEED=7` runs one.

#[path = "crash/random.rs"]
mod random;

#[path = "kill/checker.rs"]
mod checker;
#[expect(dead_code, reason = "tests/kill.rs says more of a fault")]
#[path = "kill/history.rs"]
mod history;
#[path = "kill/letter.rs"]
mod letter;
#[expect(dead_code, reason = "one host alone does more: tests/kill.rs")]
#[path = "kill/load.rs"]
mod load;
#[expect(dead_code, reason = "for hosts by themselves")]
#[path = "kill/process.rs"]
mod process;

#[path = "hosts/broker.rs"]
mod broker;
#[path = "hosts/fault.rs"]
mod fault;
#[path = "hosts/lab.rs"]
mod lab;
#[path = "hosts/round.rs"]
mod round;

use lab::Lab;

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(one) = number("HOST_SEED") {
        return one..one + 1;
    }
    0..number("HOST_ROUNDS").unwrap_or(default)
}

/// Seeds take turns: three hosts, five hosts.
#[expect(clippy::print_stdout, reason = "figures for who asks for them")]
#[test]
fn everything_is_accounted_for_between_hosts() {
    if let Err(why) = Lab::is_possible() {
        println!("SKIPPED: hosts in network namespaces: {why}");
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut failed = Vec::new();
    for seed in seeds(2) {
        match runtime.block_on(round::run(seed)) {
            Ok(figures) => println!("seed {seed}: {figures}"),
            Err(failure) => {
                println!("{failure}");
                failed.push(failure);
            }
        }
    }
    assert!(failed.is_empty(), "{} rounds failed:\n{}", failed.len(), failed.join("\n"));
}
