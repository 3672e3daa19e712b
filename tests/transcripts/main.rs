//! Conversations as files: clients' lines are played through session and broker, servers' lines compared.
//!
//! `UPDATE=1 cargo test --test transcripts` writes what the server says now into the files.

mod amqp_text;
mod house;
mod malformed;
#[path = "../permissions/oracle.rs"]
mod oracle;
mod permissions;

use std::fmt::Write;
use std::path::Path;

use house::House;
use pillarbox::broker::{ChannelId, Command, Holder, Quota, Request, SERVER, Ticket};
use pillarbox::sessions::amqp::Settings;

const LOGIN: [&str; 3] = [
    "0 connection.start-ok client-properties={capabilities={authentication_failure_close=true,\
     basic.nack=true,connection.blocked=true,consumer_cancel_notify=true}} mechanism=PLAIN \
     response=\"\\x00guest\\x00guest\" locale=en_US",
    "0 connection.tune-ok channel-max=2047 frame-max=131072 heartbeat=60",
    "0 connection.open vhost=/",
];

/// How the clients' bytes reach the session.
#[derive(Clone, Copy, PartialEq)]
enum Pace {
    /// Each line at once.
    Lines,
    Bytes,
    /// All lines of a client up to the next answer in one piece.
    Blocks,
}

#[test]
fn amqp_conversations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/amqp");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of transcripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .collect();
    files.sort();
    let mut failed = Vec::new();
    for path in files {
        let expected = std::fs::read_to_string(&path).expect("a transcript");
        let played = play(&expected, Pace::Lines);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &played).expect("a writable transcript");
        } else if played != expected {
            failed.push(format!("{}\n{}", path.display(), difference(&expected, &played)));
            continue;
        }
        assert_eq!(played, play(&played, Pace::Bytes), "{} byte by byte", path.display());
        for client in 1..=9 {
            let blocks = play(&played, Pace::Blocks);
            let (lines, blocks) = (server_lines(&played, client), server_lines(&blocks, client));
            assert_eq!(lines, blocks, "{} in blocks", path.display());
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn server_lines(text: &str, client: u64) -> Vec<&str> {
    let numbered = format!("{}: ", server(client));
    text.lines().filter(|line| line.starts_with(&numbered)).collect()
}

/// A login that is refused or accepted by what is known of the connection.
#[test]
fn guest_comes_from_this_machine_only() {
    let start_ok = "0 connection.start-ok client-properties={capabilities={\
                    authentication_failure_close=true}} mechanism=PLAIN \
                    response=\"\\x00guest\\x00guest\"";
    for (loopback, answer) in [(true, "0 connection.tune"), (false, "0 connection.close code=403")]
    {
        let mut house = House::new(Settings::default());
        house.facts().loopback = loopback;
        assert_login(&mut house, start_ok, answer);
    }
}

#[test]
fn certificate_or_nobody_may_log_in_where_it_is_offered() {
    let settings = Settings { anonymous_user: Some("guest".into()), ..Settings::default() };
    let mut house = House::new(settings);
    house.facts().certificate_user = Some("guest".into());
    assert_login(&mut house, "0 connection.start-ok mechanism=EXTERNAL", "0 connection.tune");
    assert_login(&mut house, "0 connection.start-ok mechanism=ANONYMOUS", "0 connection.tune");
    house.facts().certificate_user = Some("stranger".into());
    assert_login(&mut house, "0 connection.start-ok mechanism=EXTERNAL", "");
}

/// RabbitMQ's texts of a user's limits, which end the connection.
#[test]
fn limits_of_a_user_end_the_connection() {
    let mut house = House::new(Settings::default());
    let limit = |house: &mut House, quota, most| {
        let request = Request::SetQuota { holder: Holder::User("guest".into()), quota, most };
        house.apply(SERVER.0, Command::Request(ChannelId(0), Ticket(0), Box::new(request)));
    };
    limit(&mut house, Quota::Channels, Some(2));
    connect(&mut house, 1);
    let said = say(&mut house, 1, &["1 channel.open", "1 confirm.select", "2 channel.open"]);
    assert_eq!(said, ["1 channel.open-ok", "1 confirm.select-ok", "2 channel.open-ok"]);
    let close = |ids: &str, text: &str| {
        [format!("0 connection.close code=530 text=\"NOT_ALLOWED - {text}\" {ids}")]
    };
    let said = say(&mut house, 1, &["3 channel.open"]);
    let text = "number of channels opened for user 'guest' has reached the maximum allowed user limit of (2)";
    assert_eq!(said, close("class=20 method=10", text));

    limit(&mut house, Quota::Connections, Some(1));
    connect(&mut house, 2);
    house.accept(3);
    house.send(3, &amqp_text::encode("protocol-header"));
    let said = say(&mut house, 3, &LOGIN);
    let text = "connection refused for user 'guest': user connection limit (1) is reached";
    assert_eq!(said[2..], close("class=10 method=40", text));
}

/// Sends the lines, and returns what the server said since last asked.
fn say(house: &mut House, id: u64, lines: &[&str]) -> Vec<String> {
    lines.iter().for_each(|line| house.send(id, &amqp_text::encode(line)));
    amqp_text::decode(&std::mem::take(&mut house.peers.get_mut(&id).expect("a client").wire))
}

fn assert_login(house: &mut House, start_ok: &str, answer: &str) {
    house.accept(1);
    house.send(1, &amqp_text::encode("protocol-header"));
    house.send(1, &amqp_text::encode(start_ok));
    let wire = std::mem::take(&mut house.peers.get_mut(&1).expect("a client").wire);
    let said = amqp_text::decode(&wire);
    let said = said.get(1).map_or("", String::as_str);
    assert!(said.starts_with(answer) && said.is_empty() == answer.is_empty(), "{said}");
}

/// Plays the lines that are not the server's, with what the server says behind each.
fn play(transcript: &str, pace: Pace) -> String {
    let mut house = House::new(Settings::default());
    let mut played = String::new();
    let mut block: Option<(u64, Vec<u8>)> = None;
    let lines: Vec<&str> = transcript.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if is_server(line) {
            continue;
        }
        let _ = writeln!(played, "{line}");
        let Some((who, said)) = line.split_once(": ").filter(|_| !line.starts_with('#')) else {
            continue;
        };
        if let Some(id) = client(who) {
            match said {
                "(connects)" => connect(&mut house, id),
                "(accepted)" => house.accept(id),
                "(greets)" => {
                    house.accept(id);
                    house.send(id, &amqp_text::encode("protocol-header"));
                    house.peers.get_mut(&id).expect("a client").wire.clear();
                }
                "(hangs up)" => house.hang_up(id),
                said => {
                    let bytes = amqp_text::encode(said);
                    match pace {
                        Pace::Lines => house.send(id, &bytes),
                        Pace::Bytes => bytes.iter().for_each(|byte| house.send(id, &[*byte])),
                        Pace::Blocks => {
                            block.get_or_insert((id, Vec::new())).1.extend(bytes);
                            let next = lines.get(at + 1).and_then(|next| next.split_once(": "));
                            let goes_on = next.is_some_and(|(next, said)| {
                                client(next) == Some(id) && !said.starts_with('(')
                            });
                            if let Some((id, bytes)) = block.take_if(|_| !goes_on) {
                                house.send(id, &bytes);
                            }
                        }
                    }
                }
            }
        } else {
            direct(&mut house, said);
        }
        report(&mut house, &mut played);
    }
    played
}

