//! The layers, as a test: who may use whom, and which words may not stand where.
//!
//! Change this table and `ARCHITECTURE.md` together, or neither.

use std::fs;
use std::path::{Path, PathBuf};

struct Layer {
    /// Folder or file below `src`.
    module: &'static str,
    /// Modules of this crate that it may name.
    uses: &'static [&'static str],
    /// Words that may not stand in it, each with the reason.
    never: &'static [(&'static str, &'static str)],
}

/// What the deciding parts may not do. They get what happened and what time it is as arguments.
const PURE: &[(&str, &str)] = &[
    ("async ", "only server/ and what runs in it is async"),
    ("tokio", "only server/ and what runs in it knows the runtime"),
    ("Mutex", "the deciding parts have no locks"),
    ("RwLock", "the deciding parts have no locks"),
    ("::now()", "time is an argument"),
    ("SystemTime", "time is an argument"),
    ("thread::", "the deciding parts have no threads"),
    ("std::net", "the deciding parts have no sockets"),
    ("std::fs", "the deciding parts have no files"),
    ("unsafe ", "no unsafe code"),
];

const LAYERS: &[Layer] = &[
    Layer { module: "broker", uses: &[], never: PURE },
    Layer { module: "sessions", uses: &["broker"], never: PURE },
    Layer {
        module: "store",
        uses: &["broker"],
        never: &[
            ("async ", "the store blocks; its callers have a thread for it"),
            ("tokio", "the store blocks; its callers have a thread for it"),
            ("SystemTime", "time is an argument"),
        ],
    },
    Layer { module: "peers", uses: &["broker", "sessions"], never: PURE },
    Layer { module: "management", uses: &["broker"], never: PURE },
    Layer {
        module: "config.rs",
        uses: &["broker", "peers"],
        never: &[("tokio", "settings are read before the runtime starts")],
    },
    Layer { module: "client", uses: &["broker"], never: &[("std::fs", "a client has no files")] },
    Layer { module: "embedded.rs", uses: &["client", "config", "server"], never: &[] },
];

/// Hash maps have no order, and an order is what makes a run repeatable.
const BROKER_NEVER: &[(&str, &str)] = &[
    ("HashMap", "iteration order must be the same in every run"),
    ("HashSet", "iteration order must be the same in every run"),
    ("pillarbox_", "the core knows no protocol"),
    ("redb", "the core knows no disk"),
];

#[test]
fn layers_hold() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for layer in LAYERS {
        for file in files(&source.join(layer.module)) {
            let text = fs::read_to_string(&file).expect("a listed file can be read");
            check(layer, &file, &text, &mut found);
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn protocols_know_bytes_only() {
    let protocols = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocols");
    let mut found = Vec::new();
    for file in files(&protocols) {
        let text = fs::read_to_string(&file).expect("a listed file can be read");
        let layer = Layer { module: "protocols", uses: &[], never: PURE };
        if !file.components().any(|part| part.as_os_str() == "tests") {
            check(&layer, &file, &text, &mut found);
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_planted_violation_is_found() {
    let layer = &LAYERS[0];
    let planted = [
        "use tokio::sync::mpsc;",
        "use crate::store::Store;",
        "let now = Instant::now();",
        "let names: HashMap<Name, u64>;",
        "use crate::{broker::Name, server};",
        "use pillarbox_amqp::Method;",
    ];
    for line in planted {
        let mut found = Vec::new();
        check(layer, Path::new("planted.rs"), line, &mut found);
        assert_eq!(found.len(), 1, "{line}: {found:?}");
    }
    let mut found = Vec::new();
    check(layer, Path::new("fine.rs"), "use crate::broker::Name; // Mutex", &mut found);
    check(layer, Path::new("fine.rs"), "use crate::brokerage::Name;", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

fn check(layer: &Layer, file: &Path, text: &str, found: &mut Vec<String>) {
    let modules = [
        "broker",
        "sessions",
        "store",
        "peers",
        "management",
        "server",
        "cli",
        "config",
        "client",
        "embedded",
    ];
    let words = layer.never.iter().chain(if layer.module == "broker" { BROKER_NEVER } else { &[] });
    for (number, line) in text.lines().enumerate() {
        // What stands in a comment or behind `#[cfg(test)]` at the end of a file does not run.
        if line.trim_start().starts_with("#[cfg(test)]")
            && text.lines().nth(number + 1).is_some_and(|next| next.contains("mod tests {"))
        {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        let place = format!("{}:{}", file.display(), number + 1);
        for (word, reason) in words.clone() {
            if code.contains(word) {
                found.push(format!("{place}: `{}` in {}: {reason}", word.trim(), layer.module));
                break;
            }
        }
        for module in modules {
            let own = layer.module.trim_end_matches(".rs") == module;
            let named =
                mentions(code, module) || (code.contains("crate::{") && names(code, module));
            if named && !own && !layer.uses.contains(&module) {
                found.push(format!("{place}: {} may not use {module}", layer.module));
            }
        }
    }
}

/// Whether `crate::module` stands there, and not only a longer name that begins so.
fn mentions(code: &str, module: &str) -> bool {
    let path = format!("crate::{module}");
    code.match_indices(&path).any(|(at, _)| {
        let next = code[at + path.len()..].chars().next();
        next.is_none_or(|next| !next.is_alphanumeric() && next != '_')
    })
}

/// Whether a grouped import (`use crate::{a::B, c}`) names the module.
fn names(code: &str, module: &str) -> bool {
    let inside = code.split("crate::{").nth(1).unwrap_or_default();
    inside.split([',', '{', '}', ';', ' ']).any(|part| part.split("::").next() == Some(module))
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let folders = |path: &PathBuf| path.file_name().is_none_or(|name| name != "target");
    paths
        .into_iter()
        .filter(folders)
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}
