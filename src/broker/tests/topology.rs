//! Declaring, deleting and binding: what is there, what is refused, and in which words.

use rstest::rstest;

use super::house::*;
use super::request::*;
use crate::broker::*;

fn passive(name: &str) -> Request {
    let mut wanted = declare(name, &[]);
    wanted.passive = true;
    Request::DeclareMailbox(wanted)
}

fn passive_exchange(name: &str) -> Request {
    let Request::DeclareExchange(mut wanted) = exchange(name, "", &[]) else { unreachable!() };
    wanted.passive = true;
    Request::DeclareExchange(wanted)
}

#[test]
fn declaration_tells_messages_and_consumers() {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "a");
    house.put(c, "a", &["1", "2"]);
    house.consume_with(c, "a", 1, |it| it.prefetch = 1);
    for request in [mailbox("a", &[]), passive("a")] {
        let reply = house.ask(c, request).unwrap();
        assert!(matches!(reply, Reply::Declared { ready: 1, consumers: 1, .. }), "{reply:?}");
    }
}

#[rstest]
#[case(&[], &[("x-message-ttl", int(1))], "x-message-ttl", "received the value '1' of type 'long' but current is none")]
#[case(&[("x-message-ttl", Value::I32(1))], &[], "x-message-ttl", "received none but current is the value '1' of type 'signedint'")]
#[case(&[("x-message-ttl", int(1))], &[("x-message-ttl", int(2))], "x-message-ttl", "received '2' but current is '1'")]
#[case(&[("x-overflow", text("drop-head"))], &[("x-overflow", text("reject-publish"))], "x-overflow", "received 'reject-publish' but current is 'drop-head'")]
#[case(&[], &[("x-max-length", int(1)), ("x-dead-letter-exchange", text("d"))], "x-dead-letter-exchange", "received the value 'd' of type 'longstr' but current is none")]
#[case(&[], &[("x-queue-type", text("quorum"))], "x-queue-type", "received the value 'quorum' of type 'longstr' but current is none")]
#[case(&[("x-single-active-consumer", Value::Bool(true))], &[], "x-single-active-consumer", "received none but current is the value 'true' of type 'bool'")]
fn other_arguments_are_refused_in_rabbitmq_s_words(
    #[case] first: &[(&str, Value)],
    #[case] second: &[(&str, Value)],
    #[case] argument: &str,
    #[case] difference: &str,
) {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", first);
    let expected =
        format!("inequivalent arg '{argument}' for queue 'a' in vhost '/': {difference}");
    assert_eq!(house.refused(c, mailbox("a", second)), expected);
}

#[rstest]
#[case(&[("x-message-ttl", Value::I32(9))], &[("x-message-ttl", int(9))])]
#[case(&[("x-queue-type", text("classic"))], &[])]
#[case(&[], &[("x-unheard-of", int(1)), ("x-queue-mode", text("lazy"))])]
fn same_declaration_is_repeated_freely(
    #[case] first: &[(&str, Value)],
    #[case] second: &[(&str, Value)],
) {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", first);
    house.declare_with(c, "a", second);
}

#[test]
fn flags_are_compared_before_arguments() {
    let mut house = House::new();
    let c = house.connect_lax();
    house.declare(c, "a");
    let mut wanted = declare("a", &[("x-max-length", int(1))]);
    wanted.auto_delete = true;
    let refused = house.refused(c, Request::DeclareMailbox(wanted.clone()));
    let text = "inequivalent arg 'auto_delete' for queue 'a' in vhost '/': received 'true' but current is 'false'";
    assert_eq!(refused, text);
    wanted.durable = false;
    let refused = house.refused(c, Request::DeclareMailbox(wanted.clone()));
    assert!(refused.starts_with("inequivalent arg 'durable'"), "{refused}");
    wanted.exclusive = true;
    assert!(matches!(house.ask(c, Request::DeclareMailbox(wanted)), Err(Refusal::Locked { .. })));
}

