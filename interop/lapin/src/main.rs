//! The tutorials and everyday features, through lapin.

mod broker;

use std::collections::BTreeSet;
use std::future::Future;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backon::ExponentialBuilder;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::*;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    ExchangeKind,
};

use broker::OwnBroker;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome = Result<(), Failure>;

/// Longer than any scenario takes.
const PATIENCE: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_secs(10);

fn unique(name: &str) -> String {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    format!("{name}-{}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed))
}

fn nothing() -> FieldTable {
    FieldTable::default()
}

async fn own_queue(channel: &Channel, arguments: FieldTable) -> Result<String, Failure> {
    let queue =
        channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), arguments).await?;
    Ok(queue.name().to_string())
}

async fn own_exchange(channel: &Channel, kind: ExchangeKind) -> Result<String, Failure> {
    let name = unique("exchange");
    let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
    channel.exchange_declare(name.as_str().into(), kind, options, nothing()).await?;
    Ok(name)
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Outcome {
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), key.into(), options, nothing()).await?;
    Ok(())
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &str,
    properties: BasicProperties,
) -> Result<Confirmation, Failure> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let sent = channel
        .basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties)
        .await?;
    Ok(sent.await?)
}

fn plain() -> BasicProperties {
    BasicProperties::default()
}

fn persistent() -> BasicProperties {
    plain().with_delivery_mode(2)
}

async fn consume(channel: &Channel, queue: &str, no_ack: bool) -> Result<Consumer, Failure> {
    let options = BasicConsumeOptions { no_ack, ..Default::default() };
    Ok(channel.basic_consume(queue.into(), "".into(), options, nothing()).await?)
}

async fn next(consumer: &mut Consumer) -> Result<Delivery, Failure> {
    let delivery = tokio::time::timeout(WAIT, consumer.next()).await.map_err(|_| "no delivery")?;
    Ok(delivery.ok_or("the deliveries ended")??)
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.data).into_owned()
}

/// The next messages of a queue.
async fn collect(channel: &Channel, queue: &str, count: usize) -> Result<Vec<String>, Failure> {
    let mut consumer = consume(channel, queue, true).await?;
    let mut found = Vec::new();
    while found.len() < count {
        found.push(text(&next(&mut consumer).await?));
    }
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
    Ok(found)
}

async fn work_queue(connection: Connection) -> Outcome {
    let publisher = connection.create_channel().await?;
    let queue = unique("work");
    let durable = QueueDeclareOptions::durable();
    publisher.queue_declare(queue.as_str().into(), durable, nothing()).await?;
    for task in 0..10 {
        publish(&publisher, "", &queue, &task.to_string(), persistent()).await?;
    }
    let busy = connection.create_channel().await?;
    busy.basic_qos(1, BasicQosOptions::default()).await?;
    let mut kept = consume(&busy, &queue, false).await?;
    assert_eq!(text(&next(&mut kept).await?), "0");
    let worker = connection.create_channel().await?;
    worker.basic_qos(1, BasicQosOptions::default()).await?;
    let mut tasks = consume(&worker, &queue, false).await?;
    for task in 1..10 {
        let delivery = next(&mut tasks).await?;
        assert_eq!(text(&delivery), task.to_string());
        delivery.ack(BasicAckOptions::default()).await?;
    }
    publisher.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
    Ok(())
}

async fn publish_subscribe(connection: Connection) -> Outcome {
    let channel = connection.create_channel().await?;
    let exchange = own_exchange(&channel, ExchangeKind::Fanout).await?;
    let queues = [own_queue(&channel, nothing()).await?, own_queue(&channel, nothing()).await?];
    for queue in &queues {
        bind(&channel, queue, &exchange, "").await?;
    }
    publish(&channel, &exchange, "ignored", "to all", plain()).await?;
    for queue in &queues {
        assert_eq!(collect(&channel, queue, 1).await?, ["to all"]);
    }
    Ok(())
}

async fn routing(connection: Connection) -> Outcome {
    let channel = connection.create_channel().await?;
    let exchange = own_exchange(&channel, ExchangeKind::Direct).await?;
    let queue = own_queue(&channel, nothing()).await?;
    for severity in ["warning", "error"] {
        bind(&channel, &queue, &exchange, severity).await?;
    }
    for severity in ["info", "warning", "error"] {
        publish(&channel, &exchange, severity, severity, plain()).await?;
    }
    assert_eq!(collect(&channel, &queue, 2).await?, ["warning", "error"]);
    let key = "warning".into();
    channel.queue_unbind(queue.as_str().into(), exchange.as_str().into(), key, nothing()).await?;
    for severity in ["warning", "error"] {
        publish(&channel, &exchange, severity, severity, plain()).await?;
    }
    assert_eq!(collect(&channel, &queue, 1).await?, ["error"]);
    Ok(())
}

