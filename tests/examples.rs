//! The examples, run as a reader would run them.

use std::path::PathBuf;
use std::process::Command;

use rstest::rstest;

/// Where cargo puts examples that it builds with the tests.
fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("a test knows its own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.join("examples").join(name)
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
    let run = Command::new(example(name)).output();
    let run = run.unwrap_or_else(|error| {
        panic!(
            "{name}: {error}; `cargo test --test examples` alone does not build it: add --examples"
        )
    });
    let out = String::from_utf8_lossy(&run.stdout).into_owned();
    let problem = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{out}{problem}");
    for line in expected {
        assert!(out.lines().any(|it| it == *line), "no '{line}' in:\n{out}");
    }
}