#[rstest]
#[case(&[("x-message-ttl", text("1"))], "x-message-ttl", "\"expected integer, got longstr\"")]
#[case(&[("x-message-ttl", int(-1))], "x-message-ttl", "{value_negative,-1}")]
#[case(&[("x-message-ttl", int(315_360_000_001))], "x-message-ttl", "{value_too_large,315360000001}")]
#[case(&[("x-expires", int(0))], "x-expires", "{value_zero,0}")]
#[case(&[("x-max-priority", int(256))], "x-max-priority", "{max_value_exceeded,256}")]
#[case(&[("x-overflow", text("no"))], "x-overflow", "invalid_overflow")]
#[case(&[("x-dead-letter-routing-key", text("k"))], "x-dead-letter-routing-key", "routing_key_but_no_dlx_defined")]
#[case(&[("x-queue-type", text("pipe"))], "x-queue-type", "\"unsupported queue type 'pipe'\"")]
#[case(&[("x-queue-mode", text("busy"))], "x-queue-mode", "\"unsupported queue mode 'busy'\"")]
#[case(&[("x-queue-version", int(3))], "x-queue-version", "\"unsupported queue version '3'\"")]
fn wrong_arguments_are_refused(
    #[case] arguments: &[(&str, Value)],
    #[case] argument: &str,
    #[case] reason: &str,
) {
    let mut house = House::new();
    let c = house.connect();
    let expected = format!("invalid arg '{argument}' for queue 'a' in vhost '/': {reason}");
    assert_eq!(house.refused(c, mailbox("a", arguments)), expected);
    assert!(!house.exists("a"));
}

#[test]
fn a_type_without_a_name_is_none() {
    let mut house = House::new();
    let c = house.connect();
    house.declare_with(c, "a", &[("x-queue-type", text(""))]);
    house.declare(c, "a");
    house.declare_with(c, "a", &[("x-queue-type", text("undefined"))]);
}

#[test]
fn lasting_types_want_a_name() {
    let mut house = House::new();
    let c = house.connect_lax();
    let mut wanted = declare("amq.gen-1", &[("x-queue-type", text("quorum"))]);
    wanted.generated = true;
    assert_eq!(
        house.refused(c, Request::DeclareMailbox(wanted.clone())),
        "Cannot declare a server-named queue for type rabbit_quorum_queue"
    );
    wanted.generated = false;
    wanted.name = "a".into();
    wanted.exclusive = true;
    assert_eq!(
        house.refused(c, Request::DeclareMailbox(wanted)),
        "invalid property 'exclusive-owner' for queue 'a' in vhost '/'"
    );
}

#[test]
fn reserved_names_are_not_for_clients() {
    let mut house = House::new();
    let c = house.connect_lax();
    assert_eq!(
        house.refused(c, mailbox("amq.mine", &[])),
        "queue name 'amq.mine' contains reserved prefix 'amq.*'"
    );
    assert_eq!(
        house.refused(c, exchange("amq.mine", "direct", &[])),
        "exchange name 'amq.mine' contains reserved prefix 'amq.*'"
    );
    house.ask(c, exchange("amq.direct", "direct", &[])).unwrap();
    let mut generated = declare("amq.gen-1", &[]);
    generated.generated = true;
    house.ask(c, Request::DeclareMailbox(generated)).unwrap();
}

#[test]
fn default_exchange_is_left_alone() {
    let mut house = House::new();
    let c = house.connect_lax();
    house.declare(c, "a");
    let text = "operation not permitted on the default exchange";
    for request in [
        exchange("", "direct", &[]),
        passive_exchange(""),
        Request::DeleteExchange { name: "".into(), if_unused: false },
        Request::Bind(binding("", "a", "k")),
        Request::Unbind(binding("", "a", "a")),
        Request::Bind(BindingOf {
            destination: Destination::Exchange("".into()),
            ..binding("amq.direct", "", "k")
        }),
    ] {
        assert_eq!(house.refused(c, request), text);
    }
}

