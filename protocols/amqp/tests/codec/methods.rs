use std::collections::BTreeSet;

use bytes::Bytes;
use pillarbox_amqp::{FieldTable, FieldValue, Method, MethodError, ValueError, method_ids};
use rstest::rstest;

use crate::bytes_of::{payload_of, short, wire};
use crate::generate::METHODS;

fn long(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn limit() -> FieldTable {
    FieldTable(vec![(short("n"), FieldValue::I32(5))])
}

#[rstest]
#[case::connection_start(
    Method::ConnectionStart {
        version_major: 0, version_minor: 9, server_properties: limit(),
        mechanisms: long("PLAIN"), locales: long("en_US"),
    },
    "000a 000a 00 09 00000007 01 'n' 'I' 00000005 00000005 'PLAIN' 00000005 'en_US'"
)]
#[case::connection_start_ok(
    Method::ConnectionStartOk {
        client_properties: limit(), mechanism: short("PLAIN"), response: long("\0u\0p"),
        locale: short("en_US"),
    },
    "000a 000b 00000007 01 'n' 'I' 00000005 05 'PLAIN' 00000004 00 'u' 00 'p' 05 'en_US'"
)]
#[case::connection_secure(
    Method::ConnectionSecure { challenge: long("why") }, "000a 0014 00000003 'why'"
)]
#[case::connection_secure_ok(
    Method::ConnectionSecureOk { response: long("so") }, "000a 0015 00000002 'so'"
)]
#[case::connection_tune(
    Method::ConnectionTune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 },
    "000a 001e 07ff 00020000 003c"
)]
#[case::connection_tune_ok(
    Method::ConnectionTuneOk { channel_max: 1, frame_max: 4096, heartbeat: 5 },
    "000a 001f 0001 00001000 0005"
)]
#[case::connection_open(Method::ConnectionOpen { vhost: short("/") }, "000a 0028 01 '/' 00 00")]
#[case::connection_open_ok(Method::ConnectionOpenOk, "000a 0029 00")]
#[case::connection_close(
    Method::ConnectionClose {
        reply_code: 501, reply_text: short("no"), class_id: 60, method_id: 40,
    },
    "000a 0032 01f5 02 'no' 003c 0028"
)]
#[case::connection_close_ok(Method::ConnectionCloseOk, "000a 0033")]
#[case::connection_blocked(
    Method::ConnectionBlocked { reason: short("low on memory") }, "000a 003c 0d 'low on memory'"
)]
#[case::connection_unblocked(Method::ConnectionUnblocked, "000a 003d")]
#[case::connection_update_secret(
    Method::ConnectionUpdateSecret { new_secret: long("jwt"), reason: short("old") },
    "000a 0046 00000003 'jwt' 03 'old'"
)]
#[case::connection_update_secret_ok(Method::ConnectionUpdateSecretOk, "000a 0047")]
#[case::channel_open(Method::ChannelOpen, "0014 000a 00")]
#[case::channel_open_ok(Method::ChannelOpenOk, "0014 000b 00000000")]
#[case::channel_flow(Method::ChannelFlow { active: true }, "0014 0014 01")]
#[case::channel_flow_ok(Method::ChannelFlowOk { active: false }, "0014 0015 00")]
#[case::channel_close(
    Method::ChannelClose {
        reply_code: 404, reply_text: short("no"), class_id: 50, method_id: 10,
    },
    "0014 0028 0194 02 'no' 0032 000a"
)]
#[case::channel_close_ok(Method::ChannelCloseOk, "0014 0029")]
#[case::access_request(
    Method::AccessRequest {
        realm: short("/data"), exclusive: false, passive: true, active: false, write: true,
        read: false,
    },
    "001e 000a 05 '/data' 0a"
)]
#[case::access_request_ok(Method::AccessRequestOk { ticket: 1 }, "001e 000b 0001")]
#[case::exchange_declare(
    Method::ExchangeDeclare {
        exchange: short("logs"), kind: short("topic"), passive: false, durable: true,
        auto_delete: false, internal: true, nowait: false, arguments: limit(),
    },
    "0028 000a 0000 04 'logs' 05 'topic' 0a 00000007 01 'n' 'I' 00000005"
)]
#[case::exchange_declare_ok(Method::ExchangeDeclareOk, "0028 000b")]
#[case::exchange_delete(
    Method::ExchangeDelete { exchange: short("logs"), if_unused: false, nowait: true },
    "0028 0014 0000 04 'logs' 02"
)]
#[case::exchange_delete_ok(Method::ExchangeDeleteOk, "0028 0015")]
#[case::exchange_bind(
    Method::ExchangeBind {
        destination: short("to"), source: short("from"), routing_key: short("key"), nowait: true,
        arguments: FieldTable::new(),
    },
    "0028 001e 0000 02 'to' 04 'from' 03 'key' 01 00000000"
)]
#[case::exchange_bind_ok(Method::ExchangeBindOk, "0028 001f")]
#[case::exchange_unbind(
    Method::ExchangeUnbind {
        destination: short("to"), source: short("from"), routing_key: short("key"), nowait: false,
        arguments: limit(),
    },
    "0028 0028 0000 02 'to' 04 'from' 03 'key' 00 00000007 01 'n' 'I' 00000005"
)]
#[case::exchange_unbind_ok(Method::ExchangeUnbindOk, "0028 0033")]
#[case::queue_declare(
    Method::QueueDeclare {
        queue: short("jobs"), passive: false, durable: true, exclusive: false, auto_delete: true,
        nowait: true, arguments: limit(),
    },
    "0032 000a 0000 04 'jobs' 1a 00000007 01 'n' 'I' 00000005"
)]
#[case::queue_declare_ok(
    Method::QueueDeclareOk { queue: short("jobs"), message_count: 258, consumer_count: 3 },
    "0032 000b 04 'jobs' 00000102 00000003"
)]
#[case::queue_bind(
    Method::QueueBind {
        queue: short("q"), exchange: short("ex"), routing_key: short("key"), nowait: true,
        arguments: limit(),
    },
    "0032 0014 0000 01 'q' 02 'ex' 03 'key' 01 00000007 01 'n' 'I' 00000005"
)]
#[case::queue_bind_ok(Method::QueueBindOk, "0032 0015")]
#[case::queue_purge(
    Method::QueuePurge { queue: short("q"), nowait: true }, "0032 001e 0000 01 'q' 01"
)]
#[case::queue_purge_ok(Method::QueuePurgeOk { message_count: 7 }, "0032 001f 00000007")]
#[case::queue_delete(
    Method::QueueDelete { queue: short("q"), if_unused: false, if_empty: true, nowait: false },
    "0032 0028 0000 01 'q' 02"
)]
#[case::queue_delete_ok(Method::QueueDeleteOk { message_count: 7 }, "0032 0029 00000007")]
#[case::queue_unbind(
    Method::QueueUnbind {
        queue: short("q"), exchange: short("ex"), routing_key: short("key"), arguments: limit(),
    },
    "0032 0032 0000 01 'q' 02 'ex' 03 'key' 00000007 01 'n' 'I' 00000005"
)]
#[case::queue_unbind_ok(Method::QueueUnbindOk, "0032 0033")]
#[case::basic_qos(
    Method::BasicQos { prefetch_size: 0, prefetch_count: 100, global: true },
    "003c 000a 00000000 0064 01"
)]
#[case::basic_qos_ok(Method::BasicQosOk, "003c 000b")]
#[case::basic_consume(
    Method::BasicConsume {
        queue: short("q"), consumer_tag: short("tag"), no_local: false, no_ack: true,
        exclusive: false, nowait: true, arguments: limit(),
    },
    "003c 0014 0000 01 'q' 03 'tag' 0a 00000007 01 'n' 'I' 00000005"
)]
#[case::basic_consume_ok(
    Method::BasicConsumeOk { consumer_tag: short("tag") }, "003c 0015 03 'tag'"
)]
#[case::basic_cancel(
    Method::BasicCancel { consumer_tag: short("tag"), nowait: true }, "003c 001e 03 'tag' 01"
)]
#[case::basic_cancel_ok(
    Method::BasicCancelOk { consumer_tag: short("tag") }, "003c 001f 03 'tag'"
)]
#[case::basic_publish(
    Method::BasicPublish {
        exchange: short("ex"), routing_key: short("key"), mandatory: true, immediate: false,
    },
    "003c 0028 0000 02 'ex' 03 'key' 01"
)]
#[case::basic_return(
    Method::BasicReturn {
        reply_code: 312, reply_text: short("NO_ROUTE"), exchange: short("ex"),
        routing_key: short("key"),
    },
    "003c 0032 0138 08 'NO_ROUTE' 02 'ex' 03 'key'"
)]
#[case::basic_deliver(
    Method::BasicDeliver {
        consumer_tag: short("tag"), delivery_tag: 0x0102_0304_0506_0708, redelivered: true,
        exchange: short("ex"), routing_key: short("key"),
    },
    "003c 003c 03 'tag' 0102030405060708 01 02 'ex' 03 'key'"
)]
#[case::basic_get(
    Method::BasicGet { queue: short("q"), no_ack: true }, "003c 0046 0000 01 'q' 01"
)]
#[case::basic_get_ok(
    Method::BasicGetOk {
        delivery_tag: 9, redelivered: false, exchange: short("ex"), routing_key: short("key"),
        message_count: 4,
    },
    "003c 0047 0000000000000009 00 02 'ex' 03 'key' 00000004"
)]
#[case::basic_get_empty(Method::BasicGetEmpty, "003c 0048 00")]
#[case::basic_ack(
    Method::BasicAck { delivery_tag: 9, multiple: true }, "003c 0050 0000000000000009 01"
)]
#[case::basic_reject(
    Method::BasicReject { delivery_tag: 9, requeue: true }, "003c 005a 0000000000000009 01"
)]
#[case::basic_recover_async(Method::BasicRecoverAsync { requeue: true }, "003c 0064 01")]
#[case::basic_recover(Method::BasicRecover { requeue: true }, "003c 006e 01")]
#[case::basic_recover_ok(Method::BasicRecoverOk, "003c 006f")]
#[case::basic_nack(
    Method::BasicNack { delivery_tag: 9, multiple: false, requeue: true },
    "003c 0078 0000000000000009 02"
)]
#[case::confirm_select(Method::ConfirmSelect { nowait: true }, "0055 000a 01")]
#[case::confirm_select_ok(Method::ConfirmSelectOk, "0055 000b")]
#[case::tx_select(Method::TxSelect, "005a 000a")]
#[case::tx_select_ok(Method::TxSelectOk, "005a 000b")]
#[case::tx_commit(Method::TxCommit, "005a 0014")]
#[case::tx_commit_ok(Method::TxCommitOk, "005a 0015")]
#[case::tx_rollback(Method::TxRollback, "005a 001e")]
#[case::tx_rollback_ok(Method::TxRollbackOk, "005a 001f")]
fn method_has_its_bytes(#[case] method: Method, #[case] text: &str) {
    let payload = wire(text);
    assert_eq!(payload_of(&method, 7), payload);
    assert_eq!(Method::decode(&payload), Ok(method.clone()));

    let (class, id) = method.ids();
    assert_eq!(method_ids(&payload), Some((class, id)));
    for cut in 0..payload.len() {
        let ids = if cut < 4 { (0, 0) } else { (class, id) };
        let refused = Method::decode(&payload[..cut]).expect_err("cut");
        assert!(matches!(refused, MethodError::Truncated { .. }), "{cut}");
        assert_eq!(refused.ids(), ids);
    }
    let longer = [&payload[..], &[0]].concat();
    assert_eq!(Method::decode(&longer), Err(MethodError::Trailing { class, method: id }));
}

