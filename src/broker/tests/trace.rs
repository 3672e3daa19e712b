//! The firehose: what is published and delivered is seen by who looks, and costs nothing where nobody does.

use rstest::rstest;

use super::house::{House, ONE};
use super::request::{Post, text};
use crate::broker::*;

/// A broker that copies the traffic of `/`, and who looks at it.
fn watched() -> (House, ConnectionId) {
    let mut house = House::new();
    set(&mut house, true);
    let watcher = house.connect();
    house.declare(watcher, "log");
    house.bind(watcher, "amq.rabbitmq.trace", "log", "#");
    house.consume(watcher, "log", 9);
    (house, watcher)
}

fn set(house: &mut House, tracing: bool) {
    house.define(Definition::Vhost(VhostDefinition {
        name: "/".into(),
        description: String::new(),
        tags: Vec::new(),
        default_queue_type: None,
        tracing,
        protected: false,
        max_connections: None,
        max_mailboxes: None,
    }));
}

/// Keys and bodies.
fn copies(house: &mut House, watcher: ConnectionId) -> Vec<(String, String)> {
    let seen = house.seen(watcher).into_iter();
    seen.map(|seen| {
        let key = String::from_utf8_lossy(seen.delivery.message.key()).into_owned();
        (key, seen.body)
    })
    .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, body)| ((*key).into(), (*body).into())).collect()
}

#[test]
fn publishes_and_deliveries_are_copied() {
    let (mut house, watcher) = watched();
    let c = house.connect();
    house.declare(c, "q");
    house.put(c, "q", &["one", "two"]);
    let expected = [("publish.", "one"), ("publish.", "two")];
    assert_eq!(copies(&mut house, watcher), pairs(&expected));
    house.consume(c, "q", 1);
    assert_eq!(house.bodies(c), ["one", "two"]);
    let expected = [("deliver.q", "one"), ("deliver.q", "two")];
    assert_eq!(copies(&mut house, watcher), pairs(&expected));
    house.publish(c, Post::by("amq.topic", "nowhere", "lost"));
    assert_eq!(copies(&mut house, watcher), pairs(&[("publish.amq.topic", "lost")]));
    house.check_books();
}

#[test]
fn one_that_is_asked_for_is_copied_too() {
    let (mut house, watcher) = watched();
    let c = house.connect();
    house.declare(c, "q");
    house.put(c, "q", &["one"]);
    house.get(c, "q").expect("a message");
    house.close_channel(c, ONE);
    house.get_with(c, "q", true);
    let seen = house.seen(watcher);
    let redelivered =
        |at: usize| seen[at].delivery.message.properties().header("redelivered").cloned();
    assert_eq!(seen.len(), 3);
    assert_eq!(redelivered(1), Some(Value::I32(0)));
    assert_eq!(redelivered(2), Some(Value::I32(1)));
}

#[test]
fn headers_say_what_it_was() {
    let (mut house, watcher) = watched();
    let c = house.connect();
    for (name, key) in [("a", "k"), ("b", "other")] {
        house.declare(c, name);
        house.bind(c, "amq.direct", name, key);
    }
    let mut post = Post::by("amq.direct", "k", "body");
    post.more_keys = vec!["other"];
    post.properties.message_id = Some("m".into());
    post.properties.priority = Some(3);
    house.publish(c, post);
    let copy = house.seen(watcher).remove(0);
    let message = copy.delivery.message;
    assert_eq!(message.exchange().to_string(), "amq.rabbitmq.trace");
    let header = |name: &str| message.properties().header(name).cloned();
    assert_eq!(header("exchange_name"), Some(text("amq.direct")));
    assert_eq!(header("routing_keys"), Some(Value::Array(vec![text("k"), text("other")])));
    assert_eq!(header("routed_queues"), Some(Value::Array(vec![text("a"), text("b")])));
    assert_eq!(header("vhost"), Some(text("/")));
    assert_eq!(header("user"), Some(text("guest")));
    assert_eq!(header("channel"), Some(Value::I32(1)));
    assert_eq!(header("connection"), Some(text(" -> ")));
    let Some(Value::Table(properties)) = header("properties") else { panic!("no properties") };
    assert_eq!(properties.get("message_id"), Some(&text("m")));
    assert_eq!(properties.get("priority"), Some(&Value::I32(3)));
}

/// Also one that was on before: a channel remembers the route of its last publish.
#[test]
fn nothing_is_copied_where_it_is_off() {
    let (mut house, watcher) = watched();
    let c = house.connect();
    house.declare(c, "q");
    house.consume(c, "q", 1);
    set(&mut house, false);
    house.put(c, "q", &["one", "two"]);
    assert_eq!(copies(&mut house, watcher), []);
    set(&mut house, true);
    house.put(c, "q", &["three"]);
    let expected = [("publish.", "three"), ("deliver.q", "three")];
    assert_eq!(copies(&mut house, watcher), pairs(&expected));
}

#[test]
fn other_virtual_hosts_are_left_alone() {
    let (mut house, watcher) = watched();
    house.define(Definition::Vhost(VhostDefinition {
        name: "v".into(),
        description: String::new(),
        tags: Vec::new(),
        default_queue_type: None,
        tracing: false,
        protected: false,
        max_connections: None,
        max_mailboxes: None,
    }));
    house.define(Definition::Permission(PermissionDefinition {
        vhost: "v".into(),
        user: "guest".into(),
        configure: ".*".into(),
        write: ".*".into(),
        read: ".*".into(),
    }));
    let c = house.connect_as("guest", "v", true);
    house.declare(c, "q");
    house.consume(c, "q", 1);
    house.put(c, "q", &["one"]);
    assert_eq!(house.bodies(c), ["one"]);
    assert_eq!(copies(&mut house, watcher), []);
}

/// What is refused is not published.
#[rstest]
#[case("no such", "k")]
#[case("amq.rabbitmq.trace", "publish.x")]
fn refused_publish_is_not_copied(#[case] exchange: &str, #[case] key: &str) {
    let (mut house, watcher) = watched();
    let c = house.connect();
    house.publish(c, Post::by(exchange, key, "no"));
    assert_eq!(copies(&mut house, watcher), []);
}

#[test]
fn setting_survives_a_restart() {
    let (mut house, _) = watched();
    house.restart();
    let c = house.connect();
    house.declare(c, "q");
    house.put(c, "q", &["one"]);
    assert_eq!(house.empty(c, "log"), ["one"]);
}
