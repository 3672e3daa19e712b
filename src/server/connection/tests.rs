//! The loop of a connection, with a session that speaks lines of text and a broker that is the test.

use bytes::BytesMut;
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;
use crate::broker::{Credential, Name, Open, Table, Ticket};
use crate::server::intake::{Input, Intake, LANE_BATCHES_MAX, lanes};
use crate::server::newcomer::Newcomers;
use crate::server::outbox::Outboxes;
use crate::server::throttle::Patience;
use crate::sessions::Verify;

/// Each line is a wish; what the broker says is written as a line.
#[derive(Default)]
struct Lines {
    deadline: Option<Time>,
    /// Lines wait for a password to be checked.
    waits: bool,
}

impl Session for Lines {
    fn receive(&mut self, input: &mut BytesMut, now: Time, out: &mut Outbox) {
        while !self.waits
            && let Some(end) = input.iter().position(|byte| *byte == b'\n')
        {
            let line = input.split_to(end + 1);
            let line = std::str::from_utf8(&line).unwrap().trim_end();
            let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
            match verb {
                "ask" => out.commands.push(Command::Close(Some(Ticket(rest.parse().unwrap())))),
                "open" => out.commands.push(Command::Open(Box::new(opening()), Ticket(0))),
                "verify" => {
                    self.waits = true;
                    out.verify = Some(verify(rest));
                }
                "alarm" => self.deadline = Some(now.plus_ms(rest.parse().unwrap())),
                "pause" => out.pause_reading = Some(true),
                "panic" => panic!("as the client wished"),
                "quit" => {
                    out.wire.extend_from_slice(b"bye\n");
                    out.close = true;
                }
                _ => out.wire.extend_from_slice(format!("what is {line}?\n").as_bytes()),
            }
        }
    }

    fn notify(&mut self, event: Event, _now: Time, out: &mut Outbox) {
        match event {
            // A delivery of so many bytes.
            Event::Closed(Ticket(size)) if size >= 100 => {
                out.wire.resize(out.wire.len() + size as usize, b'x');
                out.deliveries += 1;
                out.delivery_bytes += size;
            }
            Event::Closed(Ticket(number)) => {
                out.wire.extend_from_slice(format!("answer {number}\n").as_bytes());
            }
            Event::Blocked(None) => out.pause_reading = Some(false),
            Event::ForceClose(_) => out.close = true,
            other => panic!("unexpected {other:?}"),
        }
    }

    fn tick(&mut self, _now: Time, out: &mut Outbox) {
        self.deadline = None;
        out.wire.extend_from_slice(b"time\n");
    }

    fn next_deadline(&self) -> Option<Time> {
        self.deadline
    }

    fn verified(&mut self, accepted: bool, _now: Time, out: &mut Outbox) {
        self.waits = false;
        out.wire.extend_from_slice(if accepted { b"welcome\n" } else { b"refused\n" });
    }

    fn flush(&mut self, _out: &mut Outbox) {}
}

fn opening() -> Open {
    Open {
        user: Name::from("guest"),
        vhost: Name::from("/"),
        protocol: "lines",
        peer: String::new(),
        local: String::new(),
        client_name: None,
        client_properties: Table::new(),
        mechanism: "PLAIN",
        strict_channels: false,
        cancel_notify: false,
    }
}

/// RabbitMQ's documented example: the password is test12.
fn verify(password: &str) -> Verify {
    Verify {
        user: "anna".into(),
        password: password.into(),
        credential: Some(Credential {
            password_hash: "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR".into(),
            hashing: "rabbit_password_hashing_sha256".into(),
            ..Credential::default()
        }),
    }
}

const PATIENCE: Patience = Patience { failures_max: 10, failures_per_minute: 5 };

const LIMITS: Limits = Limits {
    login_timeout_ms: 10_000,
    write_stall_ms: 30_000,
    input_max: 1 << 20,
    window_deliveries: 100,
    window_bytes: 10_000,
};

fn origin() -> Origin {
    let end = ([10, 0, 0, 1], 1).into();
    Origin { peer: end, local: end }
}