async fn topics(connection: Connection) -> Outcome {
    let channel = connection.create_channel().await?;
    let exchange = own_exchange(&channel, ExchangeKind::Topic).await?;
    let keys = ["kern.critical", "kern.info", "cron.critical", "kern", "kern.disk.critical"];
    let patterns = [
        ("#", keys.to_vec()),
        ("kern.*", vec!["kern.critical", "kern.info"]),
        ("*.critical", vec!["kern.critical", "cron.critical"]),
        ("kern.#", vec!["kern.critical", "kern.info", "kern", "kern.disk.critical"]),
    ];
    let mut queues = Vec::new();
    for (pattern, _) in &patterns {
        let queue = own_queue(&channel, nothing()).await?;
        bind(&channel, &queue, &exchange, pattern).await?;
        queues.push(queue);
    }
    for key in keys {
        publish(&channel, &exchange, key, key, plain()).await?;
    }
    for (queue, (_, expected)) in queues.iter().zip(&patterns) {
        assert_eq!(collect(&channel, queue, expected.len()).await?, *expected);
    }
    Ok(())
}

async fn rpc(connection: Connection) -> Outcome {
    let server = connection.create_channel().await?;
    let requests = own_queue(&server, nothing()).await?;
    let mut calls = consume(&server, &requests, true).await?;
    let client = connection.create_channel().await?;
    for reply_to in [own_queue(&client, nothing()).await?, "amq.rabbitmq.reply-to".into()] {
        let mut replies = consume(&client, &reply_to, true).await?;
        let asks = plain().with_reply_to(reply_to.as_str().into());
        publish(&client, "", &requests, "ping", asks.with_correlation_id("call".into())).await?;
        let call = next(&mut calls).await?;
        let address = call.properties.reply_to().clone().ok_or("no reply-to")?;
        let id = call.properties.correlation_id().clone().ok_or("no correlation id")?;
        publish(&server, "", address.as_str(), "pong", plain().with_correlation_id(id)).await?;
        let reply = next(&mut replies).await?;
        assert_eq!(text(&reply), "pong");
        let id = reply.properties.correlation_id().as_ref().map(|it| it.as_str());
        assert_eq!(id, Some("call"));
    }
    Ok(())
}

async fn publisher_confirms(connection: Connection) -> Outcome {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let queue = own_queue(&channel, nothing()).await?;
    let mut pending = Vec::new();
    for number in 0..1000 {
        let body = number.to_string();
        let options = BasicPublishOptions::default();
        let sent = channel
            .basic_publish("".into(), queue.as_str().into(), options, body.as_bytes(), persistent())
            .await?;
        pending.push(sent);
    }
    for sent in pending {
        assert_eq!(sent.await?, Confirmation::Ack(None));
    }
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::exclusive() };
    let declared = channel.queue_declare(queue.as_str().into(), passive, nothing()).await?;
    assert_eq!(declared.message_count(), 1000);
    Ok(())
}

