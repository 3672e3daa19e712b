//! Many pages on one topic: 2,000 websockets get every message of a run of 10,000, in order.
//!
//! Ignored by default: a debug build takes minutes. `interop/run fanout` runs it on a fast build.

#![expect(clippy::print_stdout, reason = "whoever runs it wants to know how fast it was")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pillarbox::config::{Address, Config};
use pillarbox::server::{Protocol, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(600);
/// So far the publisher runs ahead of the slowest subscriber: what waits for two thousand takes memory.
const AHEAD_MAX: u64 = 500;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// A subscriber's socket, without a library: the test machine has two cores, and the broker wants them.
struct Page {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Page {
    async fn open(server: &Server) -> io::Result<Self> {
        let address = server.address(Protocol::Http).expect("the listener is there");
        let mut socket = TcpStream::connect(address).await?;
        let request = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       sec-websocket-protocol: v12.stomp\r\n\r\n";
        socket.write_all(request.as_bytes()).await?;
        let mut page = Self { socket, buffer: Vec::with_capacity(32 * 1024) };
        while !page.buffer.ends_with(b"\r\n\r\n") {
            page.read().await?;
        }
        assert!(page.buffer.starts_with(b"HTTP/1.1 101 "));
        page.buffer.clear();
        page.send("CONNECT\naccept-version:1.2\nhost:/\n\n\0").await?;
        assert!(page.next().await?.starts_with(b"CONNECTED"));
        Ok(page)
    }

    async fn read(&mut self) -> io::Result<()> {
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// A masked text message; the mask is zero.
    async fn send(&mut self, frame: &str) -> io::Result<()> {
        let length = u8::try_from(frame.len()).expect("a short frame");
        assert!(length < 126);
        let mut message = vec![0x81, 0x80 | length, 0, 0, 0, 0];
        message.extend_from_slice(frame.as_bytes());
        self.socket.write_all(&message).await
    }

    /// The next whole message at the front of the buffer, and where it ends.
    fn first(buffer: &[u8]) -> Option<(&[u8], usize)> {
        let (start, length) = match *buffer {
            [0x81, length @ 0..126, ..] => (2, usize::from(length)),
            [0x81, 126, high, low, ..] => (4, u16::from_be_bytes([high, low]).into()),
            [first, ..] if first != 0x81 => panic!("not a text message: {first:#x}"),
            _ => return None,
        };
        Some((buffer.get(start..start + length)?, start + length))
    }

    async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some((message, end)) = Self::first(&self.buffer) {
                let message = message.to_vec();
                self.buffer.drain(..end);
                return Ok(message);
            }
            self.read().await?;
        }
    }

    /// Counts messages, whose bodies count too.
    async fn expect(&mut self, messages: u64, seen: &AtomicU64) -> io::Result<()> {
        let mut expected = 0;
        while expected < messages {
            let mut at = 0;
            while let Some((message, end)) = Self::first(&self.buffer[at..]) {
                assert!(message.starts_with(b"MESSAGE\n"), "{}", String::from_utf8_lossy(message));
                let body =
                    message.strip_suffix(b"\0\n").and_then(|it| it.rsplit(|b| *b == b'\n').next());
                let number = body.and_then(|it| std::str::from_utf8(it).ok()?.parse().ok());
                assert_eq!(number, Some(expected), "the next message, whole and in order");
                expected += 1;
                at += end;
            }
            self.buffer.drain(..at);
            seen.store(expected, Ordering::Relaxed);
            if expected < messages {
                self.read().await?;
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes in a debug build: interop/run fanout"]
async fn every_subscriber_gets_every_message_in_order() {
    let subscribers = from_environment("FANOUT_SUBSCRIBERS", 2_000);
    let messages = from_environment("FANOUT_MESSAGES", 10_000);
    let mut config = Config::default();
    config.store.in_memory = true;
    config.listen.amqp = Address::Off;
    config.listen.stomp = Address::Off;
    config.listen.native = Address::Off;
    config.listen.http = Address::At(([127, 0, 0, 1], 0).into());
    let server = Server::start(config).await.expect("the server starts");

    let mut pages = JoinSet::new();
    let mut counts = Vec::new();
    for _ in 0..subscribers {
        let mut page = Page::open(&server).await.expect("one more page");
        page.send("SUBSCRIBE\nid:0\ndestination:/topic/fan\nreceipt:r\n\n\0").await.expect("taken");
        assert!(page.next().await.expect("a receipt").starts_with(b"RECEIPT\n"));
        let seen = Arc::new(AtomicU64::new(0));
        counts.push(seen.clone());
        pages.spawn(async move { page.expect(messages, &seen).await });
    }

    let slowest = || counts.iter().map(|seen| seen.load(Ordering::Relaxed)).min().unwrap_or(0);
    let mut publisher = Page::open(&server).await.expect("one more page");
    let start = Instant::now();
    for number in 0..messages {
        while number >= slowest() + AHEAD_MAX {
            assert!(start.elapsed() < PATIENCE, "the slowest is at {} of {messages}", slowest());
            sleep(Duration::from_millis(5)).await;
        }
        let frame = format!("SEND\ndestination:/topic/fan\n\n{number}\0");
        publisher.send(&frame).await.expect("taken");
    }
    timeout(PATIENCE, async {
        while let Some(page) = pages.join_next().await {
            page.expect("nothing was missed").expect("the socket stays open");
        }
    })
    .await
    .expect("everything arrives");
    let seconds = start.elapsed().as_secs_f64();
    let deliveries = subscribers * messages;
    println!(
        "{deliveries} deliveries in {seconds:.1} s, {:.0} a second",
        deliveries as f64 / seconds
    );
    server.stop().await.expect("the server stops");
}
