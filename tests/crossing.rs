//! A message on its way from AMQP to STOMP and back.

use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use pillarbox::config::{Address, Config};
use pillarbox::server::{Protocol, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

async fn server() -> Server {
    let mut config = Config::default();
    config.store.in_memory = true;
    let anywhere = Address::At(([127, 0, 0, 1], 0).into());
    (config.listen.amqp, config.listen.stomp) = (anywhere, anywhere);
    (config.listen.http, config.listen.native) = (Address::Off, Address::Off);
    Server::start(config).await.expect("the server starts")
}

async fn amqp(server: &Server) -> (Connection, Channel) {
    let uri = format!("amqp://guest:guest@{}/%2f", server.amqp_address().expect("a listener"));
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await.expect("in");
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    for queue in ["there", "back"] {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("a queue");
    }
    (connection, channel)
}

async fn take(channel: &Channel, queue: &str) -> (BasicProperties, Vec<u8>) {
    let options = BasicGetOptions { no_ack: true };
    let got =
        channel.basic_get(queue.into(), options).await.expect("an answer").expect("a message");
    (got.delivery.properties, got.delivery.data)
}

struct Stomp(TcpStream);

impl Stomp {
    async fn open(server: &Server) -> Self {
        let address = server.address(Protocol::Stomp).expect("the listener is there");
        let mut stomp = Self(TcpStream::connect(address).await.expect("in"));
        stomp.say(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0").await;
        assert!(stomp.hear().await.0.starts_with("CONNECTED\n"));
        stomp
    }

    async fn say(&mut self, frame: &[u8]) {
        self.0.write_all(frame).await.expect("taken");
    }

    /// Head and body of the next frame.
    async fn hear(&mut self) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\n\n") || head.len() == 2 {
            match timeout(PATIENCE, self.0.read_u8()).await.expect("a frame").expect("a byte") {
                b'\n' if head.is_empty() => {}
                byte => head.push(byte),
            }
        }
        let head = String::from_utf8(head).expect("text");
        let length = header(&head, "content-length").map_or(0, |it| it.parse().expect("a number"));
        let mut body = vec![0; length + 1];
        self.0.read_exact(&mut body).await.expect("the body");
        assert_eq!(body.pop(), Some(0));
        (head, body)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

#[tokio::test]
async fn message_keeps_what_stomp_can_carry() {
    let server = server().await;
    let (_connection, channel) = amqp(&server).await;
    let mut headers = FieldTable::default();
    headers.insert("text".into(), AMQPValue::LongString("h\u{e4}user: a\nb".into()));
    headers.insert("number".into(), AMQPValue::LongInt(-7));
    headers.insert("truth".into(), AMQPValue::Boolean(true));
    headers.insert("table".into(), AMQPValue::FieldTable(FieldTable::default()));
    let properties = BasicProperties::default()
        .with_content_type("application/octet-stream".into())
        .with_content_encoding("identity".into())
        .with_delivery_mode(2)
        .with_priority(4)
        .with_correlation_id("correlation".into())
        .with_reply_to("back".into())
        .with_expiration("60000".into())
        .with_message_id("message".into())
        .with_timestamp(1_700_000_000)
        .with_type("kind".into())
        .with_user_id("guest".into())
        .with_app_id("app".into())
        .with_headers(headers);
    let body = b"\0 bytes \xff\n\0";
    let options = BasicPublishOptions::default();
    channel
        .basic_publish("".into(), "there".into(), options, body, properties.clone())
        .await
        .expect("sent")
        .await
        .expect("confirmed");

    let mut stomp = Stomp::open(&server).await;
    stomp.say(b"SUBSCRIBE\nid:0\ndestination:/amq/queue/there\nack:client\n\n\0").await;
    let (head, heard) = stomp.hear().await;
    assert_eq!(heard, body);
    for (name, value) in [
        ("destination", "/queue/there"),
        ("content-type", "application/octet-stream"),
        ("content-encoding", "identity"),
        ("persistent", "true"),
        ("priority", "4"),
        ("correlation-id", "correlation"),
        ("reply-to", "/reply-queue/back"),
        ("expiration", "60000"),
        ("amqp-message-id", "message"),
        ("timestamp", "1700000000"),
        ("type", "kind"),
        ("user-id", "guest"),
        ("app-id", "app"),
        ("text", "h\u{e4}user\\c a\\nb"),
        ("number", "-7"),
        ("truth", "true"),
    ] {
        assert_eq!(header(&head, name), Some(value), "{name} of {head}");
    }
    assert_eq!(header(&head, "table"), None);

    // Everything that the client was given goes into a new message.
    let own = ["destination:", "message-id:", "subscription:", "ack:", "redelivered:"];
    let kept = head.lines().skip(1).filter(|line| !own.iter().any(|own| line.starts_with(own)));
    let kept: Vec<&str> = kept.filter(|line| !line.is_empty()).collect();
    let mut frame =
        format!("SEND\ndestination:/reply-queue/back\n{}\n\n", kept.join("\n")).into_bytes();
    frame.extend_from_slice(&heard);
    frame.extend_from_slice(b"\0");
    stomp.say(&frame).await;
    // The first one goes back where it came from.
    let id = header(&head, "ack").expect("an ack header");
    stomp.say(format!("NACK\nid:{id}\n\n\0UNSUBSCRIBE\nid:0\nreceipt:r\n\n\0").as_bytes()).await;
    loop {
        if stomp.hear().await.0.starts_with("RECEIPT\n") {
            break;
        }
    }

    let (copied, data) = take(&channel, "back").await;
    assert_eq!(data, body);
    let mut expected = FieldTable::default();
    for (name, value) in [("number", "-7"), ("text", "h\u{e4}user: a\nb"), ("truth", "true")] {
        expected.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    assert_eq!(copied.headers(), &Some(expected));
    let reply_to = copied.reply_to().clone().expect("an address");
    assert_eq!(reply_to.as_str(), "/reply-queue/back");
    let same =
        |it: BasicProperties| it.with_headers(FieldTable::default()).with_reply_to("".into());
    assert_eq!(same(copied), same(properties.clone()));

    // What STOMP only looked at is as it was, types and all.
    let (original, data) = take(&channel, "there").await;
    assert_eq!((original, &data[..]), (properties, &body[..]));
}
