//! What streams, keys, groups, delays and links are held to, over the native protocol on loopback, with brokers of their own.
//!
//! `cargo bench --bench figures` runs all parts, `cargo bench --bench figures -- keys delayed` some of them.
//! `BENCH_DIR` says where the data goes, `BENCH_GB` how large the large stream is (20; it needs that much room).

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod delayed;
mod groups;
mod hosts;
mod keys;
mod large;
mod load;
mod many;
mod queue;
mod serving;

use std::path::PathBuf;

use load::Outcome;

type Part = (&'static str, fn(PathBuf) -> Outcome);

const PARTS: [Part; 7] = [
    ("keys", keys::run),
    ("delayed", delayed::run),
    ("queue", queue::run),
    ("many", many::run),
    ("groups", groups::run),
    ("hosts", hosts::run),
    ("large", large::run),
];

fn main() -> Result<(), load::Failure> {
    let base = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let wanted: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (name, part) in PARTS {
        if !wanted.is_empty() && !wanted.iter().any(|it| it == name) {
            continue;
        }
        let directory = base.join(format!("pillarbox-figures-{}-{name}", std::process::id()));
        println!("{name}");
        let outcome = runtime.block_on(part(directory.clone()));
        let _ = std::fs::remove_dir_all(&directory);
        outcome?;
    }
    Ok(())
}
