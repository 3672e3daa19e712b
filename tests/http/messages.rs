//! Messages through the API, and what is counted of them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lapin::options::*;
use lapin::types::FieldTable;
use serde_json::{Value, json};

use crate::house::House;

async fn get(house: &House, queue: &str, body: Value) -> Vec<Value> {
    let path = format!("/api/queues/%2F/{queue}/get");
    match house.does("POST", &path, body, 200).await.json() {
        Value::Array(list) => list,
        other => panic!("no list: {other}"),
    }
}

#[tokio::test]
async fn a_message_comes_back_as_it_was_published() {
    let house = House::new().await;
    house.queue("q").await;
    let properties = json!({
        "content_type": "text/plain", "delivery_mode": 2, "priority": 3, "message_id": "m", "type": "t",
        "timestamp": 1700000000, "headers": {"a": 1, "b": {"c": [true, null]}},
    });
    let body = json!({"properties": properties, "routing_key": "q", "payload": "ol\u{e1}", "payload_encoding": "string"});
    let path = "/api/exchanges/%2F/amq.default/publish";
    assert_eq!(house.does("POST", path, body, 200).await.json(), json!({"routed": true}));
    assert_eq!(house.publish("nowhere", "x").await, json!({"routed": false}));
    let ask =
        json!({"count": 5, "ackmode": "ack_requeue_true", "encoding": "auto", "truncate": 50000});
    let found = get(&house, "q", ask.clone()).await;
    assert_eq!(
        found,
        [json!({
            "payload_bytes": 4, "redelivered": false, "exchange": "", "routing_key": "q", "message_count": 0,
            "properties": properties, "payload": "ol\u{e1}", "payload_encoding": "string",
        })]
    );
    // Looking leaves no trace.
    assert_eq!(get(&house, "q", ask).await, found);
    let stats = house.get("/api/queues/%2F/q").await["message_stats"].clone();
    assert_eq!((&stats["deliver_get"], &stats["redeliver"]), (&json!(0), &json!(0)));
    let base64 =
        get(&house, "q", json!({"count": 1, "requeue": true, "encoding": "base64", "truncate": 2}))
            .await;
    assert_eq!(base64[0]["payload"], STANDARD.encode("ol"));
    let binary = json!({"properties": {}, "routing_key": "q", "payload": STANDARD.encode(b"\xff\x00"), "payload_encoding": "base64"});
    house.does("POST", path, binary, 200).await;
    let both = get(&house, "q", json!({"count": 9, "requeue": false, "encoding": "auto"})).await;
    assert_eq!(both.iter().map(|it| &it["message_count"]).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(both[1]["payload_encoding"], "base64");
    assert_eq!(get(&house, "q", json!({"count": 9})).await, [] as [Value; 0]);
}

#[tokio::test]
async fn rejected_messages_go_back_or_away() {
    let house = House::new().await;
    let dead =
        json!({"arguments": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}});
    house.does("PUT", "/api/queues/%2F/q", dead, 201).await;
    house.queue("dead").await;
    for body in ["1", "2", "3"] {
        house.publish("q", body).await;
    }
    let payloads = |list: &[Value]| -> Vec<(Value, Value)> {
        list.iter().map(|it| (it["payload"].clone(), it["redelivered"].clone())).collect()
    };
    let back =
        get(&house, "q", json!({"count": 2, "ackmode": "reject_requeue_true", "encoding": "auto"}))
            .await;
    assert_eq!(payloads(&back), [(json!("1"), json!(false)), (json!("2"), json!(false))]);
    let all = get(
        &house,
        "q",
        json!({"count": 9, "ackmode": "reject_requeue_false", "encoding": "auto"}),
    )
    .await;
    assert_eq!(
        payloads(&all),
        [(json!("1"), json!(true)), (json!("2"), json!(true)), (json!("3"), json!(false))]
    );
    house.until("/api/queues/%2F/dead", |it| it["messages"] == 3).await;
    let queue = house.until("/api/queues/%2F/q", |it| it["messages"] == 0).await;
    assert_eq!(queue["messages_unacknowledged"], 0);
    for (body, text) in [
        (json!({"count": 1, "ackmode": "other"}), "ackmode"),
        (json!({"ackmode": "ack_requeue_true"}), "count"),
        (json!({"count": -1}), "count"),
    ] {
        let heard = house.does("POST", "/api/queues/%2F/q/get", body, 400).await;
        assert!(heard.body.contains(text), "{heard:?}");
    }
    house.does("POST", "/api/queues/%2F/none/get", json!({"count": 1}), 404).await;
}