#[test]
fn missing_things_have_their_texts() {
    let mut house = House::new();
    let c = house.connect_lax();
    house.declare(c, "a");
    let queue = "no queue 'x' in vhost '/'";
    for request in [
        passive("x"),
        purge("x"),
        Request::Get { mailbox: "x".into(), no_ack: true },
        Request::Consume(consume("x", 1)),
        Request::Bind(binding("amq.direct", "x", "k")),
    ] {
        assert_eq!(house.refused(c, request), queue);
    }
    let no_exchange = "no exchange 'x' in vhost '/'";
    assert_eq!(house.refused(c, passive_exchange("x")), no_exchange);
    assert_eq!(house.refused(c, Request::Bind(binding("x", "a", "k"))), no_exchange);
    // What is not there needs no deleting and is not bound.
    assert!(matches!(house.ask(c, delete("x")), Ok(Reply::Counted(0))));
    house.ask(c, Request::DeleteExchange { name: "x".into(), if_unused: true }).unwrap();
    house.ask(c, Request::Unbind(binding("amq.direct", "x", "k"))).unwrap();
    house.ask(c, Request::Unbind(binding("x", "a", "k"))).unwrap();
    house.ask(c, Request::Unbind(binding("amq.direct", "a", "k"))).unwrap();
    assert_eq!(house.refused(c, exchange("y", "tube", &[])), "unknown exchange type 'tube'");
    assert_eq!(
        house.refused(c, Request::DeleteExchange { name: "amq.direct".into(), if_unused: false }),
        "deletion of system exchange 'amq.direct' in vhost '/' not allowed"
    );
}

#[test]
fn exclusive_mailbox_is_locked_for_others_and_goes_with_its_connection() {
    let mut house = House::new();
    let owner = house.connect();
    let other = house.connect_lax();
    let mut own = declare("own", &[]);
    own.exclusive = true;
    house.ask(owner, Request::DeclareMailbox(own.clone())).unwrap();
    // It is stored nowhere, so durable makes no difference.
    own.durable = false;
    house.ask(owner, Request::DeclareMailbox(own.clone())).unwrap();
    house.consume(owner, "own", 1);
    let text = "cannot obtain exclusive access to locked queue 'own' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration.";
    for request in [
        Request::DeclareMailbox(own.clone()),
        mailbox("own", &[]),
        passive("own"),
        Request::Bind(binding("amq.direct", "own", "k")),
        Request::Consume(consume("own", 1)),
        Request::Get { mailbox: "own".into(), no_ack: true },
        purge("own"),
        delete("own"),
    ] {
        assert_eq!(house.refused(other, request), text);
    }
    assert!(matches!(house.ask(owner, mailbox("own", &[])), Err(Refusal::Locked { .. })));
    house.apply(owner, Command::Close(Some(Ticket(99))));
    assert_eq!(house.told(owner), ["closed"]);
    assert!(!house.exists("own"));
    house.ask(other, Request::DeclareMailbox(own)).unwrap();
}

#[test]
fn delete_asks_for_unused_and_empty() {
    let mut house = House::new();
    let c = house.connect_lax();
    house.declare(c, "a");
    house.put(c, "a", &["1"]);
    house.consume_with(c, "a", 1, |it| it.prefetch = 1);
    house.put(c, "a", &["2"]);
    let delete =
        |if_unused, if_empty| Request::DeleteMailbox { name: "a".into(), if_unused, if_empty };
    assert_eq!(house.refused(c, delete(true, true)), "queue 'a' in vhost '/' in use");
    assert_eq!(house.refused(c, delete(false, true)), "queue 'a' in vhost '/' not empty");
    assert!(matches!(house.ask(c, delete(false, false)), Ok(Reply::Counted(1))));
}

#[test]
fn used_exchange_is_not_deleted_if_asked_so() {
    let mut house = House::new();
    let c = house.connect_lax();
    house.declare(c, "a");
    house.exchange(c, "x", "direct");
    house.bind(c, "x", "a", "k");
    let delete = |if_unused| Request::DeleteExchange { name: "x".into(), if_unused };
    assert_eq!(house.refused(c, delete(true)), "exchange 'x' in vhost '/' in use");
    house.ask(c, delete(false)).unwrap();
    house.exchange(c, "x", "direct");
    house.publish(c, Post::by("x", "k", "1").mandatory());
    assert_eq!(house.told(c), ["returned 1"], "its bindings went with it");
}

#[test]
fn binding_to_what_is_not_durable_is_not_stored() {
    let mut house = House::new();
    let c = house.connect();
    let mut wanted = declare("a", &[]);
    wanted.durable = false;
    house.ask(c, Request::DeclareMailbox(wanted)).unwrap();
    house.bind(c, "amq.direct", "a", "k");
    assert!(!house.disk.definitions.keys().any(|key| key.kind == DefinitionKind::Binding));
    house.ask(c, delete("a")).unwrap();
    house.crash();
    let c = house.connect();
    house.declare(c, "a");
    house.bind(c, "amq.direct", "a", "k");
    house.crash();
    let c = house.connect();
    house.publish(c, Post::by("amq.direct", "k", "1"));
    assert_eq!(house.ready("a"), 1);
}

