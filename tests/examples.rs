//! The examples, run as a reader would run them.

use std::process::Command;

use rstest::rstest;

/// `cargo test` builds examples beside the tests; where only this test was asked for, they have to be built first.
fn example(name: &str) -> Command {
    let mut path = std::env::current_exe().expect("a test knows its own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join("examples").join(name);
    if path.exists() {
        return Command::new(path);
    }
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--example", name]);
    command
}

#[rstest]
#[case("jobs", &["1 squared is 1", "4 squared is 16", "never worked: three"])]
#[case("request_reply", &["hello, Ada"])]
#[case(
    "topics",
    &[
        "kitchen: house/kitchen/heat = 21",
        "kitchen: house/kitchen/light = on",
        "heat: house/kitchen/heat = 21",
        "heat: house/attic/heat = 14",
    ]
)]
fn an_example_does_what_it_says(#[case] name: &str, #[case] expected: &[&str]) {
    let run = example(name).output().unwrap();
    let out = String::from_utf8_lossy(&run.stdout).into_owned();
    let problem = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{out}{problem}");
    for line in expected {
        assert!(out.lines().any(|it| it == *line), "no '{line}' in:\n{out}");
    }
}