/// Seen by other eyes: an AMQP client publishes and consumes, the API counts.
#[tokio::test]
async fn counters_and_rates_show_what_amqp_clients_do() {
    let house = House::new().await;
    let connection = house.amqp().await;
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
        .queue_declare("q".into(), QueueDeclareOptions::default(), FieldTable::default())
        .await
        .unwrap();
    // A rate is there while messages come: at rest the next look makes it 0 again.
    let mut published = 0;
    let mut rate = 0.0;
    while published < 20 || rate <= 0.0 {
        let properties = lapin::BasicProperties::default();
        let sent = channel.basic_publish(
            "".into(),
            "q".into(),
            BasicPublishOptions::default(),
            b"hello",
            properties,
        );
        sent.await.unwrap().await.unwrap();
        published += 1;
        assert!(published < 10_000, "no rate shows");
        let queue = house.get("/api/queues/%2F/q").await;
        rate = queue["message_stats"]["publish_details"]["rate"].as_f64().unwrap_or(0.0);
    }
    for n in 0..5 {
        let got = channel
            .basic_get("q".into(), BasicGetOptions { no_ack: n == 0 })
            .await
            .unwrap()
            .unwrap();
        if n > 0 {
            got.delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
    }
    channel.basic_qos(3, BasicQosOptions::default()).await.unwrap();
    let consumer = channel.basic_consume(
        "q".into(),
        "tag".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let _consumer = consumer.await.unwrap();
    let queue = house.until("/api/queues/%2F/q", |it| it["messages_unacknowledged"] == 3).await;
    let stats = &queue["message_stats"];
    for (name, count) in [
        ("publish", published),
        ("deliver", 3),
        ("get", 4),
        ("get_no_ack", 1),
        ("ack", 4),
        ("deliver_get", 8),
    ] {
        assert_eq!(stats[name], count, "{name} in {stats}");
    }
    assert_eq!(queue["messages_ready"], published - 8);
    assert_eq!(queue["message_bytes_unacknowledged"], 15);
    let details = &queue["consumer_details"][0];
    assert_eq!((&details["consumer_tag"], &details["prefetch_count"]), (&json!("tag"), &json!(3)));
    let channels = house.get("/api/channels").await;
    assert_eq!(channels[0]["message_stats"]["confirm"], published);
    assert_eq!(
        (&channels[0]["consumer_count"], &channels[0]["confirm"]),
        (&json!(1), &json!(true))
    );
    let name = details["channel_details"]["connection_name"]
        .as_str()
        .unwrap()
        .replace(' ', "%20")
        .replace('>', "%3E");
    let shown = house.get(&format!("/api/connections/{name}")).await;
    assert_eq!((&shown["protocol"], &shown["user"]), (&json!("AMQP 0-9-1"), &json!("guest")));
    assert!(shown["recv_oct"].as_u64().is_some_and(|it| it > 500), "{shown}");
    assert_eq!(
        house.get("/api/exchanges/%2F/amq.default").await["message_stats"]["publish_in"],
        published
    );
    let overview = house.get("/api/overview?msg_rates_age=60").await;
    assert_eq!(overview["message_stats"]["publish"], published);
    assert_eq!(
        overview["object_totals"],
        json!({"channels": 1, "connections": 1, "consumers": 1, "exchanges": 7, "queues": 1})
    );
    assert!(
        overview["message_stats"]["publish_details"]["samples"]
            .as_array()
            .is_some_and(|it| !it.is_empty())
    );
}

#[tokio::test]
async fn an_operator_closes_a_connection_and_says_why() {
    let house = House::new().await;
    let connection = house.amqp().await;
    let list = house.until("/api/connections", |it| it[0]["name"].is_string()).await;
    let name = list[0]["name"].as_str().unwrap().replace(' ', "%20").replace('>', "%3E");
    let login = format!("Basic {}", STANDARD.encode("guest:guest"));
    let headers = [("authorization", login.as_str()), ("x-reason", "maintenance")];
    let heard = house.send("DELETE", &format!("/api/connections/{name}"), &headers, b"").await;
    assert_eq!(heard.status, 204);
    house.until("/api/connections", |it| it.as_array().is_some_and(Vec::is_empty)).await;
    let error = connection.create_channel().await.expect_err("the connection is closed");
    assert!(!connection.status().connected(), "{error}");
    assert_eq!(house.ask("DELETE", &format!("/api/connections/{name}"), None).await.status, 404);
}

#[tokio::test]
async fn messages_are_searched_and_stay() {
    let house = House::new().await;
    house.queue("q").await;
    for n in 1..=5 {
        let properties = json!({"headers": {"n": n}});
        let body = json!({"properties": properties, "routing_key": "q", "payload": n.to_string(), "payload_encoding": "string"});
        house.does("POST", "/api/exchanges/%2F/amq.default/publish", body, 200).await;
    }
    let path = "/api/queues/%2F/q/messages";
    let page = house.get(&format!("{path}?where=n%3E2&count=2")).await;
    let payloads = |page: &Value| -> Vec<Value> {
        page["messages"].as_array().unwrap().iter().map(|it| it["payload"].clone()).collect()
    };
    assert_eq!(payloads(&page), ["3", "4"]);
    let first = &page["messages"][0];
    assert_eq!((&first["state"], &first["position"]), (&json!("ready"), &json!(3)));
    let next = page["next"].as_str().unwrap();
    let page = house.get(&format!("{path}?where=n%3E2&count=2&after={next}")).await;
    assert_eq!((payloads(&page), &page["next"]), (vec![json!("5")], &Value::Null));
    let none = house.get(&format!("{path}?state=unsettled,delayed")).await;
    assert_eq!(none, json!({"messages": [], "next": null}));
    assert_eq!(house.get("/api/queues/%2F/q").await["messages_ready"], 5);
    for wrong in ["where=n+%3E", "state=gone", "after=here", "count=-1"] {
        house.does("GET", &format!("{path}?{wrong}"), Value::Null, 400).await;
    }
    house.does("GET", "/api/queues/%2F/missing/messages", Value::Null, 404).await;
    let described = house.get("/api/openapi.json").await;
    let parameters =
        &described["paths"]["/api/queues/{vhost}/{name}/messages"]["get"]["parameters"];
    let names: Vec<_> = parameters.as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(
        names,
        ["vhost", "name", "state", "where", "after", "count", "encoding", "truncate"]
    );
}

#[tokio::test]
async fn settled_messages_are_put_back() {
    let house = House::new().await;
    let keep = json!({"arguments": {"x-keep-settled-for": 60000}});
    house.does("PUT", "/api/queues/%2F/q", keep, 201).await;
    for body in ["1", "2", "3"] {
        house.publish("q", body).await;
    }
    get(&house, "q", json!({"count": 9, "requeue": false, "encoding": "auto"})).await;
    let path = "/api/queues/%2F/q/rewind";
    let rewind = json!({"from_position": 2, "to_position": 3});
    assert_eq!(house.does("POST", path, rewind, 200).await.json(), json!({"moved": 1}));
    let back = get(&house, "q", json!({"count": 9, "requeue": true, "encoding": "auto"})).await;
    assert_eq!((&back[0]["payload"], &back[0]["redelivered"]), (&json!("2"), &json!(true)));
    let rest = house.does("POST", path, json!({}), 200).await.json();
    assert_eq!(rest, json!({"moved": 2}));
    house.queue("plain").await;
    house.does("POST", "/api/queues/%2F/plain/rewind", json!({}), 400).await;
    house.does("POST", path, json!({"where": "n ="}), 400).await;
}
