//! The load over AMQP 0-9-1: as little of a client as that takes.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use pillarbox_amqp::{
    FieldTable, FieldValue, FrameKind, Method, PROTOCOL_HEADER, ShortString, decode_ack,
    encode_ack, encode_content, method_ids, next_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::Failure;
use super::super::broker::Broker;
use super::plan::{Found, Plan};
use super::scene::{Scene, Target};
use super::{Bench, content};

const FRAME_MAX: u32 = 131_072;
const PATIENCE: Duration = Duration::from_secs(10);
const CHANNEL: u16 = 1;
const ACK: (u16, u16) = (60, 80);
const DELIVER: (u16, u16) = (60, 60);
/// Properties with a delivery mode and nothing else.
const PERSISTENT: [u8; 3] = [0x10, 0x00, 2];
const TRANSIENT: [u8; 3] = [0x10, 0x00, 1];

pub(super) struct Peer {
    input: OwnedReadHalf,
    output: OwnedWriteHalf,
    read: BytesMut,
}

impl Peer {
    pub(super) async fn connect(bench: &Bench, broker: &Broker) -> Result<Self, Failure> {
        let socket = TcpStream::connect(&bench.amqp).await.map_err(|error| {
            Failure::no_broker(format!("no broker answers on {}: {error}", bench.amqp))
        })?;
        socket.set_nodelay(true).map_err(Failure::failed)?;
        let (input, output) = socket.into_split();
        let mut peer = Self { input, output, read: BytesMut::new() };
        peer.output.write_all(&PROTOCOL_HEADER).await.map_err(Failure::failed)?;
        peer.method(0).await?;
        let (user, password) = broker.login();
        let response = Bytes::from(format!("\0{user}\0{password}"));
        let start = Method::ConnectionStartOk {
            client_properties: FieldTable(Vec::new()),
            mechanism: ShortString::truncated("PLAIN"),
            response,
            locale: ShortString::truncated("en_US"),
        };
        peer.send(0, &start).await?;
        match peer.method(0).await? {
            Method::ConnectionTune { .. } => {}
            _ => return Err(Failure::no_broker("login refused")),
        }
        let tune = Method::ConnectionTuneOk { channel_max: 1, frame_max: FRAME_MAX, heartbeat: 0 };
        peer.send(0, &tune).await?;
        let vhost = ShortString::truncated(&broker.vhost);
        peer.send(0, &Method::ConnectionOpen { vhost }).await?;
        peer.method(0).await?;
        peer.call(&Method::ChannelOpen).await?;
        Ok(peer)
    }

    async fn send(&mut self, channel: u16, method: &Method) -> Result<(), Failure> {
        let mut out = BytesMut::new();
        method.encode(channel, &mut out);
        self.output.write_all(&out).await.map_err(Failure::failed)
    }

    async fn call(&mut self, method: &Method) -> Result<Method, Failure> {
        self.send(CHANNEL, method).await?;
        self.method(CHANNEL).await
    }

    /// The next method of a channel, which is not a close.
    async fn method(&mut self, channel: u16) -> Result<Method, Failure> {
        loop {
            let found = match next_frame(&self.read, FRAME_MAX).map_err(Failure::failed)? {
                Some(frame) => {
                    let wanted = frame.kind == FrameKind::Method && frame.channel == channel;
                    let method = wanted.then(|| Method::decode(frame.payload));
                    Some((frame.wire_len(), method.transpose().map_err(Failure::failed)?))
                }
                None => None,
            };
            match found {
                Some((size, method)) => {
                    let _ = self.read.split_to(size);
                    match method {
                        Some(
                            Method::ConnectionClose { reply_text, .. }
                            | Method::ChannelClose { reply_text, .. },
                        ) => {
                            let text = reply_text.as_str().unwrap_or_default();
                            return Err(Failure::failed(text));
                        }
                        Some(method) => return Ok(method),
                        None => {}
                    }
                }
                None => more(&mut self.input, &mut self.read).await?,
            }
        }
    }