/// Everything up to connection.open-ok, which is not shown.
fn connect(house: &mut House, id: u64) {
    house.accept(id);
    house.send(id, &amqp_text::encode("protocol-header"));
    LOGIN.iter().for_each(|line| house.send(id, &amqp_text::encode(line)));
    house.peers.get_mut(&id).expect("a client").wire.clear();
}

fn is_server(line: &str) -> bool {
    line.split_once(':').is_some_and(|(who, _)| {
        who.strip_prefix('S').is_some_and(|it| it.is_empty() || it.parse::<u64>().is_ok())
    })
}

/// `C` is the first client, `C2` the second.
fn client(who: &str) -> Option<u64> {
    match who.strip_prefix('C')? {
        "" => Some(1),
        number => number.parse().ok(),
    }
}

/// What happens beside the clients: `!: 500 ms`, `!: low on memory`, `!: all is well`, `!: C2 is closed: reason`.
fn direct(house: &mut House, said: &str) {
    if let Some(ms) = said.strip_suffix(" ms") {
        house.pass(ms.parse().expect("milliseconds"));
    } else if let Some((who, reason)) = said.split_once(" is closed: ") {
        house.force_close(client(who).expect("a client"), reason);
    } else {
        house.alarm(said.contains("memory"), said.contains("disk"));
    }
}

fn server(client: u64) -> String {
    if client == 1 { "S".into() } else { format!("S{client}") }
}

fn report(house: &mut House, played: &mut String) {
    for (id, peer) in &mut house.peers {
        let who = server(*id);
        for line in amqp_text::decode(&std::mem::take(&mut peer.wire)) {
            let _ = writeln!(played, "{who}: {line}");
        }
        if let Some(paused) = peer.paused.take() {
            let _ = writeln!(
                played,
                "{who}: ({})",
                if paused { "stops reading" } else { "reads again" }
            );
        }
        if peer.closed {
            let _ = writeln!(played, "{who}: (closes)");
        }
    }
    house.peers.retain(|_, peer| !peer.closed);
}

fn difference(expected: &str, played: &str) -> String {
    let mut shown = String::new();
    let (mut old, mut new) = (expected.lines(), played.lines());
    loop {
        match (old.next(), new.next()) {
            (None, None) => return shown,
            (a, b) if a == b => {}
            (a, b) => {
                let _ = writeln!(shown, "- {}\n+ {}", a.unwrap_or(""), b.unwrap_or(""));
                return shown;
            }
        }
    }
}
