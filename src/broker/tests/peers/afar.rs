//! Clients of one host and mailboxes of another.

use super::super::house::{ONE, Seen, TWO};
use super::super::request::{consume, declare, delete, exchange, mailbox, purge, table, text};
use super::*;

/// Two hosts; `work` lives on the second, with these messages.
fn with_work(bodies: &[&str]) -> Hosts {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].declare("work");
    it.hosts[B].put("work", bodies);
    it.settle();
    it
}

impl Hosts {
    fn client(&self) -> ConnectionId {
        self.hosts[A].client
    }

    fn lax(&mut self) -> ConnectionId {
        self.hosts[A].house.connect_lax()
    }

    #[track_caller]
    fn consume(&mut self, client: ConnectionId, change: impl FnOnce(&mut Consume)) {
        let mut consume = consume("work", 1);
        change(&mut consume);
        self.ask_as(A, client, Request::Consume(consume)).expect("a consumer");
    }

    fn seen(&mut self, client: ConnectionId) -> Vec<Seen> {
        self.settle();
        self.hosts[A].house.seen(client)
    }

    fn bodies(&mut self, client: ConnectionId) -> Vec<String> {
        self.seen(client).into_iter().map(|it| it.body).collect()
    }

    fn end(&mut self, client: ConnectionId, seen: &Seen, outcome: Outcome) {
        self.hosts[A].house.settle(client, seen, outcome);
        self.settle();
    }

    fn got(&mut self, client: ConnectionId) -> Option<(Seen, u64)> {
        let get = Request::Get { mailbox: "work".into(), no_ack: false };
        match self.ask_as(A, client, get).expect("an answer") {
            Reply::Got(got) => got.map(|got| {
                let (delivery, left) = *got;
                let body = String::from_utf8_lossy(delivery.message.body()).into_owned();
                (Seen { body, redelivered: delivery.redelivered, consumer: 0, delivery }, left)
            }),
            other => panic!("got {other:?}"),
        }
    }

    /// Ready and held at home.
    fn at_home(&self) -> (u64, usize) {
        let work = self.hosts[B].house.mailbox("work");
        (work.ready, work.leases.len())
    }

    /// The text of a refusal that comes from another host.
    #[track_caller]
    fn refused(&mut self, client: ConnectionId, request: Request) -> String {
        self.ask_as(A, client, request).expect_err("a refusal").to_string()
    }
}

fn look() -> Request {
    Request::DeclareMailbox(DeclareMailbox { passive: true, ..declare("work", &[]) })
}