#[test]
fn knows_the_methods_of_the_specification_and_no_others() {
    let specified: BTreeSet<_> = METHODS.iter().map(|&(class, id, ..)| (class, id)).collect();
    let classes: BTreeSet<_> = specified.iter().map(|&(class, _)| class).collect();
    for class in 0..=256 {
        for id in 0..=256 {
            let [a, b] = u16::to_be_bytes(class);
            let [c, d] = u16::to_be_bytes(id);
            let decoded = Method::decode(&[[a, b, c, d].as_slice(), &[0; 32]].concat());
            match (specified.contains(&(class, id)), classes.contains(&class)) {
                (true, _) => assert!(!matches!(
                    decoded,
                    Err(MethodError::UnknownClass(_) | MethodError::UnknownMethod(..))
                )),
                (false, true) => assert_eq!(decoded, Err(MethodError::UnknownMethod(class, id))),
                (false, false) => assert_eq!(decoded, Err(MethodError::UnknownClass(class))),
            }
        }
    }
}

#[test]
fn reserved_arguments_are_ignored() {
    let declared = Method::decode(&wire("0032 000a ffff 01 'q' 00 00000000"));
    assert_eq!(declared.map(|method| method.name()), Ok("queue.declare"));
    let opened = Method::decode(&wire("000a 0028 01 '/' 03 'abc' 01"));
    assert_eq!(opened, Ok(Method::ConnectionOpen { vhost: short("/") }));
    let opened = Method::decode(&wire("0014 000a 03 'abc'"));
    assert_eq!(opened, Ok(Method::ChannelOpen));
}

#[test]
fn bad_table_names_its_method() {
    let refused = Method::decode(&wire("0032 000a 0000 01 'q' 00 00000003 01 'n' 'U'"))
        .expect_err("an unknown tag");
    assert_eq!(refused.ids(), (50, 10));
    assert!(matches!(refused, MethodError::BadTable { error: ValueError::UnknownTag(b'U'), .. }));
}
