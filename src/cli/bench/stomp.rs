//! The load over STOMP 1.2: SEND with a receipt for each batch, ACK in client mode.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use pillarbox_stomp::{
    Command, Encoder, Frame, Input, Limits, ServerCommand, ServerFrameDecoder, Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::Failure;
use super::super::broker::Broker;
use super::plan::{Found, Plan};
use super::scene::Target;
use super::{Bench, content};

const PATIENCE: Duration = Duration::from_secs(10);
const ENCODER: Encoder = Encoder { version: Version::V12, line_feed_after_frame: false };

pub(super) struct Peer {
    input: Incoming,
    output: OwnedWriteHalf,
}

struct Incoming {
    socket: OwnedReadHalf,
    read: BytesMut,
    decoder: ServerFrameDecoder,
}

impl Peer {
    pub(super) async fn connect(bench: &Bench, broker: &Broker) -> Result<Self, Failure> {
        let socket = TcpStream::connect(&bench.stomp).await.map_err(|error| {
            Failure::no_broker(format!("no broker answers on {}: {error}", bench.stomp))
        })?;
        socket.set_nodelay(true).map_err(Failure::failed)?;
        let (socket, output) = socket.into_split();
        let mut limits = Limits::default();
        limits.frame_size_max = limits.frame_size_max.max(bench.size as usize + 4096);
        let mut decoder = ServerFrameDecoder::new(limits);
        decoder.set_version(Version::V12);
        let mut peer = Self { input: Incoming { socket, read: BytesMut::new(), decoder }, output };
        let (user, password) = broker.login();
        let headers = [
            ("accept-version", "1.2"),
            ("host", &*broker.vhost),
            ("login", user),
            ("passcode", password),
            ("heart-beat", "0,0"),
        ];
        peer.say(Command::Stomp, &headers).await?;
        match peer.input.next().await? {
            Frame { command: ServerCommand::Connected, .. } => Ok(peer),
            refused => Err(Failure::no_broker(text(&refused))),
        }
    }

    async fn say(&mut self, command: Command, headers: &[(&str, &str)]) -> Result<(), Failure> {
        let mut out = BytesMut::new();
        ENCODER.encode_client_frame(&mut out, command, headers.iter().copied(), b"");
        self.output.write_all(&out).await.map_err(Failure::failed)
    }

    pub(super) async fn listen(&mut self, mailbox: &str, bench: &Bench) -> Result<(), Failure> {
        let (destination, credit) = (format!("/amq/queue/{mailbox}"), bench.credit.to_string());
        let mut headers =
            vec![("id", "0"), ("destination", &*destination), ("ack", "client"), ("receipt", "s")];
        if bench.credit > 0 {
            headers.push(("prefetch-count", &credit));
        }
        if bench.stream {
            headers.push(("x-stream-offset", "first"));
        }
        self.say(Command::Subscribe, &headers).await?;
        self.input.expect(ServerCommand::Receipt).await.map(drop)
    }

    pub(super) async fn close(mut self) -> Result<(), Failure> {
        self.say(Command::Disconnect, &[("receipt", "bye")]).await?;
        self.input.expect(ServerCommand::Receipt).await.map(drop)
    }

