//! RabbitMQ's HTTP API, and mailboxes over HTTP.

use serde_json::{Value, json};

use crate::oracle::Need;
use crate::{Scene, Tally, permissions};

fn requests() -> Vec<(&'static str, Value, &'static [Need])> {
    let publish = |key: &str| json!({"properties": {}, "routing_key": key, "payload": "x", "payload_encoding": "string"});
    let get = |mode: &str| json!({"count": 1, "ackmode": mode, "encoding": "auto"});
    let key = |key: &str| json!({"routing_key": key, "arguments": {}});
    vec![
        ("PUT /api/queues/%2F/ab", json!({"durable": true}), &[('c', "queue", "ab")]),
        (
            "PUT /api/queues/%2F/abx2",
            json!({"durable": true, "arguments": {"x-dead-letter-exchange": "abx"}}),
            &[('c', "queue", "abx2"), ('r', "queue", "abx2"), ('w', "exchange", "abx")],
        ),
        ("DELETE /api/queues/%2F/ab/contents", Value::Null, &[('r', "queue", "ab")]),
        (
            "PUT /api/exchanges/%2F/abx",
            json!({"type": "direct", "durable": false}),
            &[('c', "exchange", "abx")],
        ),
        (
            "PUT /api/exchanges/%2F/abx2",
            json!({"type": "direct", "arguments": {"alternate-exchange": "abx"}}),
            &[('c', "exchange", "abx2"), ('r', "exchange", "abx2"), ('w', "exchange", "abx")],
        ),
        (
            "POST /api/bindings/%2F/e/abx/q/ab",
            key("k"),
            &[('w', "queue", "ab"), ('r', "exchange", "abx")],
        ),
        (
            "POST /api/bindings/%2F/e/abt/q/ab",
            key("k.bad"),
            &[('w', "queue", "ab"), ('r', "exchange", "abt"), ('r', "abt", "k.bad")],
        ),
        (
            "POST /api/bindings/%2F/e/abx/e/aby",
            key("k"),
            &[('w', "exchange", "aby"), ('r', "exchange", "abx")],
        ),
        (
            "DELETE /api/bindings/%2F/e/abx/q/ab/k",
            Value::Null,
            &[('w', "queue", "ab"), ('r', "exchange", "abx")],
        ),
        ("POST /api/exchanges/%2F/abx/publish", publish("k"), &[('w', "exchange", "abx")]),
        (
            "POST /api/exchanges/%2F/amq.default/publish",
            publish("ab"),
            &[('w', "exchange", "amq.default")],
        ),
        (
            "POST /api/exchanges/%2F/abt/publish",
            publish("k.bad"),
            &[('w', "exchange", "abt"), ('w', "abt", "k.bad")],
        ),
        ("POST /api/queues/%2F/ab/get", get("ack_requeue_true"), &[('r', "queue", "ab")]),
        ("POST /api/queues/%2F/ab/get", get("ack_requeue_false"), &[('r', "queue", "ab")]),
        ("DELETE /api/exchanges/%2F/abx", Value::Null, &[('c', "exchange", "abx")]),
        ("DELETE /api/queues/%2F/ab", Value::Null, &[('c', "queue", "ab")]),
        ("POST /mailbox/ab", Value::Null, &[('c', "queue", "ab")]),
        ("PUT /mailbox/ab", json!({"body": "eA=="}), &[('w', "exchange", "amq.default")]),
        ("GET /mailbox/ab", Value::Null, &[('r', "queue", "ab")]),
        ("DELETE /mailbox/ab", Value::Null, &[('?', "queue", "ab"), ('c', "queue", "ab")]),
    ]
}

#[tokio::test]
async fn every_request_is_refused_to_whom_it_is_not_allowed() {
    let mut scene = Scene::new().await;
    let mut tally = Tally::default();
    for shapes in permissions() {
        scene.permit(shapes).await;
        for (line, body, needs) in requests() {
            scene.set_again().await;
            let (method, path) = line.split_once(' ').expect("a method and a path");
            let body = (!body.is_null()).then_some(&body);
            let heard = scene.house.as_user(("ann", "ann"), method, path, body).await;
            let refused = if path.starts_with("/api") { 401 } else { 403 };
            let said = match heard.status {
                200..300 => None,
                status if status == refused => Some(heard.body.as_str()),
                404 if path.starts_with("/mailbox") => Some(heard.body.as_str()),
                _ => panic!("{line}: {heard:?}"),
            };
            scene.note(needs, said.is_some());
            tally.note(line, needs, shapes, said);
        }
    }
    tally.check();
    scene.permit([(".*", |_| true); 3]).await;
    let text = "user_id property set to 'guest' but authenticated user was 'ann'";
    let forged = json!({
        "properties": {"user_id": "guest"}, "routing_key": "ab", "payload": "x", "payload_encoding": "string",
    });
    for (method, path, body) in [
        ("POST", "/api/exchanges/%2F/amq.default/publish", forged),
        ("PUT", "/mailbox/ab", json!({"user_id": "guest"})),
    ] {
        let heard = scene.house.as_user(("ann", "ann"), method, path, Some(&body)).await;
        assert!(heard.status == 400 && heard.body.contains(text), "{heard:?}");
    }
}