async fn mandatory_return(connection: Connection) -> Outcome {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let returned = match publish(&channel, "", &unique("nowhere"), "lost", plain()).await? {
        Confirmation::Ack(Some(returned)) => returned,
        other => return Err(format!("found {other:?}").into()),
    };
    assert_eq!((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"));
    assert_eq!(returned.delivery.data, b"lost");
    Ok(())
}

async fn dead_letters(connection: Connection) -> Outcome {
    let channel = connection.create_channel().await?;
    let exchange = own_exchange(&channel, ExchangeKind::Fanout).await?;
    let dead = own_queue(&channel, nothing()).await?;
    bind(&channel, &dead, &exchange, "").await?;
    let mut arguments = nothing();
    arguments
        .insert("x-dead-letter-exchange".into(), AMQPValue::LongString(exchange.as_str().into()));
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(100));
    let source = own_queue(&channel, arguments).await?;
    let mut burials = consume(&channel, &dead, true).await?;
    publish(&channel, "", &source, "late", plain()).await?;
    let late = next(&mut burials).await?;
    assert_eq!(text(&late), "late");
    let headers = late.properties.headers().as_ref().ok_or("no headers")?;
    let reason = headers.inner().get("x-first-death-reason");
    assert_eq!(reason, Some(&AMQPValue::LongString("expired".into())));
    Ok(())
}

async fn get_and_requeue(connection: Connection) -> Outcome {
    let channel = connection.create_channel().await?;
    let queue = own_queue(&channel, nothing()).await?;
    for number in 0..3 {
        publish(&channel, "", &queue, &number.to_string(), plain()).await?;
    }
    let get = async || -> Result<_, Failure> {
        let options = BasicGetOptions::default();
        Ok(channel.basic_get(queue.as_str().into(), options).await?.ok_or("the queue is empty")?)
    };
    let first = get().await?;
    assert_eq!((text(&first.delivery), first.message_count), ("0".into(), 2));
    first.nack(BasicNackOptions { requeue: true, ..Default::default() }).await?;
    let again = get().await?;
    assert_eq!((text(&again.delivery), again.redelivered), ("0".into(), true));
    Ok(())
}

async fn errors(connection: Connection) -> Outcome {
    let code = async |name: &str, options, arguments| -> Result<u16, Failure> {
        let channel = connection.create_channel().await?;
        match channel.queue_declare(name.into(), options, arguments).await {
            Ok(queue) => Err(format!("'{}' was declared", queue.name()).into()),
            Err(error) => match error.kind() {
                lapin::ErrorKind::ProtocolError(error) => Ok(error.get_id()),
                other => Err(format!("found {other:?}").into()),
            },
        }
    };
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    assert_eq!(code(&unique("missing"), passive, nothing()).await?, 404);
    assert_eq!(code("amq.mine", QueueDeclareOptions::durable(), nothing()).await?, 403);
    let keeper = connection.create_channel().await?;
    let queue = own_queue(&keeper, nothing()).await?;
    assert_eq!(code(&queue, QueueDeclareOptions::durable(), nothing()).await?, 405);
    let mut arguments = nothing();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    assert_eq!(code(&queue, QueueDeclareOptions::exclusive(), arguments).await?, 406);
    Ok(())
}

/// lapin connects again by itself, and declares what was declared: what lasts, and what went with the broker.
async fn recovery() -> Outcome {
    let mut broker = OwnBroker::start().await?;
    let backoff = |it: ExponentialBuilder| {
        it.with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_millis(500))
            .with_max_times(100)
    };
    let properties =
        ConnectionProperties::default().enable_auto_recover().configure_backoff(backoff);
    let connection = Connection::connect(&broker.uri, properties).await?;
    let publisher = connection.create_channel().await?;
    publisher.confirm_select(ConfirmSelectOptions::default()).await?;
    let worker = connection.create_channel().await?;
    let exchange = ExchangeDeclareOptions::default();
    worker.exchange_declare("passing".into(), ExchangeKind::Fanout, exchange, nothing()).await?;
    worker.queue_declare("lasting".into(), QueueDeclareOptions::durable(), nothing()).await?;
    let exclusive = QueueDeclareOptions::exclusive();
    worker.queue_declare("passing".into(), exclusive, nothing()).await?;
    bind(&worker, "passing", "passing", "").await?;
    let received = Arc::new(Mutex::new(BTreeSet::new()));
    for queue in ["lasting", "passing"] {
        let (worker, received) = (worker.clone(), received.clone());
        let mut consumer = consume(&worker, queue, false).await?;
        tokio::spawn(async move {
            while let Some(delivery) = consumer.next().await {
                let done = match delivery {
                    Ok(delivery) => {
                        received.lock().expect("nobody panics").insert(text(&delivery));
                        delivery.ack(BasicAckOptions::default()).await.map(|_| ())
                    }
                    Err(error) => Err(error),
                };
                if let Err(error) = done {
                    worker.wait_for_recovery(error).await.expect("the channel comes back");
                }
            }
        });
    }
    let send = async |exchange: &str, key: &str, body: &str| -> Outcome {
        loop {
            match publish(&publisher, exchange, key, body, persistent()).await {
                Ok(Confirmation::Ack(None)) => return Ok(()),
                // The one that was on its way when the broker went, or was sent before all was declared again.
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(failure) => {
                    let error = *failure.downcast::<lapin::Error>().map_err(|it| it.to_string())?;
                    publisher.wait_for_recovery(error).await?;
                }
            }
        }
    };
    let mut expected = BTreeSet::new();
    for turn in ["first", "kill", "stop"] {
        if turn != "first" {
            broker.order(turn).await?;
            broker.order("start").await?;
        }
        for (exchange, key) in [("", "lasting"), ("passing", "")] {
            let body = format!("{turn} {exchange}{key}");
            send(exchange, key, &body).await?;
            expected.insert(body);
        }
        while *received.lock().expect("nobody panics") != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    connection.close(200, "done".into()).await?;
    broker.end().await
}

/// Runs a scenario to its end, its panic or the end of patience.
async fn run(name: &str, scenario: impl Future<Output = Outcome> + Send + 'static) -> bool {
    let reason = match tokio::time::timeout(PATIENCE, tokio::spawn(scenario)).await {
        Ok(Ok(Ok(()))) => {
            println!("ok {name}");
            return true;
        }
        Ok(Ok(Err(failure))) => failure.to_string(),
        Ok(Err(panic)) => panic.to_string(),
        Err(_) => format!("not done within {PATIENCE:?}"),
    };
    println!("FAIL {name}: {}", reason.replace('\n', " "));
    false
}

#[tokio::main]
async fn main() -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    let mut count = |fine| if fine { passed += 1 } else { failed += 1 };
    macro_rules! scenarios {
        ($($name:literal: $scenario:ident,)*) => {
            $( count(run($name, async {
                let uri = std::env::var("AMQP_URL")?;
                $scenario(Connection::connect(&uri, ConnectionProperties::default()).await?).await
            }).await); )*
        };
    }
    scenarios! {
        "work queue": work_queue,
        "publish/subscribe": publish_subscribe,
        "routing": routing,
        "topics": topics,
        "RPC": rpc,
        "publisher confirms": publisher_confirms,
        "mandatory return": mandatory_return,
        "dead letters and TTL": dead_letters,
        "get": get_and_requeue,
        "errors": errors,
    }
    if std::env::var_os("PILLARBOX_BIN").is_some() {
        count(run("recovery", recovery()).await);
    } else {
        println!("skip recovery: the broker was started by somebody else");
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
