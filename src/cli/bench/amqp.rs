//! The load over AMQP 0-9-1: as little of a client as that takes.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use pillarbox_amqp::{
    FieldTable, FrameKind, Method, PROTOCOL_HEADER, ShortString, decode_ack, encode_ack,
    encode_content, method_ids, next_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::Failure;
use super::super::broker::Broker;
use super::{Bench, Found, Plan, content};

const FRAME_MAX: u32 = 131_072;
const PATIENCE: Duration = Duration::from_secs(10);
const CHANNEL: u16 = 1;
const ACK: (u16, u16) = (60, 80);
const DELIVER: (u16, u16) = (60, 60);
/// Properties with a delivery mode and nothing else.
const PERSISTENT: [u8; 3] = [0x10, 0x00, 2];
const TRANSIENT: [u8; 3] = [0x10, 0x00, 1];

struct Peer {
    input: OwnedReadHalf,
    output: OwnedWriteHalf,
    read: BytesMut,
}

pub(super) async fn run(
    bench: &Bench,
    broker: &Broker,
    mut plan: Plan,
) -> Result<(u64, Instant, Found), Failure> {
    let queue = ShortString::truncated(&format!("bench-{}", std::process::id()));
    let mut producer = Peer::connect(bench, broker).await?;
    let declare = Method::QueueDeclare {
        queue: queue.clone(),
        passive: false,
        durable: !bench.transient,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: FieldTable(Vec::new()),
    };
    producer.call(&declare).await?;
    producer.call(&Method::ConfirmSelect { nowait: false }).await?;
    let mut consumer = Peer::connect(bench, broker).await?;
    let prefetch_count = u16::try_from(bench.credit).unwrap_or(0);
    consumer.call(&Method::BasicQos { prefetch_size: 0, prefetch_count, global: false }).await?;
    let consume = Method::BasicConsume {
        queue: queue.clone(),
        consumer_tag: ShortString::truncated("bench"),
        no_local: false,
        no_ack: false,
        exclusive: false,
        nowait: false,
        arguments: FieldTable(Vec::new()),
    };
    consumer.call(&consume).await?;

    let moved = plan.start.elapsed();
    plan.start += moved;
    plan.until = plan.until.map(|until| until + moved);
    let (sent_to, sent) = watch::channel(u64::MAX);
    let consuming = tokio::spawn(consume_all(consumer, plan.clone(), sent));
    let outcome = produce(producer, &queue, bench, &plan).await;
    let _ = sent_to.send(outcome.as_ref().map_or(0, |(sent, ..)| *sent));
    let found = consuming.await.map_err(Failure::failed)?;
    let (sent, confirmed, mut producer) = outcome?;
    let delete = Method::QueueDelete { queue, if_unused: false, if_empty: false, nowait: false };
    producer.call(&delete).await?;
    Ok((sent, confirmed, found?))
}

impl Peer {
    async fn connect(bench: &Bench, broker: &Broker) -> Result<Self, Failure> {
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
}

async fn more(input: &mut OwnedReadHalf, read: &mut BytesMut) -> Result<(), Failure> {
    read.reserve(64 << 10);
    match input.read_buf(read).await {
        Ok(0) => Err(Failure::failed("the broker closed the connection")),
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::failed(error)),
    }
}

async fn produce(
    peer: Peer,
    queue: &ShortString,
    bench: &Bench,
    plan: &Plan,
) -> Result<(u64, Instant, Peer), Failure> {
    let Peer { mut input, mut output, mut read } = peer;
    let mut publish = BytesMut::new();
    let method = Method::BasicPublish {
        exchange: ShortString::truncated(""),
        routing_key: queue.clone(),
        mandatory: false,
        immediate: false,
    };
    method.encode(CHANNEL, &mut publish);
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
            out.extend_from_slice(&publish);
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
    Ok((sent, Instant::now(), Peer { input, output, read }))
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

async fn consume_all(
    mut peer: Peer,
    plan: Plan,
    mut sent: watch::Receiver<u64>,
) -> Result<Found, Failure> {
    let mut found = Found::new(&plan);
    let mut total = 0u64;
    let (mut body, mut missing) = (Vec::new(), 0u64);
    let mut out = BytesMut::new();
    loop {
        let mut end = 0;
        let before = total;
        while let Some(frame) = next_frame(&peer.read[end..], FRAME_MAX).map_err(Failure::failed)? {
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
                        found.take(whole, &plan);
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
        let wanted = *sent.borrow();
        if total >= wanted {
            return Ok(found);
        }
        tokio::select! {
            read = timeout(PATIENCE, more(&mut peer.input, &mut peer.read)) => match read {
                Ok(read) => read?,
                Err(_) if wanted == u64::MAX => {}
                Err(_) => return Ok(found),
            },
            _ = sent.changed() => {}
        }
    }
}
