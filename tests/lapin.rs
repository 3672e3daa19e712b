//! lapin, the AMQP client in Rust, against a broker in this process: the wiring of sockets, sessions, broker and store.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions,
    BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
};
use pillarbox::config::{Address, Config};
use pillarbox::server::Server;

/// Longer than any of these takes; shorter than a hanging test run.
const PATIENCE: Duration = Duration::from_secs(60);

async fn house(directory: Option<&std::path::Path>) -> Server {
    let mut config = Config::default();
    config.listen.amqp = Address::At("127.0.0.1:0".parse().unwrap());
    config.listen.stomp = Address::Off;
    config.listen.http = Address::Off;
    config.listen.native = Address::Off;
    match directory {
        Some(directory) => config.store.directory = directory.to_owned(),
        None => config.store.in_memory = true,
    }
    Server::start(config).await.unwrap()
}

async fn connect(server: &Server) -> Connection {
    let uri = format!("amqp://guest:guest@{}/%2f", server.amqp_address().unwrap());
    Connection::connect(&uri, ConnectionProperties::default()).await.unwrap()
}

async fn declare(channel: &Channel, name: &str, arguments: FieldTable) {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, arguments).await.unwrap();
}

async fn publish(channel: &Channel, exchange: &str, key: &str, body: &[u8]) -> Confirmation {
    let properties = BasicProperties::default().with_delivery_mode(2);
    channel
        .basic_publish(
            exchange.into(),
            key.into(),
            BasicPublishOptions::default(),
            body,
            properties,
        )
        .await
        .unwrap()
        .await
        .unwrap()
}

#[tokio::test]
async fn confirmed_messages_arrive_in_order_and_are_settled() {
    let work = async {
        let server = house(None).await;
        let connection = connect(&server).await;
        let channel = connection.create_channel().await.unwrap();
        declare(&channel, "work", FieldTable::default()).await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        for number in 0..500u32 {
            let confirmation = publish(&channel, "", "work", &number.to_be_bytes()).await;
            assert!(confirmation.is_ack());
        }
        channel.basic_qos(20, BasicQosOptions::default()).await.unwrap();
        let mut consumer = channel
            .basic_consume(
                "work".into(),
                "mine".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        for number in 0..500u32 {
            let delivery = consumer.next().await.unwrap().unwrap();
            assert_eq!(delivery.data, number.to_be_bytes());
            assert!(!delivery.redelivered);
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue =
            channel.queue_declare("work".into(), options, FieldTable::default()).await.unwrap();
        assert_eq!((queue.message_count(), queue.consumer_count()), (0, 1));
        connection.close(200, "bye".into()).await.unwrap();
        server.stop().await.unwrap();
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap();
}

#[tokio::test]
async fn what_was_confirmed_is_there_after_a_restart() {
    let work = async {
        let directory = tempfile::tempdir().unwrap();
        let server = house(Some(directory.path())).await;
        let connection = connect(&server).await;
        let channel = connection.create_channel().await.unwrap();
        declare(&channel, "kept", FieldTable::default()).await;
        let exchange =
            ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel
            .exchange_declare("news".into(), ExchangeKind::Topic, exchange, FieldTable::default())
            .await
            .unwrap();
        channel
            .queue_bind(
                "kept".into(),
                "news".into(),
                "a.#".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        for body in [&b"one"[..], b"two", b"three"] {
            assert!(publish(&channel, "news", "a.b.c", body).await.is_ack());
        }
        let first =
            channel.basic_get("kept".into(), BasicGetOptions::default()).await.unwrap().unwrap();
        first.ack(BasicAckOptions::default()).await.unwrap();
        let _ = connection.close(200, "bye".into()).await;
        server.stop().await.unwrap();

        let server = house(Some(directory.path())).await;
        let connection = connect(&server).await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        assert!(publish(&channel, "news", "a", b"four").await.is_ack());
        for body in [&b"two"[..], b"three", b"four"] {
            let got = channel
                .basic_get("kept".into(), BasicGetOptions::default())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(got.data, body);
            got.ack(BasicAckOptions::default()).await.unwrap();
        }
        assert!(
            channel.basic_get("kept".into(), BasicGetOptions::default()).await.unwrap().is_none()
        );
        server.stop().await.unwrap();
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap();
}

#[tokio::test]
async fn a_rejected_message_goes_to_the_dead_letters() {
    let work = async {
        let server = house(None).await;
        let connection = connect(&server).await;
        let channel = connection.create_channel().await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
        arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString("dead".into()));
        declare(&channel, "alive", arguments).await;
        declare(&channel, "dead", FieldTable::default()).await;
        publish(&channel, "", "alive", b"poison").await;
        let got = loop {
            let got = channel.basic_get("alive".into(), BasicGetOptions::default()).await.unwrap();
            if let Some(got) = got {
                break got;
            }
        };
        got.nack(BasicNackOptions { requeue: false, ..BasicNackOptions::default() }).await.unwrap();
        let dead = loop {
            let got = channel.basic_get("dead".into(), BasicGetOptions::default()).await.unwrap();
            if let Some(got) = got {
                break got;
            }
        };
        assert_eq!(dead.data, b"poison");
        let headers = dead.properties.headers().as_ref().unwrap();
        let reason = headers.inner().get("x-first-death-reason").unwrap();
        assert_eq!(reason, &AMQPValue::LongString("rejected".into()));
        server.stop().await.unwrap();
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap();
}

#[tokio::test]
async fn of_each_key_one_message_is_out_at_a_time() {
    let work = async {
        let server = house(None).await;
        let connection = connect(&server).await;
        let channel = connection.create_channel().await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-message-groups".into(), AMQPValue::LongString("routing-key".into()));
        declare(&channel, "work", arguments).await;
        let (options, bind) = (QueueBindOptions::default(), FieldTable::default());
        channel
            .queue_bind("work".into(), "amq.topic".into(), "#".into(), options, bind)
            .await
            .unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        for (key, body) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3"), ("b", "b2")] {
            assert!(publish(&channel, "amq.topic", key, body.as_bytes()).await.is_ack());
        }
        let mut consumer = channel
            .basic_consume(
                "work".into(),
                "mine".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        let mut next = async || consumer.next().await.unwrap().unwrap();
        let (a1, b1) = (next().await, next().await);
        assert_eq!((&a1.data[..], &b1.data[..]), (&b"a1"[..], &b"b1"[..]));
        b1.ack(BasicAckOptions::default()).await.unwrap();
        assert_eq!(next().await.data, b"b2");
        let back = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        a1.nack(back).await.unwrap();
        let again = next().await;
        assert_eq!((&again.data[..], again.redelivered), (&b"a1"[..], true));
        again.ack(BasicAckOptions::default()).await.unwrap();
        assert_eq!(next().await.data, b"a2");
        connection.close(200, "bye".into()).await.unwrap();
        server.stop().await.unwrap();
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap();
}
