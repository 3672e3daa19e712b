use rstest::rstest;

use super::*;

fn user(name: &str, tags: &[&str]) -> UserDefinition {
    let tags = tags.iter().map(|tag| (*tag).into()).collect();
    UserDefinition {
        name: name.into(),
        credential: Credential { tags, ..Credential::default() },
        max_connections: None,
        max_channels: None,
    }
}

fn permission(
    user: &str,
    vhost: &str,
    [configure, write, read]: [&str; 3],
) -> PermissionDefinition {
    PermissionDefinition {
        vhost: vhost.into(),
        user: user.into(),
        configure: configure.into(),
        write: write.into(),
        read: read.into(),
    }
}

fn topic(exchange: &str, write: &str, read: &str) -> TopicPermissionDefinition {
    TopicPermissionDefinition {
        vhost: "v".into(),
        user: "u".into(),
        exchange: exchange.into(),
        write: write.into(),
        read: read.into(),
    }
}

fn with(patterns: [&str; 3]) -> Access {
    let mut access = Access::new();
    access.define_user(user("u", &[]));
    access.define_permission(permission("u", "v", patterns)).expect("good patterns");
    access
}

/// The permission model written down a second time, without regular expressions and without `Access`.
mod oracle {
    use super::{Action, Kind};

    /// A pattern, and what it means in plain words.
    pub(super) struct Shape {
        pub(super) pattern: &'static str,
        allows: fn(&str) -> bool,
    }

    pub(super) const SHAPES: [Shape; 8] = [
        Shape { pattern: "", allows: |name| name.is_empty() },
        Shape { pattern: ".*", allows: |_| true },
        Shape { pattern: "^$", allows: |name| name.is_empty() },
        Shape { pattern: "other", allows: |name| name.contains("other") },
        Shape { pattern: "^ab$", allows: |name| name == "ab" },
        // Anchored on one side only: it lets more in than its author may think.
        Shape { pattern: "^a", allows: |name| name.starts_with('a') },
        Shape { pattern: "b", allows: |name| name.contains('b') },
        Shape {
            pattern: r"^(ab|amq\.default)$",
            allows: |name| ["ab", "amq.default"].contains(&name),
        },
    ];

    type Need = (Action, Kind, &'static str);

    /// What clients do, and what each needs on which name.
    pub(super) fn operations() -> Vec<(String, Vec<Need>)> {
        use Action::{Configure, Read, Write};
        let mut operations = Vec::new();
        for name in ["ab", "abc", "cab", "other", "a\n"] {
            let queue = |action| (action, Kind::Mailbox, name);
            let exchange = |action| (action, Kind::Exchange, name);
            for (operation, needs) in [
                ("queue.declare", vec![queue(Configure)]),
                (
                    "queue.declare with dead-letter-exchange ab",
                    vec![queue(Configure), queue(Read), (Write, Kind::Exchange, "ab")],
                ),
                ("queue.delete", vec![queue(Configure)]),
                ("exchange.declare", vec![exchange(Configure)]),
                (
                    "exchange.declare with alternate-exchange ab",
                    vec![exchange(Configure), exchange(Read), (Write, Kind::Exchange, "ab")],
                ),
                ("exchange.delete", vec![exchange(Configure)]),
                ("queue.bind to ab", vec![queue(Write), (Read, Kind::Exchange, "ab")]),
                ("exchange.bind to ab", vec![exchange(Write), (Read, Kind::Exchange, "ab")]),
                ("basic.publish", vec![exchange(Write)]),
                ("basic.publish to the default exchange", vec![(Write, Kind::Exchange, "")]),
                ("basic.get", vec![queue(Read)]),
                ("basic.consume", vec![queue(Read)]),
                ("queue.purge", vec![queue(Read)]),
                ("basic.ack", vec![]),
            ] {
                operations.push((format!("{operation} {name:?}"), needs));
            }
        }
        operations
    }

    pub(super) fn allows(
        [configure, write, read]: [&Shape; 3],
        (action, kind, name): Need,
    ) -> bool {
        let shape = match action {
            Action::Configure => configure,
            Action::Write => write,
            Action::Read => read,
        };
        let default = name.is_empty() && matches!(kind, Kind::Exchange);
        (shape.allows)(if default { "amq.default" } else { name })
    }
}

#[test]
fn permissions_agree_with_the_oracle() {
    let operations = oracle::operations();
    let (mut allowed, mut refused) = (0, 0);
    for configure in &oracle::SHAPES {
        for write in &oracle::SHAPES {
            for read in &oracle::SHAPES {
                let shapes = [configure, write, read];
                let patterns = shapes.map(|shape| shape.pattern);
                let access = with(patterns);
                for (operation, needs) in &operations {
                    let expected = needs.iter().all(|need| oracle::allows(shapes, *need));
                    let actual = needs.iter().all(|(action, kind, name)| {
                        access.check(&"u".into(), &"v".into(), *action, *kind, name).is_ok()
                    });
                    assert_eq!(actual, expected, "{operation} with {patterns:?}");
                    *(if actual { &mut allowed } else { &mut refused }) += 1;
                }
            }
        }
    }
    assert!(allowed > 5000 && refused > 5000, "{allowed} allowed, {refused} refused");
}

#[rstest]
#[case(
    Action::Configure,
    Kind::Mailbox,
    "q",
    "configure access to queue 'q' in vhost 'v' refused for user 'u'"
)]
#[case(
    Action::Write,
    Kind::Exchange,
    "x",
    "write access to exchange 'x' in vhost 'v' refused for user 'u'"
)]
#[case(
    Action::Write,
    Kind::Exchange,
    "",
    "write access to exchange 'amq.default' in vhost 'v' refused for user 'u'"
)]
#[case(
    Action::Read,
    Kind::Mailbox,
    "q",
    "read access to queue 'q' in vhost 'v' refused for user 'u'"
)]
fn refusal_says_what_is_missing(
    #[case] action: Action,
    #[case] kind: Kind,
    #[case] name: &str,
    #[case] expected: &str,
) {
    let refusal = with(["", "", ""]).check(&"u".into(), &"v".into(), action, kind, name);
    assert_eq!(refusal.expect_err("refused").to_string(), expected);
}

