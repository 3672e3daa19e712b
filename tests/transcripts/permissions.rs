//! Every method against configure, write and read patterns, as a client meets it: what is refused, in which words and on
//! whose behalf. What to expect is said by a table of needs and an oracle without regular expressions, which the other
//! protocols' matrices share (`tests/permissions`).

use pillarbox::broker::{
    ChannelId, Command, Credential, Definition, PermissionDefinition, Request, SERVER, Ticket,
    TopicPermissionDefinition, UserDefinition,
};
use pillarbox::sessions::amqp::Settings;

use crate::amqp_text::{decode, encode};
use crate::house::House;
use crate::oracle::{KEYS, Need, SHAPES, Shape, missing, text};

struct Operation {
    lines: &'static [&'static str],
    /// Class and method that a refusal names.
    ids: (u16, u16),
    needs: &'static [Need],
}

const OPERATIONS: [Operation; 26] = [
    operation(&["1 queue.declare queue=ab durable"], (50, 10), &[('c', "queue", "ab")]),
    operation(&["1 queue.declare queue=abx2"], (50, 10), &[('c', "queue", "abx2")]),
    operation(
        &["1 queue.declare queue=abx2 arguments={x-dead-letter-exchange=\"abx\"}"],
        (50, 10),
        &[('c', "queue", "abx2"), ('r', "queue", "abx2"), ('w', "exchange", "abx")],
    ),
    operation(&["1 queue.delete queue=ab"], (50, 40), &[('c', "queue", "ab")]),
    operation(&["1 queue.purge queue=ab"], (50, 30), &[('r', "queue", "ab")]),
    operation(
        &["1 queue.bind queue=ab exchange=abx key=k"],
        (50, 20),
        &[('w', "queue", "ab"), ('r', "exchange", "abx")],
    ),
    operation(
        &["1 queue.unbind queue=ab exchange=abx key=k"],
        (50, 50),
        &[('w', "queue", "ab"), ('r', "exchange", "abx")],
    ),
    operation(
        &["1 queue.bind queue=ab exchange=abt key=k.bad"],
        (50, 20),
        &[('w', "queue", "ab"), ('r', "exchange", "abt"), ('r', "abt", "k.bad")],
    ),
    operation(
        &["1 queue.unbind queue=ab exchange=abt key=k.bad"],
        (50, 50),
        &[('w', "queue", "ab"), ('r', "exchange", "abt"), ('r', "abt", "k.bad")],
    ),
    operation(
        &["1 exchange.declare exchange=abx type=direct"],
        (40, 10),
        &[('c', "exchange", "abx")],
    ),
    operation(
        &["1 exchange.declare exchange=abx2 type=direct arguments={alternate-exchange=\"abx\"}"],
        (40, 10),
        &[('c', "exchange", "abx2"), ('r', "exchange", "abx2"), ('w', "exchange", "abx")],
    ),
    operation(&["1 exchange.delete exchange=abx"], (40, 20), &[('c', "exchange", "abx")]),
    operation(
        &["1 exchange.bind destination=aby source=abx key=k"],
        (40, 30),
        &[('w', "exchange", "aby"), ('r', "exchange", "abx")],
    ),
    operation(
        &["1 exchange.unbind destination=aby source=abx key=k"],
        (40, 40),
        &[('w', "exchange", "aby"), ('r', "exchange", "abx")],
    ),
    operation(
        &["1 basic.publish exchange=abx key=k", "1 header size=0"],
        (60, 40),
        &[('w', "exchange", "abx")],
    ),
    operation(
        &["1 basic.publish key=ab", "1 header size=0"],
        (60, 40),
        &[('w', "exchange", "amq.default")],
    ),
    operation(
        &["1 basic.publish exchange=abt key=k.bad", "1 header size=0"],
        (60, 40),
        &[('w', "exchange", "abt"), ('w', "abt", "k.bad")],
    ),
    operation(
        &["1 basic.publish exchange=abt key=k", "1 header size=0 headers={CC=[\"l.bad\"]}"],
        (60, 40),
        &[('w', "exchange", "abt"), ('w', "abt", "l.bad")],
    ),
    operation(
        &["1 basic.publish exchange=abt key=k", "1 header size=0 headers={BCC=[\"l\",\"m.bad\"]}"],
        (60, 40),
        &[('w', "exchange", "abt"), ('w', "abt", "m.bad")],
    ),
    operation(
        &["1 tx.select", "1 basic.publish exchange=abx key=k", "1 header size=0", "1 tx.commit"],
        (60, 40),
        &[('w', "exchange", "abx")],
    ),
    operation(&["1 basic.get queue=ab no-ack"], (60, 70), &[('r', "queue", "ab")]),
    operation(&["1 basic.consume queue=ab consumer=c"], (60, 20), &[('r', "queue", "ab")]),
    operation(&["1 basic.qos count=1", "1 basic.recover requeue"], (0, 0), &[]),
    operation(&["1 basic.cancel consumer=nobody", "1 confirm.select"], (0, 0), &[]),
    // `?` stands for any of the three.
    operation(&["1 queue.declare queue=ab passive"], (50, 10), &[('?', "queue", "ab")]),
    operation(&["1 exchange.declare exchange=abx passive"], (40, 10), &[('?', "exchange", "abx")]),
];