struct Stage {
    requests: Requests,
    intake: Intake,
    outboxes: Outboxes,
    inputs: VecDeque<Input>,
    /// One may be there that has not logged in.
    newcomers: Arc<Newcomers>,
}

struct Client {
    id: ConnectionId,
    socket: DuplexStream,
    task: JoinHandle<End>,
}

impl Stage {
    fn new() -> Self {
        let (requests, intake) = lanes();
        Self {
            requests,
            intake,
            outboxes: Outboxes::default(),
            inputs: VecDeque::new(),
            newcomers: Newcomers::new(1),
        }
    }

    async fn connect(&mut self, id: u64, socket_size: usize) -> Client {
        let id = ConnectionId(id);
        let (socket, far) = duplex(socket_size);
        let house = House {
            requests: self.requests.clone(),
            verifier: Arc::new(Verifier::new(PATIENCE).unwrap()),
            clock: Clock::start(),
            limits: LIMITS,
        };
        let session = Box::new(Lines::default());
        let newcomer = self.newcomers.enter(origin().peer);
        let task = tokio::spawn(drive(far, id, session, origin(), newcomer, house, Span::none()));
        assert_eq!(self.next().await, format!("{} joined", id.0));
        Client { id, socket, task }
    }

    /// The next input, as text: who, and what.
    async fn next(&mut self) -> String {
        while self.inputs.is_empty() {
            self.intake.take(true, &mut self.inputs).await;
        }
        match self.inputs.pop_front().unwrap() {
            Input::Joined(id, queue) => {
                self.outboxes.add(id, queue);
                format!("{} joined", id.0)
            }
            Input::Left(id) => format!("{} left", id.0),
            Input::Batch(batch) => {
                let words = batch.commands.iter().map(|command| match command {
                    Command::Close(Some(Ticket(number))) => number.to_string(),
                    Command::Open(..) => "open".into(),
                    Command::Drained { deliveries, bytes } => {
                        format!("drained {deliveries}/{bytes}")
                    }
                    other => panic!("unexpected {other:?}"),
                });
                format!("{} asks {}", batch.from.0, words.collect::<Vec<_>>().join(" "))
            }
        }
    }

    fn say(&mut self, to: ConnectionId, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.outboxes.push(to, event);
        }
        self.outboxes.flush();
    }
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    async fn expect(&mut self, text: &str) {
        let mut heard = vec![0; text.len()];
        self.socket.read_exact(&mut heard).await.unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), text);
    }

    async fn end(self) -> String {
        self.task.await.unwrap().to_string()
    }
}

fn answer(number: u64) -> Event {
    Event::Closed(Ticket(number))
}

#[tokio::test]
async fn one_read_is_one_batch_and_answers_come_back() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1000).await;
    client.send("ask 1\nask 2\nask 3\nas").await;
    assert_eq!(stage.next().await, "1 asks 1 2 3");
    stage.say(client.id, [answer(1), answer(2)]);
    client.expect("answer 1\nanswer 2\n").await;
    client.send("k 4\nhello\n").await;
    client.expect("what is hello?\n").await;
    assert_eq!(stage.next().await, "1 asks 4");
}

#[tokio::test]
async fn while_the_broker_is_busy_nothing_is_read_but_events_are_written() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 100).await;
    let mut other =
        Lane::join(stage.requests.clone(), ConnectionId(2), Arc::default()).await.unwrap();
    for number in 0..LANE_BATCHES_MAX as u64 - 1 {
        let mut commands = vec![Command::Close(Some(Ticket(number)))];
        poll_fn(|context| other.poll_send(&mut commands, context)).await.unwrap();
    }
    client.send("ask 7\n").await;
    tokio::task::yield_now().await;
    client.send("hello\n").await;
    stage.say(client.id, [answer(1)]);
    client.expect("answer 1\n").await;
    stage.say(client.id, [answer(2)]);
    client.expect("answer 2\n").await;
    while stage.next().await != "1 asks 7" {}
    client.expect("what is hello?\n").await;
}

