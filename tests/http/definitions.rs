//! Definitions in RabbitMQ's file, in and out.

use serde_json::{Value, json};

use crate::house::House;

/// As RabbitMQ 3.10 writes it, with users, limits and an operator policy.
const FILE: &str = include_str!("rabbitmq-3.10.json");

fn part(file: &Value, name: &str) -> Vec<String> {
    let rows = file[name].as_array().unwrap_or_else(|| panic!("no {name} in {file}"));
    let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn a_file_of_rabbitmq_comes_in_and_goes_out_again() {
    let house = House::new().await;
    let file: Value = serde_json::from_str(FILE).unwrap();
    let heard = house.ask("POST", "/api/definitions", Some(&file)).await;
    assert_eq!(heard.status, 204, "{heard:?}");
    let out = house.get("/api/definitions").await;
    for name in [
        "permissions",
        "topic_permissions",
        "policies",
        "exchanges",
        "bindings",
        "parameters",
        "global_parameters",
    ] {
        assert_eq!(part(&out, name), part(&file, name), "{name}");
    }
    let queues = |file: &Value| -> Vec<Value> {
        let mut rows = file["queues"].as_array().unwrap().clone();
        rows.iter_mut().for_each(|row| {
            row.as_object_mut().unwrap().remove("type");
        });
        rows.sort_by_key(Value::to_string);
        rows
    };
    assert_eq!(queues(&out), queues(&file));
    let hashes = |file: &Value| -> Vec<String> {
        let users = file["users"].as_array().unwrap().iter();
        let row = |it: &Value| {
            json!([
                it["name"],
                it["password_hash"],
                it["hashing_algorithm"],
                it["tags"],
                it["limits"]
            ])
        };
        let mut rows: Vec<String> = users.map(row).map(|it| it.to_string()).collect();
        rows.sort();
        rows
    };
    assert_eq!(hashes(&out), hashes(&file));
    // The password in it is right: RabbitMQ's documented example.
    assert_eq!(house.as_user(("anna", "test12"), "GET", "/api/whoami", None).await.status, 200);
    // The same once more changes nothing, and neither does what went out.
    for file in [&file, &out] {
        assert_eq!(house.ask("POST", "/api/definitions", Some(file)).await.status, 204);
        assert_eq!(house.get("/api/definitions").await, out);
    }
}

#[tokio::test]
async fn what_is_unknown_or_different_is_named() {
    let house = House::new().await;
    house.queue("q").await;
    let file = json!({
        "rabbitmq_version": "3.10.8", "wonders": [], "users": [{"name": "u", "tags": [], "wings": 2}],
        "queues": [
            {"name": "q", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {"x-max-length": 1}},
            {"name": "r", "vhost": "nowhere", "durable": true, "auto_delete": false, "arguments": {}},
        ],
    });
    let heard = house.ask("POST", "/api/definitions", Some(&file)).await;
    assert_eq!(heard.status, 200);
    assert_eq!(heard.json()["unknown"], json!(["users.wings", "wonders"]));
    assert_eq!(heard.json()["left"].as_array().map(Vec::len), Some(1), "{heard:?}");
    assert_eq!(house.get("/api/queues/%2F/q").await["arguments"], json!({}));
    for wrong in [
        json!({"queues": 1}),
        json!({"queues": [1]}),
        json!({"queues": [{"name": "x"}]}),
        json!([]),
    ] {
        assert_eq!(
            house.ask("POST", "/api/definitions", Some(&wrong)).await.status,
            400,
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn one_virtual_host_goes_to_another() {
    let house = House::new().await;
    house.queue("q").await;
    house.does("PUT", "/api/exchanges/%2F/x", json!({"type": "topic"}), 201).await;
    house.does("POST", "/api/bindings/%2F/e/x/q/q", json!({"routing_key": "a.#"}), 201).await;
    house
        .does(
            "PUT",
            "/api/policies/%2F/p",
            json!({"pattern": "^q", "definition": {"max-length": 5}}),
            201,
        )
        .await;
    let out = house.get("/api/definitions/%2F").await;
    assert!(out.get("users").is_none() && out["queues"][0].get("vhost").is_none(), "{out}");
    house.does("PUT", "/api/vhosts/copy", json!({}), 201).await;
    let form = format!(
        "--xx\r\ncontent-disposition: form-data; name=\"file\"; filename=\"d.json\"\r\n\r\n{out}\r\n--xx--\r\n"
    );
    let headers = [
        ("authorization", "Basic Z3Vlc3Q6Z3Vlc3Q="),
        ("content-type", "multipart/form-data; boundary=xx"),
    ];
    let heard = house.send("POST", "/api/definitions/copy", &headers, form.as_bytes()).await;
    assert_eq!(heard.status, 204, "{heard:?}");
    assert_eq!(house.get("/api/queues/copy/q").await["policy"], "p");
    assert_eq!(house.get("/api/bindings/copy/e/x/q/q").await[0]["routing_key"], "a.#");
}
