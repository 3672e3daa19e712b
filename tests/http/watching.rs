//! Health, metrics and the console.

use std::collections::BTreeSet;
use std::time::Duration;

use pillarbox::config::{Address, Config};
use pillarbox::server::{Protocol, Server};
use serde_json::{Value, json};

use crate::house::House;

#[tokio::test]
async fn health_is_told_in_statuses() {
    let house = House::new().await;
    for open in ["/api/health/live", "/api/health/ready"] {
        assert_eq!(house.send("GET", open, &[], b"").await.json(), json!({"status": "ok"}));
    }
    for check in [
        "alarms",
        "local-alarms",
        "virtual-hosts",
        "node-is-quorum-critical",
        "node-is-mirror-sync-critical",
        "is-in-service",
        "ready-to-serve-clients",
        "below-node-connection-limit",
        "certificate-expiration/1/months",
        "protocol-listener/amqp091",
        "protocol-listener/http",
        "reached-target-cluster-size",
        "metadata-store/initialized",
        "metadata-store/initialized/with-data",
        "quorum-queues-without-elected-leaders/all-vhosts/",
        "quorum-queues-without-elected-leaders/all-vhosts/pattern/.*",
        "quorum-queues-without-elected-leaders/vhost/%2F/",
        "quorum-queues-without-elected-leaders/vhost/%2F/pattern/.*",
    ] {
        assert_eq!(
            house.get(&format!("/api/health/checks/{check}")).await["status"],
            "ok",
            "{check}"
        );
    }
    let port = house.server.amqp_address().unwrap().port();
    house.does("GET", &format!("/api/health/checks/port-listener/{port}"), Value::Null, 200).await;
    let heard =
        house.does("GET", "/api/health/checks/port-listener/1", Value::Null, 503).await.json();
    assert_eq!((&heard["status"], &heard["missing"]), (&json!("failed"), &json!(1)));
    house.does("GET", "/api/health/checks/port-listener/0x1", Value::Null, 400).await;
    house.does("GET", "/api/health/checks/protocol-listener/mqtt", Value::Null, 503).await;
    house.does("GET", "/api/health/checks/certificate-expiration/0/days", Value::Null, 400).await;
    assert_eq!(house.get("/api/aliveness-test/%2F").await, json!({"status": "ok"}));
    assert_eq!(house.get("/api/queues/%2F/aliveness-test").await["messages"], 0);
    let node = house.get("/api/overview").await["node"].as_str().unwrap().to_owned();
    let facts = house.until(&format!("/api/nodes/{node}"), |it| it["mem_used"] != 0).await;
    assert_eq!((&facts["running"], &facts["mem_alarm"]), (&json!(true), &json!(false)));
    house.does("GET", "/api/nodes/other", Value::Null, 404).await;
    let memory = house.get(&format!("/api/nodes/{node}/memory")).await["memory"].clone();
    let classes: u64 = memory.as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(json!(classes), memory["total"]["rss"], "{memory}");
}

/// Values by name and labels; every name has its kind once, before its samples.
fn samples(text: &str) -> Vec<(String, f64)> {
    let mut typed = BTreeSet::new();
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(typed.insert(name.to_owned()), "{name} stands twice");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|it| name.strip_suffix(it));
            assert!(typed.contains(name) || base.is_some_and(|it| typed.contains(it)), "{line}");
            samples.push((series.to_owned(), value.parse().unwrap()));
        }
    }
    samples
}