#[test]
fn a_mailbox_of_another_host_is_consumed_as_if_it_were_here() {
    let mut it = with_work(&["1", "2"]);
    let client = it.client();
    it.consume(client, |_| {});
    let seen = it.seen(client);
    assert_eq!(seen.iter().map(|it| &*it.body).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(it.at_home(), (0, 2));
    it.end(client, &seen[0], Outcome::Accepted);
    it.end(client, &seen[1], Outcome::Released);
    let again = it.seen(client);
    assert_eq!((again[0].body.as_str(), again[0].redelivered), ("2", true));
    it.hosts[A].put("work", &["3"]);
    it.end(client, &again[0], Outcome::Accepted);
    assert_eq!(it.bodies(client), ["3"]);
    assert_eq!(it.at_home(), (0, 1));
    assert!(!it.hosts[A].house.exists("work"));
    it.check();
}

#[test]
fn outcomes_are_those_of_its_home() {
    let mut it = Hosts::new(&["a", "b"]);
    let dead = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
    it.hosts[B].ask(mailbox("work", &dead)).expect("declared");
    it.hosts[B].declare("dead");
    it.hosts[B].put("work", &["1", "2"]);
    it.settle();
    let client = it.client();
    let (first, left) = it.got(client).expect("a message");
    assert_eq!((first.body.as_str(), left), ("1", 1));
    it.end(client, &first, Outcome::Rejected);
    assert_eq!(it.hosts[B].house.ready("dead"), 1);
    let (second, _) = it.got(client).expect("a message");
    it.end(client, &second, Outcome::Modified { delay_ms: Some(5000) });
    assert!(it.got(client).is_none());
    it.hosts[B].house.wait(5000);
    let (second, _) = it.got(client).expect("a message");
    assert!(second.redelivered);
    it.check();
}

#[test]
fn counts_are_those_of_its_home() {
    let mut it = with_work(&["1", "2", "3"]);
    let client = it.client();
    let counts = |it: &mut Hosts, request| match it.ask_as(A, client, request) {
        Ok(Reply::Declared { name, ready, consumers }) => (name.to_string(), ready, consumers),
        other => panic!("{other:?}"),
    };
    assert_eq!(counts(&mut it, look()), ("work".into(), 3, 0));
    it.consume(client, |it| it.prefetch = 1);
    assert_eq!(counts(&mut it, mailbox("work", &[])), ("work".into(), 2, 1));
    // Publishers need no more than what was known.
    it.cut_all(B);
    assert_eq!(counts(&mut it, mailbox("work", &[])), ("work".into(), 0, 0));
}

#[test]
fn a_prefetch_and_a_limit_of_the_channel_bound_what_comes() {
    let mut it = with_work(&["1", "2", "3", "4", "5"]);
    let client = it.client();
    it.consume(client, |it| it.prefetch = 2);
    let seen = it.seen(client);
    assert_eq!(seen.len(), 2);
    it.end(client, &seen[0], Outcome::Accepted);
    assert_eq!(it.bodies(client), ["3"]);
    // Another channel, whose limit was there before it had anything to do with the other host.
    let house = &mut it.hosts[A].house;
    let limit = |limit| Request::Qos { limit, scope: QosScope::Channel };
    house.ask_on(client, TWO, limit(1)).expect("a limit");
    house.send(client, TWO, Request::Consume(consume("work", 2)));
    assert_eq!(it.bodies(client), ["4"]);
    it.hosts[A].house.ask_on(client, TWO, limit(2)).expect("a limit");
    assert_eq!(it.bodies(client), ["5"]);
    it.check();
}

#[test]
fn a_link_that_breaks_ends_consumers_and_returns_what_they_held() {
    let mut it = with_work(&["1", "2"]);
    let client = it.lax();
    it.consume(client, |it| it.prefetch = 1);
    let held = it.seen(client).remove(0);
    let house = &mut it.hosts[A].house;
    house.send(client, ONE, Request::Get { mailbox: "work".into(), no_ack: true });
    house.send(client, ONE, look());
    house.send(client, ONE, Request::Consume(consume("work", 2)));
    it.cut(A, B);
    let house = &mut it.hosts[A].house;
    let away = "no: home host 'b' of queue 'work' in vhost '/' is down or inaccessible";
    assert_eq!(house.told(client), [away, "yes", away, "cancelled 1"]);
    // Nobody holds it any longer, and who settles it late does no harm.
    it.end(client, &held, Outcome::Accepted);
    assert_eq!(it.at_home(), (2, 0));
    assert_eq!(it.hosts[A].house.told(client), Vec::<String>::new());
    let refused = it.refused(client, Request::Consume(consume("work", 3)));
    assert_eq!(format!("no: {refused}"), away);
    // Once it is back, so is the mailbox.
    it.link(A, B);
    it.settle();
    it.consume(client, |it| it.consumer = ConsumerId(4));
    let seen = it.seen(client);
    assert_eq!((seen[0].body.as_str(), seen[0].redelivered), ("1", true));
    it.check();
}

#[test]
fn a_home_that_dies_and_comes_back_gives_everything_again() {
    let mut it = with_work(&["1", "2"]);
    let client = it.client();
    it.consume(client, |_| {});
    let seen = it.seen(client);
    it.end(client, &seen[0], Outcome::Accepted);
    it.cut_all(B);
    it.hosts[B].crash();
    it.link(A, B);
    it.link(B, A);
    it.settle();
    assert_eq!(it.hosts[A].house.told(client), ["cancelled 1"]);
    it.consume(client, |_| {});
    let seen = it.seen(client);
    assert_eq!((seen.len(), seen[0].body.as_str(), seen[0].redelivered), (1, "2", true));
}

#[test]
fn what_a_client_holds_returns_with_its_channel_and_its_connection() {
    let mut it = with_work(&["1", "2"]);
    let client = it.lax();
    let other = it.lax();
    it.consume(client, |it| it.prefetch = 1);
    let first = it.seen(client).remove(0);
    let (second, _) = it.got(other).expect("a message");
    assert_eq!(it.at_home(), (0, 2));
    it.hosts[A].house.close_channel(client, ONE);
    it.settle();
    assert_eq!(it.at_home(), (1, 1));
    it.hosts[A].house.close(other);
    it.settle();
    assert_eq!(it.at_home(), (2, 0));
    assert_eq!((first.body.as_str(), second.body.as_str()), ("1", "2"));
    // The channel's number says nothing about those who had it before.
    it.hosts[A].house.settle(client, &first, Outcome::Accepted);
    assert!(it.hosts[A].house.told(client)[0].starts_with("no: unknown delivery"));
    it.check();
}

#[test]
fn a_cancelled_consumer_keeps_what_it_holds() {
    let mut it = with_work(&["1", "2"]);
    let client = it.client();
    it.consume(client, |it| it.prefetch = 1);
    let held = it.seen(client).remove(0);
    assert!(it.ask_as(A, client, Request::Cancel(ConsumerId(1))).is_ok());
    it.end(client, &held, Outcome::Accepted);
    assert_eq!(it.bodies(client), Vec::<String>::new());
    assert_eq!(it.at_home(), (1, 0));
    // Cancelled on its way, and so is the channel.
    it.consume(client, |_| {});
    let ticket = it.hosts[A].house.send(client, ONE, Request::Cancel(ConsumerId(1)));
    it.hosts[A].house.close_channel(client, ONE);
    assert!(matches!(it.hosts[A].house.answer(client, ticket), Some(Ok(Reply::Done))));
    it.settle();
    assert_eq!(it.at_home(), (1, 0));
}

#[test]
fn what_a_channel_recovers_comes_again() {
    let mut it = with_work(&["1"]);
    let client = it.client();
    it.consume(client, |_| {});
    let first = it.seen(client).remove(0);
    it.ask_as(A, client, Request::Recover).expect("done");
    let again = it.seen(client).remove(0);
    assert!(again.redelivered);
    it.end(client, &again, Outcome::Accepted);
    assert_eq!(it.at_home(), (0, 0));
    it.end(client, &first, Outcome::Accepted);
    assert!(it.hosts[A].house.told(client)[0].starts_with("no: unknown delivery"));
}

#[test]
fn a_mailbox_of_another_host_is_purged_browsed_and_deleted() {
    let mut it = with_work(&["1", "2", "3"]);
    let client = it.lax();
    let (held, _) = it.got(client).expect("a message");
    assert_eq!(held.body, "1");
    let mut seen = Vec::new();
    let mut after = None;
    // One message in each step.
    loop {
        let (mailbox, states, selector) = ("work".into(), States::ALL, None);
        let browse = Browse { mailbox, states, selector, after, count: 1, bytes_max: 1000 };
        let found = it.ask_as(A, client, Request::Browse(browse));
        let Ok(Reply::Browsed(Browsed { found, next, ready: 2 })) = found else { panic!() };
        let row = |it: &Found| (it.at.state, it.message.body().to_vec(), it.holder.is_some());
        seen.extend(found.iter().map(row));
        after = next;
        if after.is_none() {
            break;
        }
    }
    let row = |state, body: &str, held| (state, body.as_bytes().to_vec(), held);
    let ready = [row(State::Ready, "2", false), row(State::Ready, "3", false)];
    assert_eq!(seen, [&ready[..], &[row(State::Unsettled, "1", true)]].concat());
    it.end(client, &held, Outcome::Released);
    assert!(matches!(it.ask_as(A, client, purge("work")), Ok(Reply::Counted(3))));
    it.hosts[B].put("work", &["4"]);
    let delete_empty =
        Request::DeleteMailbox { name: "work".into(), if_unused: false, if_empty: true };
    assert_eq!(it.refused(client, delete_empty), "queue 'work' in vhost '/' not empty");
    it.consume(client, |_| {});
    assert!(matches!(it.ask_as(A, client, delete("work")), Ok(Reply::Counted(0))));
    assert_eq!(it.hosts[A].house.told(client), ["cancelled 1"]);
    assert!(!it.hosts[B].house.exists("work"));
    it.check();
}

#[test]
fn a_mailbox_that_went_a_moment_ago_can_be_declared_here() {
    let mut it = with_work(&[]);
    let client = it.client();
    // Its host says so over its own link, which is slower.
    let back = it.links.iter().position(|it| it.from == B).expect("a link");
    let slow = it.links.remove(back);
    assert!(it.ask_as(A, client, delete("work")).is_ok());
    assert!(it.ask_as(A, client, mailbox("work", &[])).is_ok());
    assert!(it.hosts[A].house.exists("work"));
    it.links.push(slow);
    it.settle();
    it.hosts[B].put("work", &["1"]);
    it.settle();
    assert_eq!(it.hosts[A].empty("work"), ["1"]);
}

#[test]
fn a_binding_is_made_where_the_mailbox_lives_and_brings_its_exchange() {
    let mut it = with_work(&[]);
    let client = it.client();
    it.hosts[A].ask(exchange("news", "topic", &[])).expect("declared");
    let bind = || binding("news", "work", "sport.#");
    it.ask_as(A, client, Request::Bind(bind())).expect("bound");
    it.settle();
    it.hosts[A].house.publish(client, Post::by("news", "sport.x", "1"));
    it.hosts[A].house.publish(client, Post::by("news", "other", "2"));
    let b = it.hosts[B].client;
    it.hosts[B].house.publish(b, Post::by("news", "sport", "3"));
    it.settle();
    let mut all = it.hosts[B].empty("work");
    all.sort();
    assert_eq!(all, ["1", "3"]);
    it.ask_as(A, client, Request::Unbind(bind())).expect("unbound");
    it.settle();
    it.hosts[A].house.publish(client, Post::by("news", "sport.x", "4"));
    it.settle();
    assert_eq!(it.hosts[B].empty("work"), Vec::<String>::new());
}

#[test]
fn an_exchange_that_stays_on_its_host_is_not_bound_to_another_ones_mailbox() {
    let mut it = with_work(&[]);
    let client = it.lax();
    it.hosts[A].house.exchange(client, "spread", "x-consistent-hash");
    let refused = it.refused(client, Request::Bind(binding("spread", "work", "1")));
    let expected = "exchange 'spread' in vhost '/' of type 'x-consistent-hash' does not reach queue 'work' on host 'b'";
    assert_eq!(refused, expected);
}

fn user(house: &mut House, name: &str, read: &str) {
    house.user(name, ["", "", read]);
}

#[test]
fn permissions_are_those_of_the_host_where_the_client_is() {
    let mut it = with_work(&["1"]);
    // The other host never heard of them.
    user(&mut it.hosts[A].house, "ann", "^work$");
    user(&mut it.hosts[A].house, "bob", "^other$");
    let ann = it.hosts[A].house.connect_as("ann", "/", false);
    let bob = it.hosts[A].house.connect_as("bob", "/", false);
    let get = || Request::Get { mailbox: "work".into(), no_ack: false };
    let forbidden = "read access to queue 'work' in vhost '/' refused for user 'bob'";
    for request in [get(), Request::Consume(consume("work", 1)), purge("work")] {
        assert_eq!(it.refused(bob, request), forbidden);
    }
    assert!(it.refused(ann, delete("work")).starts_with("configure access to queue 'work'"));
    let bind = Request::Bind(binding("amq.topic", "work", "#"));
    assert!(it.refused(ann, bind).starts_with("write access to queue 'work'"));
    it.consume(ann, |_| {});
    assert_eq!(it.bodies(ann), ["1"]);
    it.hosts[A].house.define(Definition::Permission(PermissionDefinition {
        vhost: "/".into(),
        user: "ann".into(),
        configure: "".into(),
        write: "".into(),
        read: "".into(),
    }));
    assert_eq!(it.hosts[A].house.told(ann), ["cancelled 1"]);
    it.settle();
    it.hosts[B].put("work", &["2"]);
    it.settle();
    assert_eq!(it.bodies(ann), Vec::<String>::new());
    assert_eq!(it.at_home().0, 1);
}

#[test]
fn a_client_that_does_not_read_holds_its_messages_back_at_their_home() {
    let mut it = Hosts::new(&["a", "b"]);
    for host in &mut it.hosts {
        host.house.settings.window_deliveries = 10;
        host.crash();
    }
    it.links.clear();
    it.link(A, B);
    it.link(B, A);
    it.hosts[B].declare("work");
    for n in 0..100 {
        it.hosts[B].put("work", &[&n.to_string()]);
    }
    it.settle();
    it.hosts[A].house.drains = false;
    let client = it.client();
    it.consume(client, |it| it.no_ack = true);
    let mut count = it.bodies(client).len();
    assert_eq!((count, it.at_home().0), (10, 90));
    while count < 100 {
        it.hosts[A].house.apply(client, Command::Drained { deliveries: 10, bytes: 20 });
        let more = it.bodies(client).len();
        assert_eq!(more, 10);
        count += more;
    }
    assert_eq!(it.at_home(), (0, 0));
}

#[test]
fn a_link_that_does_not_write_holds_all_its_clients_back() {
    let mut it = with_work(&[]);
    let limit = u64::from(it.hosts[B].house.settings.window_deliveries);
    for n in 0..limit + 100 {
        it.hosts[B].put("work", &[&n.to_string()]);
    }
    let clients = [it.lax(), it.lax()];
    for client in clients {
        let mut consume = consume("work", 1);
        consume.no_ack = true;
        it.hosts[A].house.send(client, ONE, Request::Consume(consume));
    }
    // The questions go over, the answers are not written.
    let at = it.links.iter().position(|it| it.from == A).expect("a link");
    it.carry(at);
    let given = limit + 100 - it.at_home().0;
    assert!((limit..=2 * limit).contains(&given), "{given}");
    it.hosts[B].put("work", &["late"]);
    let (link, waits) = (it.links[at].guest, it.at_home().0);
    assert!(it.hosts[B].house.broker.connections[&link].held_back);
    assert!(waits > 0);
    it.settle();
    let all: usize = clients.map(|client| it.bodies(client).len()).iter().sum();
    assert_eq!(all as u64, limit + 101);
}

#[test]
fn a_third_host_is_not_asked_in_its_place() {
    let mut it = Hosts::new(&["a", "b", "c"]);
    it.hosts[C].declare("work");
    it.settle();
    // The first host believes that the mailbox is on the second.
    let guest = it.links.iter().find(|it| it.from == A && it.to == B).expect("a link").guest;
    let open = Open {
        user: "x".into(),
        vhost: "/".into(),
        protocol: VISITOR_PROTOCOL,
        peer: String::new(),
        local: String::new(),
        client_name: None,
        client_properties: Table::new(),
        mechanism: "",
        strict_channels: false,
        cancel_notify: true,
    };
    let get = Request::Get { mailbox: "work".into(), no_ack: true };
    for command in
        [Command::Open(Box::new(open), Ticket(0)), Command::Request(ONE, Ticket(5), Box::new(get))]
    {
        it.ask(B, guest, Peering::Visit { visit: 900, command });
    }
    let told = it.hosts[B].house.told(guest).join("");
    assert!(told.contains("visit: 900") && told.contains("Elsewhere { host: \"c\""), "{told}");
}

#[test]
fn who_looks_at_a_mailbox_is_told_where_it_lives() {
    let mut it = with_work(&[]);
    let client = it.lax();
    let (vhost, work) = (Name::from("/"), Name::from("work"));
    for look in [
        inspect::Inspect::Mailbox { vhost: vhost.clone(), name: work.clone() },
        inspect::Inspect::Consumers { vhost, mailbox: work },
    ] {
        let refused = it.refused(client, Request::Inspect(look));
        assert_eq!(refused, "queue 'work' in vhost '/' lives on host 'b'");
    }
}

#[test]
fn only_what_reads_can_be_asked_from_afar() {
    let mut it = with_work(&["1"]);
    let guest = it.links.iter().find(|it| it.from == A).expect("a link").guest;
    // Before it has come in, and what nobody may ask.
    let publish = Command::Publish(Post::to("work", "no").publish(it.hosts[B].house.now));
    let alarm = Command::Alarm { memory: true, disk: true };
    for command in [publish, alarm, Command::Close(None)] {
        it.ask(B, guest, Peering::Visit { visit: 1, command });
    }
    it.settle();
    assert_eq!(it.at_home(), (1, 0));
    assert_eq!(it.hosts[B].house.told(guest), Vec::<String>::new());
}

#[test]
fn an_exclusive_mailbox_is_its_own_connections_only() {
    let mut it = Hosts::new(&["a", "b"]);
    let mut own = declare("work", &[]);
    own.exclusive = true;
    it.hosts[B].ask(Request::DeclareMailbox(own)).expect("declared");
    it.settle();
    let client = it.lax();
    let locked = "cannot obtain exclusive access to locked queue 'work' in vhost '/'";
    for request in [look(), Request::Consume(consume("work", 1)), purge("work"), delete("work")] {
        assert!(it.refused(client, request).starts_with(locked));
    }
}

#[test]
fn an_operator_at_home_ends_a_client_of_another_host() {
    let mut it = with_work(&["1"]);
    let client = it.client();
    it.consume(client, |_| {});
    let house = &mut it.hosts[B].house;
    let visitor = *house.broker.connections.keys().find(|it| it.is_visitor()).expect("a visitor");
    let end = Request::Disconnect { connection: visitor, reason: "enough".into() };
    house.ask(SERVER, end).expect("done");
    it.settle();
    assert_eq!(it.hosts[A].house.told(client), ["cancelled 1"]);
    assert_eq!(it.at_home(), (1, 0));
    // It may come again.
    it.seen(client);
    it.consume(client, |_| {});
    assert_eq!(it.bodies(client), ["1"]);
    it.check();
}

#[test]
fn a_stream_of_another_host_is_read_from_any_place() {
    let mut it = Hosts::new(&["a", "b"]);
    it.hosts[B].ask(mailbox("work", &[("x-queue-type", text("stream"))])).expect("declared");
    it.hosts[B].put("work", &["0", "1", "2", "3"]);
    it.settle();
    let client = it.client();
    it.consume(client, |it| {
        it.prefetch = 2;
        it.arguments = table(&[("x-stream-offset", Value::I64(1))]);
    });
    let seen = it.seen(client);
    let offsets: Vec<_> = seen.iter().map(|it| (it.body.clone(), it.delivery.offset)).collect();
    assert_eq!(offsets, [("1".into(), Some(1)), ("2".into(), Some(2))]);
    for seen in &seen {
        it.end(client, seen, Outcome::Accepted);
    }
    assert_eq!(it.bodies(client), ["3"]);
    it.check();
}

#[test]
fn settlements_from_afar_can_be_part_of_a_transaction() {
    let mut it = with_work(&["1"]);
    it.hosts[A].declare("done");
    let client = it.client();
    it.consume(client, |_| {});
    let seen = it.seen(client).remove(0);
    let publish = Post::to("done", "1").publish(it.hosts[A].house.now);
    let settle = super::super::request::settlement(ONE, &seen, Outcome::Accepted);
    let commit = Request::Commit(vec![Command::Publish(publish), Command::Settle(settle)]);
    it.ask_as(A, client, commit).expect("committed");
    assert_eq!(it.at_home(), (0, 0));
    assert_eq!(it.hosts[A].empty("done"), ["1"]);
}
