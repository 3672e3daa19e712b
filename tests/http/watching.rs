//! Health, metrics and the console.

use std::collections::BTreeSet;

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
    let path =
        "/metrics/detailed?family=queue_coarse_metrics&family=queue_consumer_count&vhost=%2F";
    let text = house.ask("GET", path, None).await.body;
    assert_eq!(value(&text, &format!("rabbitmq_detailed_queue_messages{labels}")), 1.0);
    assert_eq!(value(&text, &format!("rabbitmq_detailed_queue_consumers{labels}")), 0.0);
    assert!(!text.contains("queue_messages_published"), "{text}");
    house.does("GET", "/metrics/detailed?family=other", Value::Null, 400).await;
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