#[tokio::test]
async fn metrics_have_the_names_that_dashboards_read() {
    let house = House::new().await;
    let text = house.ask("GET", "/metrics", None).await.body;
    assert!(text.contains("rabbitmq_endpoint=\"aggregated\""), "{text}");
    for name in [
        "rabbitmq_identity_info{",
        "rabbitmq_build_info{",
        "rabbitmq_connections ",
        "rabbitmq_queues ",
        "rabbitmq_queue_messages_ready ",
        "rabbitmq_process_open_fds ",
        "rabbitmq_erlang_uptime_seconds ",
        "rabbitmq_message_size_bytes_bucket{le=\"+Inf\"} 0",
        "rabbitmq_global_messages_received_total{protocol=\"amqp091\"} 0",
        "rabbitmq_global_messages_delivered_total{protocol=\"amqp091\",queue_type=\"rabbit_quorum_queue\"} 0",
        "rabbitmq_alarms_memory_used_watermark 0",
        "rabbitmq_queues_declared_total 0",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    samples(&text);
    house.queue("a%22b%5Cc").await;
    house.publish("a\"b\\c", "hello").await;
    let value = |text: &str, series: &str| {
        let found = samples(text).into_iter().find(|(it, _)| it == series);
        found.unwrap_or_else(|| panic!("no {series} in {text}")).1
    };
    let text = house.ask("GET", "/metrics", None).await.body;
    assert_eq!(value(&text, "rabbitmq_global_messages_routed_total{protocol=\"http\"}"), 1.0);
    assert_eq!(value(&text, "rabbitmq_message_size_bytes_count"), 1.0);
    assert_eq!(value(&text, "rabbitmq_queue_messages_ready"), 1.0);
    let text = house.ask("GET", "/metrics/per-object", None).await.body;
    let labels = "{vhost=\"/\",queue=\"a\\\"b\\\\c\"}";
    assert_eq!(value(&text, &format!("rabbitmq_queue_messages_ready{labels}")), 1.0);
    // Dashboards fill from this page too.
    assert_eq!(value(&text, "rabbitmq_queues"), 1.0);
    assert_eq!(value(&text, "rabbitmq_global_messages_routed_total{protocol=\"http\"}"), 1.0);
    assert!(text.contains("rabbitmq_endpoint=\"per-object\""), "{text}");
    assert!(!text.contains("rabbitmq_queue_messages_ready 1"), "sums stand elsewhere: {text}");
    let path =
        "/metrics/detailed?family=queue_coarse_metrics&family=queue_consumer_count&vhost=%2F";
    let text = house.ask("GET", path, None).await.body;
    assert_eq!(value(&text, &format!("rabbitmq_detailed_queue_messages{labels}")), 1.0);
    assert_eq!(value(&text, &format!("rabbitmq_detailed_queue_consumers{labels}")), 0.0);
    assert!(!text.contains("queue_messages_published"), "{text}");
    house.does("GET", "/metrics/detailed?family=other", Value::Null, 400).await;
}

/// More than is written at once.
#[tokio::test]
async fn long_pages_are_whole() {
    let house = House::new().await;
    let queue = |n| json!({"name": format!("q{n:03}"), "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}});
    let queues: Vec<Value> = (0..600).map(queue).collect();
    house.does("POST", "/api/definitions", json!({"queues": queues}), 204).await;
    let heard = house.ask("GET", "/metrics/per-object", None).await;
    assert_eq!(heard.header("transfer-encoding"), Some("chunked"));
    let all = samples(&heard.body);
    for name in ["rabbitmq_queue_messages", "pillarbox_queue_messages_damaged_total"] {
        let series: Vec<_> =
            all.iter().filter(|(it, _)| it.starts_with(&format!("{name}{{"))).collect();
        assert_eq!(series.len(), 600, "{name}");
        assert_eq!(series[599].0, format!("{name}{{vhost=\"/\",queue=\"q599\"}}"));
    }
    let list = house.get("/api/queues?sort=name&sort_reverse=true").await;
    let names = |list: &Value| -> Vec<String> {
        let rows = list.as_array().expect("rows").iter();
        rows.map(|it| it["name"].as_str().expect("a name").to_owned()).collect()
    };
    let expected: Vec<String> = (0..600).rev().map(|n| format!("q{n:03}")).collect();
    assert_eq!(names(&list), expected);
    let page = house.get("/api/queues?page=2&page_size=400&sort=messages").await;
    assert_eq!((&page["item_count"], &page["page_count"]), (&json!(200), &json!(2)));
    assert_eq!(names(&page["items"])[199], "q599");
}

/// Each message that came is counted once where it went.
#[tokio::test]
async fn queues_balance_at_rest() {
    let house = House::new().await;
    house.queue("a").await;
    for body in ["1", "2", "3", "4", "5"] {
        house.publish("a", body).await;
    }
    for mode in ["ack_requeue_false", "reject_requeue_false", "ack_requeue_true"] {
        let get = json!({"count": 1, "ackmode": mode, "encoding": "auto"});
        house.does("POST", "/api/queues/%2F/a/get", get, 200).await;
    }
    let of = async |name: &str| {
        let text = house.ask("GET", "/metrics/per-object", None).await.body;
        let series = format!("{name}{{vhost=\"/\",queue=\"a\"}}");
        samples(&text).into_iter().find(|(it, _)| *it == series).expect("a metric").1
    };
    assert_eq!(of("rabbitmq_queue_messages_published_total").await, 5.0);
    assert_eq!(of("pillarbox_queue_messages_settled_total").await, 2.0);
    assert_eq!(of("rabbitmq_queue_messages_ready").await, 3.0);
    house.does("DELETE", "/api/queues/%2F/a/contents", Value::Null, 204).await;
    assert_eq!(of("pillarbox_queue_messages_purged_total").await, 3.0);
    assert_eq!(of("rabbitmq_queue_messages").await, 0.0);
}

#[tokio::test]
async fn the_console_runs_nothing_but_its_own() {
    let house = House::new().await;
    for path in ["/", "/console.js", "/console.css"] {
        let heard = house.send("GET", path, &[], b"").await;
        assert_eq!(heard.status, 200, "{path}");
        let policy = heard.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!heard.body.contains(word), "{word} in {path}");
        }
    }
}

/// Where RabbitMQ's Prometheus plugin listens: no login, and nothing but metrics.
#[tokio::test]
async fn metrics_have_a_listener_of_their_own() {
    let mut config = Config::default();
    config.store.in_memory = true;
    (config.listen.amqp, config.listen.stomp) = (Address::Off, Address::Off);
    (config.listen.http, config.listen.native) = (Address::Off, Address::Off);
    config.listen.metrics = Address::local(0);
    let house = House { server: Server::start(config).await.expect("the server starts") };
    for (path, status) in [
        ("/metrics", 200),
        ("/metrics/per-object", 200),
        ("/metrics/detailed?family=vhost_status", 200),
        ("/api/overview", 404),
        ("/api/health/live", 404),
        ("/", 404),
        ("/mailbox/x", 404),
        ("/ws", 404),
    ] {
        let heard = house.send_to(Protocol::Metrics, "GET", path).await;
        assert_eq!(heard.status, status, "{path}: {heard:?}");
        assert_eq!(heard.body.contains("rabbitmq_identity_info"), status == 200, "{path}");
    }
}

#[tokio::test]
async fn each_object_has_its_families() {
    let house = House::new().await;
    house.queue("q").await;
    house.publish("q", "hello").await;
    let connection = house.amqp().await;
    let channel = connection.create_channel().await.expect("a channel");
    let options = lapin::options::BasicGetOptions { no_ack: true };
    channel.basic_get("q".into(), options).await.expect("an answer").expect("a message");
    let text = house.ask("GET", "/metrics/per-object", None).await.body;
    let line = |start: &str, end: &str| {
        let found = text.lines().any(|it| it.starts_with(start) && it.ends_with(end));
        assert!(found, "{start} … {end}\n{text}");
    };
    line("rabbitmq_channel_get_total{channel=\"127.0.0.1:", "(1)\",vhost=\"/\"} 1");
    line("rabbitmq_channel_messages_unacked{channel=", " 0");
    line("rabbitmq_connection_channels{connection=\"127.0.0.1:", "\",vhost=\"/\"} 1");
    line("rabbitmq_exchange_messages_published_total{vhost=\"/\",exchange=\"\"}", " 1");
    line("rabbitmq_exchange_name{vhost=\"/\",exchange=\"amq.topic\",type=\"topic\"}", " 1");
    line("rabbitmq_vhost_status{vhost=\"/\"}", " 1");
    line("rabbitmq_queue_messages_ready{vhost=\"/\",queue=\"q\"}", " 0");
    let bytes = text.lines().find(|it| it.starts_with("rabbitmq_connection_incoming_bytes_total{"));
    assert!(bytes.is_some_and(|it| !it.ends_with(" 0")), "{bytes:?}");
    let detailed = "/metrics/detailed?family=channel_metrics&family=node_metrics&vhost=nowhere";
    let text = house.ask("GET", detailed, None).await.body;
    assert!(text.contains("\nrabbitmq_detailed_process_max_fds "), "{text}");
    assert!(!text.contains("rabbitmq_detailed_process_open_fds"), "another family: {text}");
    assert!(!text.contains("channel_consumers"), "another virtual host: {text}");
}

#[tokio::test]
async fn times_are_measured() {
    let house = House::new().await;
    house.queue("q").await;
    house.publish("q", "one").await;
    house.publish("q", "two").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let text = house.ask("GET", "/metrics", None).await.body;
    let value = |text: &str, name: &str| {
        let found = text.lines().find_map(|it| it.strip_prefix(&format!("{name} ")));
        found.unwrap_or_else(|| panic!("{name} is not in {text}")).parse::<f64>().expect("a number")
    };
    let age = value(&text, "pillarbox_oldest_message_age_seconds");
    assert!((0.02..30.0).contains(&age), "{age}");
    assert_eq!(value(&text, "pillarbox_message_wait_seconds_count"), 0.0);
    let get = json!({"count": 2, "ackmode": "ack_requeue_false", "encoding": "auto"});
    house.does("POST", "/api/queues/%2F/q/get", get, 200).await;
    let text = house.ask("GET", "/metrics", None).await.body;
    assert_eq!(value(&text, "pillarbox_message_wait_seconds_count"), 2.0);
    assert!(value(&text, "pillarbox_message_wait_seconds_sum") >= 0.04, "{text}");
    assert_eq!(value(&text, "pillarbox_message_wait_seconds_bucket{le=\"+Inf\"}"), 2.0);
    assert_eq!(value(&text, "pillarbox_oldest_message_age_seconds"), 0.0);
    assert!(value(&text, "pillarbox_commit_seconds_count") > 0.0);
    assert_eq!(value(&text, "rabbitmq_channel_messages_published_total"), 2.0);
}