    pub(super) async fn build(&mut self, scene: &Scene) -> Result<(), Failure> {
        for mailbox in &scene.mailboxes {
            self.call(&Method::QueueDeclare {
                queue: ShortString::truncated(mailbox),
                passive: false,
                durable: scene.durable,
                exclusive: false,
                auto_delete: false,
                nowait: false,
                arguments: entries(scene.stream.then_some(("x-queue-type", "stream"))),
            })
            .await?;
        }
        if let Some(exchange) = &scene.exchange {
            self.call(&Method::ExchangeDeclare {
                exchange: ShortString::truncated(&exchange.name),
                kind: ShortString::truncated(exchange.kind),
                passive: false,
                durable: scene.durable,
                auto_delete: false,
                internal: false,
                nowait: false,
                arguments: FieldTable(Vec::new()),
            })
            .await?;
        }
        for (source, key, mailbox) in scene.bindings() {
            self.call(&Method::QueueBind {
                queue: ShortString::truncated(mailbox),
                exchange: ShortString::truncated(source),
                routing_key: ShortString::truncated(key),
                nowait: false,
                arguments: FieldTable(Vec::new()),
            })
            .await?;
        }
        Ok(())
    }

    pub(super) async fn clear(&mut self, scene: &Scene) -> Result<(), Failure> {
        for mailbox in &scene.mailboxes {
            let queue = ShortString::truncated(mailbox);
            let (if_unused, if_empty, nowait) = (false, false, false);
            self.call(&Method::QueueDelete { queue, if_unused, if_empty, nowait }).await?;
        }
        if let Some(exchange) = &scene.exchange {
            let exchange = ShortString::truncated(&exchange.name);
            let (if_unused, nowait) = (false, false);
            self.call(&Method::ExchangeDelete { exchange, if_unused, nowait }).await?;
        }
        Ok(())
    }

    pub(super) async fn listen(&mut self, mailbox: &str, bench: &Bench) -> Result<(), Failure> {
        let prefetch_count = u16::try_from(bench.credit).unwrap_or(0);
        self.call(&Method::BasicQos { prefetch_size: 0, prefetch_count, global: false }).await?;
        self.call(&Method::BasicConsume {
            queue: ShortString::truncated(mailbox),
            consumer_tag: ShortString::truncated("bench"),
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: entries(bench.stream.then_some(("x-stream-offset", "first"))),
        })
        .await?;
        Ok(())
    }

    pub(super) async fn close(mut self) -> Result<(), Failure> {
        let reply_text = ShortString::truncated("done");
        let close =
            Method::ConnectionClose { reply_code: 200, reply_text, class_id: 0, method_id: 0 };
        self.send(0, &close).await?;
        self.method(0).await.map(drop)
    }

    pub(super) async fn produce(
        mut self,
        target: &Target,
        bench: &Bench,
        plan: &Plan,
    ) -> Result<(u64, Instant), Failure> {
        self.call(&Method::ConfirmSelect { nowait: false }).await?;
        let Self { mut input, mut output, mut read } = self;
        let publishes: Vec<_> = target.keys.iter().map(|key| publish(target, key)).collect();
        let properties = if bench.transient { &TRANSIENT } else { &PERSISTENT };
        let (mut sent, mut confirmed) = (0u64, 0u64);
        let (mut out, mut body) = (BytesMut::new(), Vec::new());
        let window = u64::from(bench.window);
        let mut progress = plan.progress();
        while let Some(due) = plan.due(sent, bench.batch.into(), Instant::now()) {
            if due == 0 {
                tokio::time::sleep(Duration::from_micros(200)).await;
                continue;
            }
            while sent - confirmed > 0 && sent - confirmed + due > window {
                more(&mut input, &mut read).await?;
                confirmed = confirms(&mut read, confirmed)?;
            }
            out.clear();
            let now = Instant::now();
            for number in sent..sent + due {
                body.clear();
                content::write(number, plan.due_at(number, now), bench.size as usize, &mut body);
                out.extend_from_slice(&publishes[target.place(number)]);
                encode_content(&mut out, CHANNEL, properties, &body, FRAME_MAX);
            }
            output.write_all(&out).await.map_err(Failure::failed)?;
            sent += due;
            progress.add(due);
        }
        while confirmed < sent {
            more(&mut input, &mut read).await?;
            confirmed = confirms(&mut read, confirmed)?;
        }
        Ok((sent, Instant::now()))
    }