#[test]
fn default_queue_type_of_the_virtual_host_applies_where_it_fits() {
    let mut house = House::new();
    let mut vhost = house.broker.vhosts["/"].definition.clone();
    vhost.default_queue_type = Some("quorum".into());
    house.define(Definition::Vhost(vhost));
    let c = house.connect();
    house.declare(c, "a");
    assert_eq!(house.mailbox("a").limits.delivery_limit, Some(20));
    house.declare(c, "a");
    house.declare_with(c, "classic", &[("x-queue-type", text("classic"))]);
    assert_eq!(house.mailbox("classic").limits.delivery_limit, None);
    let mut own = declare("own", &[]);
    own.exclusive = true;
    house.ask(c, Request::DeclareMailbox(own)).unwrap();
    assert_eq!(house.mailbox("own").limits.kind, MailboxKind::Classic);
    house.crash();
    assert_eq!(house.mailbox("a").limits.kind, MailboxKind::Quorum);
}

#[test]
fn virtual_hosts_are_apart_and_have_limits() {
    let mut house = House::new();
    house.define(Definition::Vhost(VhostDefinition {
        name: "v".into(),
        description: String::new(),
        tags: Vec::new(),
        default_queue_type: None,
        tracing: false,
        protected: false,
        max_connections: Some(1),
        max_mailboxes: Some(1),
    }));
    house.define(Definition::Permission(PermissionDefinition {
        vhost: "v".into(),
        user: "guest".into(),
        configure: ".*".into(),
        write: ".*".into(),
        read: ".*".into(),
    }));
    let c = house.connect();
    house.declare(c, "a");
    let v = house.connect_as("guest", "v", true);
    assert_eq!(
        house.try_connect("guest", "v", true).unwrap_err().to_string(),
        "access to vhost 'v' refused for user 'guest': connection limit (1) is reached"
    );
    house.declare(v, "a");
    house.declare(v, "a");
    let text = "cannot declare queue 'b': queue limit in vhost 'v' (1) is reached";
    assert_eq!(house.refused(v, mailbox("b", &[])), text);
    house.put(c, "a", &["1"]);
    let found = house.broker.find(&"v".into(), "a").unwrap();
    assert_eq!((found.ready, house.ready("a")), (0, 1));
    let key = DefinitionKey { kind: DefinitionKind::Vhost, path: vec!["v".into()] };
    house.ask(SERVER, Request::Undefine(key)).unwrap();
    assert_eq!(house.told(v), ["closed by force: vhost 'v' is deleted"]);
    house.close(v);
    let gone = house.try_connect("guest", "v", true).unwrap_err().to_string();
    assert_eq!(gone, "vhost v not found");
    assert_eq!(house.disk.mailboxes.len(), 1);
    assert_eq!(house.disk.definitions.len(), 4, "/, guest, the permission, the mailbox");
    house.check_books();
}

#[test]
fn protected_virtual_hosts_are_not_deleted() {
    let mut house = House::new();
    let vhost = |protected| VhostDefinition {
        name: "v".into(),
        description: String::new(),
        tags: Vec::new(),
        default_queue_type: None,
        tracing: false,
        protected,
        max_connections: None,
        max_mailboxes: None,
    };
    house.define(Definition::Vhost(vhost(true)));
    house.crash();
    let key = DefinitionKey { kind: DefinitionKind::Vhost, path: vec!["v".into()] };
    let refused = house.ask(SERVER, Request::Undefine(key.clone())).unwrap_err().to_string();
    assert_eq!(refused, "vhost 'v' cannot be deleted: it is protected from deletion");
    assert!(house.broker.vhosts.contains_key("v"));
    house.define(Definition::Vhost(vhost(false)));
    house.ask(SERVER, Request::Undefine(key)).unwrap();
    assert!(!house.broker.vhosts.contains_key("v"));
}

#[test]
fn user_has_a_limit_of_connections() {
    let mut house = House::new();
    let mut guest = house.broker.access.user("guest").unwrap().clone();
    guest.max_connections = Some(1);
    house.define(Definition::User(guest));
    let c = house.connect();
    assert!(matches!(house.try_connect("guest", "/", true), Err(Refusal::NotAllowed(_))));
    house.close(c);
    house.connect();
}