const fn operation(
    lines: &'static [&'static str],
    ids: (u16, u16),
    needs: &'static [Need],
) -> Operation {
    Operation { lines, ids, needs }
}

/// The close that a client must see; `None` where nothing is missing.
fn expected(operation: &Operation, shapes: [Shape; 3]) -> Option<String> {
    let missing = missing(operation.needs, shapes)?;
    let (class, method) = operation.ids;
    let code = if missing.0 == '?' { "404 text=\"NOT_FOUND" } else { "403 text=\"ACCESS_REFUSED" };
    Some(format!("1 channel.close code={code} - {}\" class={class} method={method}", text(missing)))
}

fn define(house: &mut House, definition: Definition) {
    let request = Box::new(Request::Define(definition));
    house.apply(SERVER.0, Command::Request(ChannelId(0), Ticket(0), request));
}

fn say(house: &mut House, id: u64, lines: &[&str]) -> Vec<String> {
    lines.iter().for_each(|line| house.send(id, &encode(line)));
    decode(&std::mem::take(&mut house.peers.get_mut(&id).expect("a client").wire))
}

fn connect(house: &mut House, id: u64, user: &str) {
    house.accept(id);
    house.send(id, &encode("protocol-header"));
    let login =
        format!("0 connection.start-ok mechanism=PLAIN response=\"\\x00{user}\\x00{user}\"");
    let lines = [
        &*login,
        "0 connection.tune-ok channel-max=2047 frame-max=131072",
        "0 connection.open vhost=/",
        "1 channel.open",
    ];
    let said = say(house, id, &lines);
    assert_eq!(said.last().map(String::as_str), Some("1 channel.open-ok"));
}

/// The guest puts everything back where it was.
const SCENE: [&str; 6] = [
    "1 queue.delete queue=abx2",
    "1 exchange.delete exchange=abx2",
    "1 queue.declare queue=ab durable",
    "1 exchange.declare exchange=abx type=direct",
    "1 exchange.declare exchange=aby type=fanout",
    "1 exchange.declare exchange=abt type=topic",
];

#[test]
fn every_method_is_refused_to_whom_it_is_not_allowed() {
    let mut house = House::new(Settings::default());
    connect(&mut house, 1, "guest");
    define(
        &mut house,
        Definition::User(UserDefinition {
            name: "ann".into(),
            credential: Credential::default(),
            max_connections: None,
            max_channels: None,
        }),
    );
    define(
        &mut house,
        Definition::TopicPermission(TopicPermissionDefinition {
            vhost: "/".into(),
            user: "ann".into(),
            exchange: "abt".into(),
            write: KEYS.into(),
            read: KEYS.into(),
        }),
    );
    let (mut allowed, mut refused, mut id) = (0, 0, 1);
    for configure in SHAPES {
        for write in SHAPES {
            for read in SHAPES {
                let shapes = [configure, write, read];
                let [configure, write, read] = shapes.map(|(pattern, _)| pattern.to_owned());
                let (vhost, user) = ("/".into(), "ann".into());
                let permission = PermissionDefinition { vhost, user, configure, write, read };
                define(&mut house, Definition::Permission(permission));
                for operation in &OPERATIONS {
                    let scene = say(&mut house, 1, &SCENE);
                    assert_eq!(scene.len(), SCENE.len(), "{scene:?}");
                    id += 1;
                    connect(&mut house, id, "ann");
                    let said = say(&mut house, id, operation.lines);
                    let close = said.iter().find(|line| line.contains(".close "));
                    let patterns = shapes.map(|(pattern, _)| pattern);
                    let lines = operation.lines;
                    assert_eq!(
                        close,
                        expected(operation, shapes).as_ref(),
                        "{lines:?} {patterns:?}"
                    );
                    *(if close.is_none() { &mut allowed } else { &mut refused }) += 1;
                    house.hang_up(id);
                }
            }
        }
    }
    assert!(allowed > 700 && refused > 700, "{allowed} allowed, {refused} refused");
}

/// A number that an operator sets counts for connections that are there already.
#[test]
fn channels_of_a_user_are_counted_on_open_connections() {
    let mut house = House::new(Settings::default());
    connect(&mut house, 1, "guest");
    let user = |max_channels| {
        Definition::User(UserDefinition {
            name: "ann".into(),
            credential: Credential::default(),
            max_connections: None,
            max_channels,
        })
    };
    define(&mut house, user(None));
    let permission = PermissionDefinition {
        vhost: "/".into(),
        user: "ann".into(),
        configure: ".*".into(),
        write: ".*".into(),
        read: ".*".into(),
    };
    define(&mut house, Definition::Permission(permission));
    connect(&mut house, 2, "ann");
    assert_eq!(say(&mut house, 2, &["2 channel.open"]), ["2 channel.open-ok"]);
    define(&mut house, user(Some(3)));
    assert_eq!(say(&mut house, 2, &["3 channel.open"]), ["3 channel.open-ok"]);
    assert_eq!(
        say(&mut house, 2, &["4 channel.open"]),
        [
            "0 connection.close code=530 text=\"NOT_ALLOWED - number of channels opened for user 'ann' has reached the \
          maximum allowed user limit of (3)\" class=20 method=10"
        ]
    );
}