    pub(super) async fn produce(
        self,
        target: &Target,
        bench: &Bench,
        plan: &Plan,
    ) -> Result<(u64, Instant), Failure> {
        let Self { mut input, mut output } = self;
        let place = |key: &String| match &*target.exchange {
            "" => format!("/amq/queue/{key}"),
            exchange => format!("/exchange/{exchange}/{key}"),
        };
        let destinations: Vec<_> = target.keys.iter().map(place).collect();
        let persistent = if bench.transient { "false" } else { "true" };
        let (mut sent, mut confirmed) = (0u64, 0u64);
        let (mut out, mut body) = (BytesMut::new(), Vec::new());
        let mut progress = plan.progress();
        while let Some(due) = plan.due(sent, bench.batch.into(), Instant::now()) {
            if due == 0 {
                tokio::time::sleep(Duration::from_micros(200)).await;
                continue;
            }
            while sent > confirmed && sent - confirmed + due > u64::from(bench.window) {
                confirmed = confirm(&input.expect(ServerCommand::Receipt).await?)?;
            }
            out.clear();
            let now = Instant::now();
            for number in sent..sent + due {
                body.clear();
                content::write(number, plan.due_at(number, now), bench.size as usize, &mut body);
                let mut frame = ENCODER.begin(&mut out, Command::Send);
                frame.header("destination", &destinations[target.place(number)]);
                frame.header("persistent", persistent);
                if number + 1 == sent + due {
                    // Receipts come in order: this one stands for all before it.
                    frame.header_number("receipt", number + 1);
                }
                frame.finish(&body);
            }
            output.write_all(&out).await.map_err(Failure::failed)?;
            sent += due;
            progress.add(due);
        }
        while confirmed < sent {
            confirmed = confirm(&input.expect(ServerCommand::Receipt).await?)?;
        }
        Ok((sent, Instant::now()))
    }

    pub(super) async fn consume(
        self,
        plan: &Plan,
        mut sent: watch::Receiver<u64>,
    ) -> Result<Found, Failure> {
        let Self { mut input, mut output } = self;
        let mut found = Found::new(plan);
        let mut total = 0u64;
        loop {
            let mut last = None;
            while let Some(frame) = input.decode()? {
                found.take(&frame.body, plan);
                total += 1;
                last = frame.headers.get("ack").map(str::to_owned);
            }
            if let Some(last) = last {
                found.last = Instant::now();
                let mut out = BytesMut::new();
                ENCODER.encode_client_frame(&mut out, Command::Ack, [("id", &*last)], b"");
                output.write_all(&out).await.map_err(Failure::failed)?;
            }
            let wanted = *sent.borrow_and_update();
            if total >= wanted {
                break;
            }
            tokio::select! {
                read = timeout(PATIENCE, input.more()) => match read {
                    Ok(read) => read?,
                    Err(_) if wanted == u64::MAX => {}
                    Err(_) => break,
                },
                Ok(()) = sent.changed() => {}
            }
        }
        // Only then is everything settled.
        Self { input, output }.close().await?;
        Ok(found)
    }
}

impl Incoming {
    /// A frame that is whole already.
    fn decode(&mut self) -> Result<Option<Frame<ServerCommand>>, Failure> {
        loop {
            match self.decoder.decode(&mut self.read).map_err(Failure::failed)? {
                None => return Ok(None),
                Some(Input::HeartBeat) => {}
                Some(Input::Frame(frame)) if frame.command == ServerCommand::Error => {
                    return Err(Failure::failed(text(&frame)));
                }
                Some(Input::Frame(frame)) => return Ok(Some(frame)),
            }
        }
    }

    async fn more(&mut self) -> Result<(), Failure> {
        self.read.reserve(64 << 10);
        match self.socket.read_buf(&mut self.read).await {
            Ok(0) => Err(Failure::failed("the broker closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::failed(error)),
        }
    }

    async fn next(&mut self) -> Result<Frame<ServerCommand>, Failure> {
        loop {
            if let Some(frame) = self.decode()? {
                return Ok(frame);
            }
            self.more().await?;
        }
    }

    async fn expect(&mut self, command: ServerCommand) -> Result<Frame<ServerCommand>, Failure> {
        let frame = self.next().await?;
        if frame.command == command { Ok(frame) } else { Err(Failure::failed(text(&frame))) }
    }
}

fn text(frame: &Frame<ServerCommand>) -> String {
    let message = frame.headers.get("message").unwrap_or_default();
    format!("{message}: {}", String::from_utf8_lossy(&frame.body).trim())
}

fn confirm(receipt: &Frame<ServerCommand>) -> Result<u64, Failure> {
    let number = receipt.headers.get("receipt-id").and_then(|it| it.parse().ok());
    number.ok_or_else(|| Failure::failed("a receipt that nobody asked for"))
}
