//! The kill harness finds bugs that were planted for it. `cargo test --features planted --test planted`
#![cfg(feature = "planted")]
#![expect(clippy::print_stdout, reason = "says how soon each was caught")]

#[path = "crash/random.rs"]
mod random;

#[path = "kill/checker.rs"]
mod checker;
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

use checker::Rule;
use rstest::rstest;

const ROUNDS_MAX: u64 = 10;

#[rstest]
#[case("confirm-before-sync", Rule::NoLoss)]
#[case("lost-redelivered", Rule::Redelivered)]
#[case("reorder-on-requeue", Rule::Order)]
#[case("ack-wrong-mailbox", Rule::NoLoss)]
#[tokio::test]
async fn a_planted_bug_is_caught(#[case] plant: &str, #[case] rule: Rule) {
    for seed in 0..ROUNDS_MAX {
        let failure = match round::run(seed, &[("PILLARBOX_PLANT", plant)]).await {
            Ok(figures) => {
                println!("{plant}: not caught by seed {seed}: {figures}");
                continue;
            }
            Err(failure) => failure,
        };
        let caught = failure.violations.iter().find(|it| it.rule == rule);
        if let Some(violation) = caught {
            println!("{plant}: caught by seed {seed}: {violation}");
            std::fs::remove_dir_all(&failure.directory).expect("its directory was kept");
            return;
        }
        println!("{plant}: not {rule:?}, but {failure}");
    }
    panic!("{plant} was not caught in {ROUNDS_MAX} rounds");
}