    pub(super) async fn consume(
        self,
        plan: &Plan,
        mut sent: watch::Receiver<u64>,
    ) -> Result<Found, Failure> {
        let mut peer = self;
        let mut found = Found::new(plan);
        let mut total = 0u64;
        let (mut body, mut missing) = (Vec::new(), 0u64);
        let mut out = BytesMut::new();
        loop {
            let mut end = 0;
            let before = total;
            while let Some(frame) =
                next_frame(&peer.read[end..], FRAME_MAX).map_err(Failure::failed)?
            {
                end += frame.wire_len();
                match frame.kind {
                    FrameKind::Header => {
                        let header = pillarbox_amqp::decode_content_header(frame.payload)
                            .map_err(Failure::failed)?;
                        missing = header.body_size;
                        body.clear();
                    }
                    FrameKind::Body => {
                        missing = missing.saturating_sub(frame.payload.len() as u64);
                        if missing > 0 || !body.is_empty() {
                            body.extend_from_slice(frame.payload);
                        }
                        if missing == 0 {
                            let whole = if body.is_empty() { frame.payload } else { &body[..] };
                            found.take(whole, plan);
                            total += 1;
                        }
                    }
                    FrameKind::Method if method_ids(frame.payload) != Some(DELIVER) => {
                        return Err(Failure::failed("the broker ended the consumer"));
                    }
                    FrameKind::Method | FrameKind::Heartbeat => {}
                }
            }
            let _ = peer.read.split_to(end);
            if total > before {
                found.last = Instant::now();
                out.clear();
                encode_ack(&mut out, CHANNEL, total, true);
                peer.output.write_all(&out).await.map_err(Failure::failed)?;
            }
            let wanted = *sent.borrow_and_update();
            if total >= wanted {
                return Ok(found);
            }
            tokio::select! {
                read = timeout(PATIENCE, more(&mut peer.input, &mut peer.read)) => match read {
                    Ok(read) => read?,
                    Err(_) if wanted == u64::MAX => {}
                    Err(_) => return Ok(found),
                },
                Ok(()) = sent.changed() => {}
            }
        }
    }
}

async fn more(input: &mut OwnedReadHalf, read: &mut BytesMut) -> Result<(), Failure> {
    read.reserve(64 << 10);
    match input.read_buf(read).await {
        Ok(0) => Err(Failure::failed("the broker closed the connection")),
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::failed(error)),
    }
}

fn publish(target: &Target, key: &str) -> BytesMut {
    let mut publish = BytesMut::new();
    let method = Method::BasicPublish {
        exchange: ShortString::truncated(&target.exchange),
        routing_key: ShortString::truncated(key),
        mandatory: false,
        immediate: false,
    };
    method.encode(CHANNEL, &mut publish);
    publish
}

fn entries(entry: Option<(&'static str, &'static str)>) -> FieldTable {
    let entry = entry.map(|(name, text)| {
        (ShortString::truncated(name), FieldValue::LongString(Bytes::from_static(text.as_bytes())))
    });
    FieldTable(entry.into_iter().collect())
}

/// How many publishes are confirmed, as far as was read.
fn confirms(read: &mut BytesMut, mut confirmed: u64) -> Result<u64, Failure> {
    let mut end = 0;
    while let Some(frame) = next_frame(&read[end..], FRAME_MAX).map_err(Failure::failed)? {
        end += frame.wire_len();
        if frame.kind == FrameKind::Method {
            match method_ids(frame.payload) {
                Some(ACK) => {
                    if let Some((tag, multiple)) = decode_ack(frame.payload) {
                        confirmed = if multiple { confirmed.max(tag) } else { confirmed + 1 };
                    }
                }
                _ => return Err(Failure::failed("the broker refused a message")),
            }
        }
    }
    let _ = read.split_to(end);
    Ok(confirmed)
}