#[test]
fn permissions_hold_in_their_virtual_host_for_their_user() {
    let mut access = with([".*", ".*", ".*"]);
    access.define_user(user("w", &["administrator"]));
    let check = |access: &Access, user: &str, vhost: &str| {
        let allowed = access.check(&user.into(), &vhost.into(), Action::Read, Kind::Mailbox, "q");
        assert_eq!(allowed.is_ok(), access.may_enter(user, vhost));
        allowed.is_ok()
    };
    assert!(check(&access, "u", "v"));
    assert!(!check(&access, "u", "other"));
    // Not even an administrator, without a record of its own.
    assert!(!check(&access, "w", "v"));
    assert!(!check(&access, "unknown", "v"));
    assert!(access.is_administrator("w") && !access.is_administrator("u"));
    assert!(access.has_tag("w", "administrator") && !access.has_tag("w", "monitoring"));
    assert!(access.undefine_permission("u", "v"));
    assert!(!access.undefine_permission("u", "v"));
    assert!(!check(&access, "u", "v"));
}

#[rstest]
#[case(["^q$", "", ""], true)]
#[case(["", "^q$", ""], true)]
#[case(["", "", "^q$"], true)]
#[case(["", "", ""], false)]
#[case(["^other$", "^p$", "^r$"], false)]
fn any_permission_shows_that_a_name_exists(#[case] patterns: [&str; 3], #[case] expected: bool) {
    let access = with(patterns);
    assert_eq!(access.may_see("u", "v", Kind::Mailbox, "q"), expected);
    assert!(!access.may_see("u", "other", Kind::Mailbox, "q"));
}

#[rstest]
#[case::no_record("amq.topic", "", "", "x", Action::Write, "any", true)]
#[case::matches("x", "^a\\.", "", "x", Action::Write, "a.b", true)]
#[case::does_not_match("x", "^a\\.", "", "x", Action::Write, "b.a.b", false)]
#[case::is_a_search("x", "a", "", "x", Action::Write, "b.a.b", true)]
#[case::empty_is_nothing("x", "", ".*", "x", Action::Write, "a", false)]
#[case::empty_is_the_empty_key("x", "", ".*", "x", Action::Write, "", true)]
#[case::read_is_apart("x", "", "^a$", "x", Action::Read, "a", true)]
#[case::read_is_apart("x", "^a$", "", "x", Action::Read, "a", false)]
#[case::configure_is_not_asked("x", "", "", "x", Action::Configure, "a", true)]
#[case::user_name("x", "^{username}\\.", "", "x", Action::Write, "u.log", true)]
#[case::user_name("x", "^{username}\\.", "", "x", Action::Write, "w.log", false)]
#[case::virtual_host("x", "^{vhost}-{username}-{username}$", "", "x", Action::Write, "v-u-u", true)]
#[case::unknown_here("x", "^{client_id}$", "", "x", Action::Write, "{client_id}", true)]
#[case::unknown_here("x", "^{client_id}$", "", "x", Action::Write, "u", false)]
fn topic_permission(
    #[case] defined: &str,
    #[case] write: &str,
    #[case] read: &str,
    #[case] exchange: &str,
    #[case] action: Action,
    #[case] key: &str,
    #[case] expected: bool,
) {
    let mut access = Access::new();
    access.define_topic_permission(topic(defined, write, read)).expect("good patterns");
    let checked =
        access.check_topic(&"u".into(), &"v".into(), &exchange.into(), action, key.as_bytes());
    assert_eq!(checked.is_ok(), expected);
    for (user, vhost) in [("w", "v"), ("u", "w")] {
        let other =
            access.check_topic(&user.into(), &vhost.into(), &"x".into(), action, key.as_bytes());
        assert_eq!(other, Ok(()));
    }
}