#[tokio::test]
async fn a_panic_in_a_session_costs_this_connection_only() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1000).await;
    let mut other = stage.connect(2, 1000).await;
    client.send("ask 1\n").await;
    assert_eq!(stage.next().await, "1 asks 1");
    client.send("ask 2\npanic\n").await;
    assert_eq!(stage.next().await, "1 left");
    assert_eq!(client.end().await, "the session failed; this is a bug");
    other.send("hello\n").await;
    other.expect("what is hello?\n").await;
}

#[tokio::test]
async fn what_was_asked_before_the_socket_ended_still_counts() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1000).await;
    client.send("ask 1\n").await;
    drop(client.socket);
    assert_eq!(stage.next().await, "1 asks 1");
    assert_eq!(stage.next().await, "1 left");
    assert_eq!(client.task.await.unwrap().to_string(), "the client went away");
}

#[tokio::test]
async fn last_words_are_written_before_the_socket_closes() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 3).await;
    let socket = &mut client.socket;
    let (mut read, mut write) = tokio::io::split(socket);
    write.write_all(b"ask 1\nquit\n").await.unwrap();
    let mut heard = String::new();
    let (_, asked) = tokio::join!(read.read_to_string(&mut heard), stage.next());
    assert_eq!((heard.as_str(), asked.as_str()), ("bye\n", "1 asks 1"));
    assert_eq!(stage.next().await, "1 left");
    assert_eq!(client.end().await, "closed");
}

#[tokio::test]
async fn drained_deliveries_ride_with_other_commands() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1000).await;
    stage.say(client.id, [answer(100), answer(150)]);
    client.expect(&"x".repeat(250)).await;
    client.send("ask 1\n").await;
    assert_eq!(stage.next().await, "1 asks 1 drained 2/250");
}

#[tokio::test]
async fn a_quarter_of_the_window_is_reported_alone() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1000).await;
    stage.say(client.id, [answer(2600)]);
    client.expect(&"x".repeat(2600)).await;
    assert_eq!(stage.next().await, "1 asks drained 1/2600");
    stage.say(client.id, (0..25).map(|_| answer(100)));
    client.expect(&"x".repeat(2500)).await;
    assert_eq!(stage.next().await, "1 asks drained 25/2500");
}

#[tokio::test]
async fn deliveries_are_drained_when_the_socket_took_them() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1000).await;
    stage.say(client.id, [answer(5000)]);
    client.expect(&"x".repeat(3000)).await;
    client.send("ask 1\n").await;
    assert_eq!(stage.next().await, "1 asks 1");
    client.expect(&"x".repeat(2000)).await;
    assert_eq!(stage.next().await, "1 asks drained 1/5000");
}

#[tokio::test]
async fn events_are_encoded_in_slices() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1000).await;
    let size = 3 * WIRE_SLICE as u64 / 4;
    stage.say(client.id, (0..8).map(|_| answer(size)));
    for _ in 0..4 {
        client.expect(&"x".repeat(2 * size as usize)).await;
        assert_eq!(stage.next().await, format!("1 asks drained 2/{}", 2 * size));
    }
}

#[rstest]
#[case("test12", "welcome\n")]
#[case("test13", "refused\n")]
#[tokio::test]
async fn a_password_is_checked_while_input_waits(#[case] password: &str, #[case] expected: &str) {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1000).await;
    client.send(&format!("verify {password}\nhello\n")).await;
    client.expect(expected).await;
    client.expect("what is hello?\n").await;
}

#[tokio::test]
async fn a_paused_connection_reads_on_when_told() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1000).await;
    client.send("pause\n").await;
    tokio::task::yield_now().await;
    client.send("hello\n").await;
    tokio::task::yield_now().await;
    stage.say(client.id, [answer(1)]);
    client.expect("answer 1\n").await;
    stage.say(client.id, [Event::Blocked(None)]);
    client.expect("what is hello?\n").await;
}

