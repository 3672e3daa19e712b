//! What configure, write and read patterns allow, said without regular expressions.

/// A pattern, and which names it lets through.
pub(crate) type Shape = (&'static str, fn(&str) -> bool);

pub(crate) const SHAPES: [Shape; 5] = [
    (".*", |_| true),
    ("zz", |_| false),
    ("", |_| false),
    ("^ab$", |name| name == "ab"),
    // Anchored on one side: it lets `abx` in, and all that begins so.
    ("^abx", |name| name == "abx" || name == "abx2"),
];

/// A topic permission's pattern: keys that end in `d` are nobody's.
pub(crate) const KEYS: &str = "(^|[^d])$";

/// What is needed: the action (`?` for any of the three), what kind of thing it is on, and its name.
/// A kind that is neither queue nor exchange is the topic exchange of which the name is a key.
pub(crate) type Need = (char, &'static str, &'static str);

/// The first need that these patterns do not meet.
pub(crate) fn missing(needs: &[Need], [configure, write, read]: [Shape; 3]) -> Option<Need> {
    let grants = |action: char, name: &str| match action {
        'c' => configure.1(name),
        'w' => write.1(name),
        'r' => read.1(name),
        _ => configure.1(name) || write.1(name) || read.1(name),
    };
    let met = |(action, kind, name): &Need| match *kind {
        "queue" | "exchange" => grants(*action, name),
        _ => !name.ends_with('d'),
    };
    needs.iter().find(|need| !met(need)).copied()
}

/// What is said about it.
pub(crate) fn text((action, kind, name): Need) -> String {
    let word = match action {
        '?' => return format!("no {kind} '{name}' in vhost '/'"),
        'c' => "configure",
        'w' => "write",
        _ => "read",
    };
    let thing = match kind {
        "queue" | "exchange" => format!("{kind} '{name}'"),
        exchange => format!("topic '{name}' in exchange '{exchange}'"),
    };
    format!("{word} access to {thing} in vhost '/' refused for user 'ann'")
}