#[test]
fn topic_refusal_names_the_key() {
    let mut access = Access::new();
    access.define_topic_permission(topic("x", "^a$", "")).expect("good patterns");
    let refusal = access.check_topic(&"u".into(), &"v".into(), &"x".into(), Action::Write, b"b.c");
    assert_eq!(
        refusal.expect_err("refused").to_string(),
        "write access to topic 'b.c' in exchange 'x' in vhost 'v' refused for user 'u'"
    );
}

#[test]
fn name_of_a_user_brings_no_syntax() {
    let mut access = Access::new();
    let mut permission = topic("x", "^{username}$", "");
    permission.user = ".*".into();
    access.define_topic_permission(permission).expect("good patterns");
    let check = |key: &[u8]| {
        access.check_topic(&".*".into(), &"v".into(), &"x".into(), Action::Write, key).is_ok()
    };
    assert!(check(b".*"));
    assert!(!check(b"anything"));
}

#[test]
fn keys_need_not_be_text() {
    let mut access = Access::new();
    access.define_topic_permission(topic("x", "^a", "")).expect("good patterns");
    let check = |key: &[u8]| {
        access.check_topic(&"u".into(), &"v".into(), &"x".into(), Action::Write, key).is_ok()
    };
    assert!(check(b"a\xff"));
    assert!(!check(b"\xffa"));
}

#[rstest]
#[case("(")]
#[case("a{1000}{1000}")]
#[case("(?!secret)")]
#[case(&"(".repeat(100))]
#[case(&"a".repeat(5000))]
fn bad_pattern_is_refused_and_changes_nothing(#[case] pattern: &str) {
    let mut access = with(["^a$", "", ""]);
    let generation = access.generation();
    for patterns in [[pattern, "", ""], ["", pattern, ""], ["", "", pattern]] {
        assert!(access.define_permission(permission("u", "v", patterns)).is_err());
    }
    assert!(access.define_topic_permission(topic("x", pattern, "")).is_err());
    assert!(access.define_topic_permission(topic("x", "", pattern)).is_err());
    assert_eq!(access.generation(), generation);
    assert_eq!(access.permissions().next().expect("the old one").configure, "^a$");
}

#[test]
fn permissions_go_with_their_user_and_their_virtual_host() {
    let mut access = with([".*", ".*", ".*"]);
    access.define_permission(permission("u", "w", ["", "", ""])).expect("good patterns");
    access.define_topic_permission(topic("x", "", "")).expect("good patterns");
    access.define_topic_permission(topic("y", "", "")).expect("good patterns");
    assert_eq!(access.undefine_topic_permission("u", "v", Some("y")).len(), 1);
    assert_eq!(access.undefine_topic_permission("u", "v", Some("y")).len(), 0);
    assert_eq!(access.undefine_vhost("w").len(), 1);
    assert_eq!(access.permissions().count(), 1);

    let gone = access.undefine_user("u");
    let expected = [
        Definition::User(user("u", &[])).key(),
        Definition::Permission(permission("u", "v", ["", "", ""])).key(),
        Definition::TopicPermission(topic("x", "", "")).key(),
    ];
    assert_eq!(gone, expected);
    assert!(!access.has_users());
    assert_eq!(access.permissions().count() + access.topic_permissions().count(), 0);
}

#[test]
fn every_change_moves_the_generation() {
    let mut access = Access::new();
    let mut last = access.generation();
    let mut moved = |access: &Access| {
        assert_ne!(access.generation(), last);
        last = access.generation();
    };
    access.define_user(user("u", &[]));
    moved(&access);
    access.define_permission(permission("u", "v", ["", "", ""])).expect("good patterns");
    moved(&access);
    access.define_topic_permission(topic("x", "", "")).expect("good patterns");
    moved(&access);
    access.undefine_topic_permission("u", "v", None);
    moved(&access);
    access.undefine_permission("u", "v");
    moved(&access);
    access.undefine_user("u");
    moved(&access);
}