#[tokio::test(start_paused = true)]
async fn the_session_is_called_at_its_deadline() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1000).await;
    let start = tokio::time::Instant::now();
    client.send("alarm 2500\n").await;
    client.expect("time\n").await;
    assert_eq!(start.elapsed().as_millis(), 2500);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_log_in_is_cut_off() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1000).await;
    client.send("hello\n").await;
    assert_eq!(client.end().await, "no login in time");

    assert_eq!(stage.next().await, "1 left");
    let mut client = stage.connect(2, 1000).await;
    client.send("open\n").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!client.task.is_finished());
}

#[tokio::test]
async fn input_before_login_is_bounded() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1 << 20).await;
    client.send(&"x".repeat(200_000)).await;
    assert_eq!(client.end().await, "more than 65536 bytes before login");

    assert_eq!(stage.next().await, "1 left");
    let mut client = stage.connect(2, 1 << 20).await;
    client.send("open\n").await;
    while stage.next().await != "2 asks open" {}
    client.send(&"x".repeat(200_000)).await;
    client.send("\n").await;
    client.expect("what is xxx").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_is_cut_off() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1000).await;
    client.send("open\n").await;
    // Quiet for long, which is no stall.
    tokio::time::sleep(Duration::from_secs(100)).await;
    stage.say(client.id, [answer(5000)]);
    tokio::time::sleep(Duration::from_secs(29)).await;
    client.expect(&"x".repeat(500)).await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert!(!client.task.is_finished());
    assert_eq!(client.end().await, "the client stopped reading");
}

#[tokio::test]
async fn a_severed_connection_ends_although_its_client_does_not_read() {
    let mut stage = Stage::new();
    let client = stage.connect(1, 10).await;
    stage.say(client.id, [answer(5000)]);
    tokio::task::yield_now().await;
    stage.outboxes.sever();
    assert_eq!(client.end().await, "the server did not wait any longer");
}

#[tokio::test]
async fn whoever_has_logged_in_makes_room_for_another() {
    let mut stage = Stage::new();
    let mut client = stage.connect(1, 1000).await;
    client.send("hello\n").await;
    client.expect("what is hello?\n").await;
    assert!(stage.newcomers.enter(origin().peer).is_none());
    client.send("open\n").await;
    assert_eq!(stage.next().await, "1 asks open");
    let another = stage.newcomers.enter(origin().peer);
    assert!(another.is_some());
    drop(another);
    let other = stage.connect(2, 1000).await;
    assert!(stage.newcomers.enter(origin().peer).is_none());
    drop(other.socket);
    assert!(matches!(other.task.await, Ok(End::ClientGone)));
    assert!(stage.newcomers.enter(origin().peer).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_gives_back_its_memory() {
    let mut stage = Stage::new();
    let (socket, far) = duplex(1000);
    let queue = Arc::new(EventQueue::default());
    let lane = Lane::join(stage.requests.clone(), ConnectionId(1), queue.clone()).await.unwrap();
    assert_eq!(stage.next().await, "1 joined");
    let house = House {
        requests: stage.requests.clone(),
        verifier: Arc::new(Verifier::new(PATIENCE).unwrap()),
        clock: Clock::start(),
        limits: LIMITS,
    };
    let session = Box::new(Lines::default());
    let origin = origin();
    let mut conversation = Conversation::new(far, session, origin, None, lane, queue, house);
    let mut client =
        Client { id: ConnectionId(1), socket, task: tokio::spawn(async { End::Closed }) };
    client.send("open\n").await;
    stage.say(client.id, (0..900).map(|_| answer(1)));
    let mut heard = vec![0; 900 * "answer 1\n".len()];
    let mut poll = |context: &mut Context<'_>| conversation.poll(&Span::none(), context);
    tokio::select! {
        biased;
        end = poll_fn(&mut poll) => panic!("{end}"),
        _ = client.socket.read_exact(&mut heard) => {}
    }
    assert!(tokio::time::timeout(Duration::from_secs(9), poll_fn(&mut poll)).await.is_err());
    assert!(tokio::time::timeout(Duration::from_secs(9), poll_fn(&mut poll)).await.is_err());
    assert_eq!(conversation.out.wire.capacity(), 0);
    assert_eq!(conversation.events.capacity(), 0);
    assert_eq!(conversation.socket.input.capacity(), 0);
}
