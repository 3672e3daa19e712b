//! How much users and virtual hosts may have.

use rstest::rstest;

use super::house::*;
use super::request::*;
use crate::broker::inspect::{Inspect, Inspection};
use crate::broker::*;

fn set(holder: Holder, quota: Quota, most: impl Into<Option<u64>>) -> Request {
    Request::SetQuota { holder, quota, most: most.into() }
}

fn guest() -> Holder {
    Holder::User("guest".into())
}

fn root() -> Holder {
    Holder::Vhost("/".into())
}

fn limited(house: &mut House) -> Vec<(Holder, Quota, u64)> {
    let request = Request::Inspect(Inspect::Quotas { after: 0, count: 100 });
    match house.ask(SERVER, request) {
        Ok(Reply::Inspection(found)) => match *found {
            Inspection::Quotas(found) => {
                found.into_iter().map(|it| (it.holder, it.quota, it.most)).collect()
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case(
    guest(),
    Quota::Connections,
    "connection refused for user 'guest': user connection limit (2) is reached"
)]
#[case(
    root(),
    Quota::Connections,
    "access to vhost '/' refused for user 'guest': connection limit (2) is reached"
)]
fn further_connections_are_refused(
    #[case] holder: Holder,
    #[case] quota: Quota,
    #[case] text: &str,
) {
    let mut house = House::new();
    let one = house.connect();
    house.ask(SERVER, set(holder.clone(), quota, 2)).unwrap();
    house.connect();
    assert_eq!(house.try_connect("guest", "/", true).unwrap_err().to_string(), text);
    house.close(one);
    let two = house.connect();
    assert!(house.try_connect("guest", "/", true).is_err());
    // A lower number throws nobody out; without one there is no end.
    house.ask(SERVER, set(holder.clone(), quota, 0)).unwrap();
    assert!(house.told(two).is_empty());
    house.close(two);
    assert!(house.try_connect("guest", "/", true).is_err());
    house.ask(SERVER, set(holder, quota, None)).unwrap();
    house.connect();
}

#[test]
fn broker_has_a_limit_of_its_own_that_is_looked_at_first() {
    let mut house = House::with(Settings { connections_max: Some(1), ..Settings::default() });
    let one = house.connect();
    let text = "connection refused: node connection limit (1) is reached";
    assert_eq!(house.try_connect("guest", "/", true).unwrap_err().to_string(), text);
    assert_eq!(house.try_connect("guest", "no such", true).unwrap_err().to_string(), text);
    house.close(one);
    house.connect();
}

#[test]
fn limits_are_looked_at_before_rights() {
    let mut house = House::new();
    house.ask(SERVER, set(root(), Quota::Connections, 0)).unwrap();
    let text = "access to vhost '/' refused for user 'nobody': connection limit (0) is reached";
    assert_eq!(house.try_connect("nobody", "/", true).unwrap_err().to_string(), text);
}

#[test]
fn channels_are_counted_over_all_connections_of_a_user() {
    let mut house = House::new();
    let (one, two) = (house.connect(), house.connect());
    let open = |house: &mut House, by, channel| house.ask_on(by, channel, Request::OpenChannel);
    house.ask(SERVER, set(guest(), Quota::Channels, 2)).unwrap();
    open(&mut house, one, ONE).unwrap();
    open(&mut house, two, ONE).unwrap();
    let text = "number of channels opened for user 'guest' has reached the maximum allowed user limit of (2)";
    let refused = open(&mut house, two, TWO).unwrap_err();
    assert_eq!(refused, Refusal::NotAllowed(text.into()));
    house.close(one);
    open(&mut house, two, ChannelId(3)).unwrap();
}

#[test]
fn mailboxes_of_a_virtual_host_are_counted() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.ask(SERVER, set(root(), Quota::Mailboxes, 1)).unwrap();
    house.declare(c, "a");
    let text = "cannot declare queue 'b': queue limit in vhost '/' (1) is reached";
    let lax = house.connect_lax();
    assert_eq!(house.refused(lax, mailbox("b", &[])), text);
    house.ask(lax, delete("a")).unwrap();
    house.declare(lax, "b");
}

#[test]
fn numbers_outlive_a_restart_and_a_new_password() {
    let mut house = House::new();
    house.ask(SERVER, set(guest(), Quota::Connections, 5)).unwrap();
    house.ask(SERVER, set(guest(), Quota::Channels, 6)).unwrap();
    house.ask(SERVER, set(root(), Quota::Mailboxes, 7)).unwrap();
    let mut user = house.broker.access.user("guest").unwrap().clone();
    (user.max_connections, user.max_channels) = (None, Some(8));
    house.define(Definition::User(user));
    let vhost = VhostDefinition {
        name: "/".into(),
        description: "another".into(),
        tags: Vec::new(),
        default_queue_type: None,
        tracing: false,
        protected: false,
        max_connections: None,
        max_mailboxes: None,
    };
    house.define(Definition::Vhost(vhost));
    house.restart();
    let expected = [
        (guest(), Quota::Connections, 5),
        (guest(), Quota::Channels, 8),
        (root(), Quota::Mailboxes, 7),
    ];
    assert_eq!(limited(&mut house), expected);
    house.ask(SERVER, set(guest(), Quota::Channels, None)).unwrap();
    house.restart();
    assert_eq!(limited(&mut house).len(), 2);
}

#[test]
fn administrators_set_numbers_of_what_there_is() {
    let mut house = House::new();
    let user = Definition::User(UserDefinition {
        name: "ann".into(),
        credential: Credential::default(),
        max_connections: None,
        max_channels: None,
    });
    let [configure, write, read] = [(); 3].map(|()| ".*".to_owned());
    let (vhost, ann) = ("/".into(), "ann".into());
    let permission = PermissionDefinition { vhost, user: ann, configure, write, read };
    house.define(user);
    house.define(Definition::Permission(permission));
    let ann = house.connect_as("ann", "/", false);
    let text = "user 'ann' is not an administrator";
    assert_eq!(house.refused(ann, set(guest(), Quota::Connections, 1)), text);
    let all = Request::Inspect(Inspect::Quotas { after: 0, count: 1 });
    assert_eq!(house.refused(ann, all), text);
    for (holder, quota, text) in [
        (Holder::User("x".into()), Quota::Connections, "no user 'x'"),
        (Holder::Vhost("x".into()), Quota::Connections, "vhost x not found"),
        (guest(), Quota::Mailboxes, "users have no limit max-queues"),
        (root(), Quota::Channels, "virtual hosts have no limit max-channels"),
    ] {
        assert_eq!(house.refused(SERVER, set(holder, quota, 1)), text);
    }
    assert!(limited(&mut house).is_empty());
}
