//! What is declared and deleted, in RabbitMQ's statuses and fields.

use serde_json::{Value, json};

use crate::house::House;

#[tokio::test]
async fn queues_are_declared_shown_and_deleted() {
    let house = House::new().await;
    let body = json!({
        "durable": true, "auto_delete": false,
        "arguments": {"x-max-length": 10, "x-queue-type": "classic", "list": [1, "a", true, null, 1.5, {"b": 2}]},
    });
    house.does("PUT", "/api/queues/%2F/a%2Fb", body.clone(), 201).await;
    house.does("PUT", "/api/queues/%2F/a%2Fb", body.clone(), 204).await;
    let other = json!({"durable": false});
    let heard = house.does("PUT", "/api/queues/%2F/a%2Fb", other, 400).await.json();
    assert_eq!(heard["error"], "bad_request");
    assert!(
        heard["reason"].as_str().is_some_and(|it| it.contains("inequivalent arg 'durable'")),
        "{heard}"
    );
    let queue = house.get("/api/queues/%2F/a%2Fb").await;
    assert_eq!(queue["name"], "a/b");
    assert_eq!(queue["arguments"], body["arguments"]);
    for field in
        ["messages", "messages_ready", "messages_unacknowledged", "consumers", "message_bytes"]
    {
        assert_eq!(queue[field], 0, "{field}");
    }
    for field in
        ["state", "node", "consumer_details", "message_stats", "messages_details", "policy"]
    {
        assert!(queue.get(field).is_some(), "{field}");
    }
    let bindings = house.get("/api/queues/%2F/a%2Fb/bindings").await;
    assert_eq!(bindings[0]["routing_key"], "a/b");
    house.does("DELETE", "/api/queues/%2F/a%2Fb", Value::Null, 204).await;
    house.does("GET", "/api/queues/%2F/a%2Fb", Value::Null, 404).await;
    let heard = house.does("DELETE", "/api/queues/%2F/a%2Fb", Value::Null, 404).await.json();
    assert_eq!(heard, json!({"error": "Object Not Found", "reason": "Not Found"}));
    house.does("GET", "/api/queues/nowhere", Value::Null, 404).await;
    house.queue("full").await;
    house.publish("full", "x").await;
    house.does("DELETE", "/api/queues/%2F/full?if-empty=true", Value::Null, 400).await;
    house.does("DELETE", "/api/queues/%2F/full/contents", Value::Null, 204).await;
    house.does("DELETE", "/api/queues/%2F/full?if-empty=true", Value::Null, 204).await;
}

#[tokio::test]
async fn lists_come_in_pages_filtered_sorted_and_cut() {
    let house = House::new().await;
    for n in 0..12 {
        house.queue(&format!("q{n:02}")).await;
    }
    house.queue("other").await;
    for _ in 0..3 {
        house.publish("q07", "x").await;
    }
    house.publish("q03", "x").await;
    let names = |value: &Value| -> Vec<String> {
        let list = value.as_array().or_else(|| value["items"].as_array()).expect("a list");
        list.iter().map(|it| it["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&house.get("/api/queues/%2F").await).len(), 13);
    let paged = house.get("/api/queues/%2F?page=2&page_size=5&name=q&pagination=true").await;
    assert_eq!(names(&paged), ["q05", "q06", "q07", "q08", "q09"]);
    for (field, value) in [
        ("total_count", 13),
        ("filtered_count", 12),
        ("item_count", 5),
        ("page", 2),
        ("page_size", 5),
        ("page_count", 3),
    ] {
        assert_eq!(paged[field], value, "{field}");
    }
    let regex = house.get("/api/queues/%2F?page=1&name=%5Eq0%5B1-3%5D%24&use_regex=true").await;
    assert_eq!(names(&regex), ["q01", "q02", "q03"]);
    // KEDA asks so, and wants a page, as RabbitMQ knows no `pagination`.
    let keda = "/api/queues/%2F?page=1&use_regex=true&pagination=false&name=other&page_size=100";
    assert_eq!(names(&house.get(keda).await["items"]), ["other"]);
    assert_eq!(names(&house.get("/api/queues/%2F?name=other").await), ["other"]);
    let sorted = house.get("/api/queues?sort=messages&sort_reverse=true&columns=name,messages,message_stats.publish").await;
    assert_eq!(names(&sorted)[..2], ["q07", "q03"]);
    assert_eq!(sorted[0], json!({"name": "q07", "messages": 3, "message_stats": {"publish": 3}}));
    assert_eq!(names(&house.get("/api/queues?sort=name&sort_reverse=true").await)[0], "q11");
}

#[tokio::test]
async fn bindings_have_keys_in_addresses() {
    let house = House::new().await;
    house.queue("q").await;
    let body = json!({"type": "headers", "durable": true, "auto_delete": false, "internal": false, "arguments": {}});
    house.does("PUT", "/api/exchanges/%2F/x", body.clone(), 201).await;
    house.does("PUT", "/api/exchanges/%2F/x", body, 204).await;
    house.does("PUT", "/api/exchanges/%2F/y", json!({"type": "topic"}), 201).await;
    house.does("PUT", "/api/exchanges/%2F/z", json!({"type": "none"}), 400).await;
    for (body, props) in [
        (json!({}), "~"),
        (json!({"routing_key": "a/b c"}), "a%2Fb%20c"),
        (json!({"routing_key": "a~b"}), "a~b"),
    ] {
        let path = "/api/bindings/%2F/e/y/q/q";
        let heard = house.does("POST", path, body, 201).await;
        let place = heard.header("location").expect("a location").to_owned();
        let keys = house.get(path).await;
        assert!(
            keys.as_array().is_some_and(|it| it.iter().any(|it| it["properties_key"] == props)),
            "{keys}"
        );
        let one = house.get(&format!("/api/bindings/%2F/e/y/q/{place}")).await;
        assert_eq!(one["properties_key"], props);
        let coded = props.replace('%', "%25");
        house.does("DELETE", &format!("{path}/{coded}"), Value::Null, 204).await;
        house.does("GET", &format!("{path}/{coded}"), Value::Null, 404).await;
    }
    let with = json!({"routing_key": "k", "arguments": {"x-match": "all", "a": 1}});
    let heard = house.does("POST", "/api/bindings/%2F/e/x/q/q", with, 201).await;
    let place = heard.header("location").expect("a location").to_owned();
    assert!(place.starts_with("q/k~"), "{place}");
    house.does("DELETE", &format!("/api/bindings/%2F/e/x/q/{place}"), Value::Null, 204).await;
    house.does("POST", "/api/bindings/%2F/e/x/e/y", json!({}), 201).await;
    assert_eq!(house.get("/api/exchanges/%2F/x/bindings/source").await[0]["destination"], "y");
    assert_eq!(house.get("/api/exchanges/%2F/y/bindings/destination").await[0]["source"], "x");
    house.does("POST", "/api/bindings/%2F/e/none/q/q", json!({}), 404).await;
    for nothing in [
        "bindings/%2F/e/none/q/q",
        "queues/%2F/none/bindings",
        "exchanges/%2F/none/bindings/source",
    ] {
        assert_eq!(house.get(&format!("/api/{nothing}")).await, json!([]), "{nothing}");
    }
    house.does("GET", "/api/queues/none/none/bindings", Value::Null, 404).await;
    house.does("DELETE", "/api/exchanges/%2F/x?if-unused=true", Value::Null, 400).await;
    house.does("DELETE", "/api/exchanges/%2F/x", Value::Null, 204).await;
    house.does("DELETE", "/api/exchanges/%2F/amq.topic", Value::Null, 401).await;
}

#[tokio::test]
async fn users_permissions_and_limits_come_and_go() {
    let house = House::new().await;
    let body = json!({"password": "geheim", "tags": "management,policymaker"});
    house.does("PUT", "/api/users/anna", body, 201).await;
    let anna = house.get("/api/users/anna").await;
    assert_eq!(anna["tags"], json!(["management", "policymaker"]));
    assert_eq!(house.as_user(("anna", "geheim"), "GET", "/api/whoami", None).await.status, 200);
    let none = house.get("/api/users/without-permissions").await;
    assert_eq!(none.as_array().map(Vec::len), Some(1));
    house.does("PUT", "/api/users/anna", json!({"password": "neu", "tags": []}), 204).await;
    assert_eq!(house.as_user(("anna", "geheim"), "GET", "/api/whoami", None).await.status, 401);
    house.does("PUT", "/api/users/bad", json!({"password": "x"}), 400).await;
    house.does("PUT", "/api/vhosts/v", json!({"description": "d", "tags": "a,b"}), 201).await;
    house.does("PUT", "/api/vhosts/v", json!({"default_queue_type": "quorum"}), 204).await;
    house.does("PUT", "/api/vhosts/v", json!({"tracing": "yes"}), 400).await;
    house.does("PUT", "/api/vhosts/v", json!({"tracing": true}), 204).await;
    assert_eq!(house.get("/api/vhosts/v").await["tracing"], true);
    house.does("PUT", "/api/vhosts/v", json!({"description": "d"}), 204).await;
    assert_eq!(house.get("/api/vhosts/v").await["tracing"], true);
    house.does("PUT", "/api/vhosts/v", json!({"tracing": false}), 204).await;
    let vhost = house.get("/api/vhosts/v").await;
    assert_eq!(vhost["tracing"], false);
    assert_eq!((&vhost["description"], &vhost["tags"]), (&json!("d"), &json!(["a", "b"])));
    assert_eq!(vhost["default_queue_type"], "quorum");
    let all = json!({"configure": "c", "write": "w", "read": "r"});
    house.does("PUT", "/api/permissions/v/anna", all.clone(), 201).await;
    house
        .does(
            "PUT",
            "/api/permissions/v/anna",
            json!({"configure": "(", "write": "", "read": ""}),
            400,
        )
        .await;
    house.does("PUT", "/api/permissions/v/nobody", all, 404).await;
    assert_eq!(house.get("/api/permissions/v/anna").await["write"], "w");
    assert_eq!(house.get("/api/vhosts/v/permissions").await.as_array().map(Vec::len), Some(2));
    let topic = json!({"exchange": "amq.topic", "write": "^a", "read": ""});
    house.does("PUT", "/api/topic-permissions/v/anna", topic, 201).await;
    assert_eq!(house.get("/api/users/anna/topic-permissions").await[0]["exchange"], "amq.topic");
    let other = json!({"exchange": "x", "write": "^b", "read": "^b"});
    house.does("PUT", "/api/topic-permissions/v/anna", other, 201).await;
    assert_eq!(house.get("/api/topic-permissions/v/anna/x").await["write"], "^b");
    house.does("DELETE", "/api/topic-permissions/v/anna/x", Value::Null, 204).await;
    house.does("DELETE", "/api/topic-permissions/v/anna/x", Value::Null, 404).await;
    house.does("DELETE", "/api/topic-permissions/v/anna", Value::Null, 204).await;
    for hash in ["s3krE7-s3t-v!a-4A$h", "eA=="] {
        let wrong = json!({"password_hash": hash, "tags": ""});
        house.does("PUT", "/api/users/bert", wrong, 400).await;
    }
    house.does("DELETE", "/api/permissions/v/anna", Value::Null, 204).await;
    house.does("PUT", "/api/vhost-limits/v/max-queues", json!({"value": 1}), 204).await;
    assert_eq!(house.get("/api/vhost-limits/v").await[0]["value"], json!({"max-queues": 1}));
    house.does("PUT", "/api/queues/v/one", json!({}), 201).await;
    house.does("PUT", "/api/queues/v/two", json!({}), 400).await;
    house.does("DELETE", "/api/vhost-limits/v/max-queues", Value::Null, 204).await;
    house.does("PUT", "/api/queues/v/two", json!({}), 201).await;
    house.does("PUT", "/api/user-limits/anna/max-connections", json!({"value": 5}), 204).await;
    assert_eq!(house.get("/api/user-limits/anna").await[0]["value"], json!({"max-connections": 5}));
    house.does("PUT", "/api/user-limits/anna/max-nothing", json!({"value": 5}), 400).await;
    house.does("POST", "/api/users/bulk-delete", json!({"users": ["anna"]}), 204).await;
    house.does("GET", "/api/users/anna", Value::Null, 404).await;
    house.does("DELETE", "/api/vhosts/v", Value::Null, 204).await;
    house.does("GET", "/api/queues/v", Value::Null, 404).await;
}

#[tokio::test]
async fn policies_and_parameters_come_and_go() {
    let house = House::new().await;
    house.queue("q").await;
    let policy = json!({"pattern": "^q", "definition": {"max-length": 1}, "priority": 3, "apply-to": "queues"});
    house.does("PUT", "/api/policies/%2F/p", policy.clone(), 201).await;
    house.does("PUT", "/api/policies/%2F/p", policy, 204).await;
    house
        .does(
            "PUT",
            "/api/policies/%2F/bad",
            json!({"pattern": "(", "definition": {"max-length": 1}}),
            400,
        )
        .await;
    let operator = json!({"pattern": "^q", "definition": {"message-ttl": 60000}});
    house.does("PUT", "/api/operator-policies/%2F/o", operator, 201).await;
    let queue = house.get("/api/queues/%2F/q").await;
    assert_eq!((&queue["policy"], &queue["operator_policy"]), (&json!("p"), &json!("o")));
    assert_eq!(
        queue["effective_policy_definition"],
        json!({"max-length": 1, "message-ttl": 60000})
    );
    assert_eq!(house.get("/api/policies").await[0]["priority"], 3);
    house.publish("q", "1").await;
    house.publish("q", "2").await;
    assert_eq!(house.get("/api/queues/%2F/q").await["messages"], 1);
    house.does("DELETE", "/api/policies/%2F/p", Value::Null, 204).await;
    house.does("DELETE", "/api/policies/%2F/p", Value::Null, 404).await;
    house.does("PUT", "/api/parameters/shovel/%2F/s", json!({"value": {"a": [1]}}), 201).await;
    assert_eq!(house.get("/api/parameters/shovel/%2F/s").await["value"], json!({"a": [1]}));
    assert_eq!(house.get("/api/parameters").await.as_array().map(Vec::len), Some(1));
    house.does("PUT", "/api/global-parameters/g", json!({"value": 1}), 201).await;
    house.does("PUT", "/api/global-parameters/g", json!({"value": 2}), 204).await;
    assert_eq!(house.get("/api/global-parameters").await, json!([{"name": "g", "value": 2}]));
    house.does("DELETE", "/api/parameters/shovel/%2F/s", Value::Null, 204).await;
    house.does("DELETE", "/api/global-parameters/g", Value::Null, 204).await;
    house.does("PUT", "/api/cluster-name", json!({"name": "home"}), 204).await;
    assert_eq!(house.get("/api/overview").await["cluster_name"], "home");
}

#[tokio::test]
async fn a_virtual_host_can_be_protected_from_deletion() {
    let house = House::new().await;
    house.does("PUT", "/api/vhosts/v", json!({}), 201).await;
    assert_eq!(house.get("/api/vhosts/v").await["protected_from_deletion"], false);
    house.does("POST", "/api/vhosts/v/deletion/protection", json!(null), 204).await;
    let shown = house.get("/api/vhosts/v").await;
    assert_eq!(shown["protected_from_deletion"], true);
    assert_eq!(shown["metadata"]["protected_from_deletion"], true);
    let heard = house.does("DELETE", "/api/vhosts/v", json!(null), 412).await.json();
    assert_eq!(heard["error"], "precondition_failed");
    let exported = house.get("/api/definitions").await;
    let vhosts = exported["vhosts"].as_array().expect("a list");
    let v = vhosts.iter().find(|it| it["name"] == "v").expect("it is exported");
    assert_eq!(v["metadata"]["protected_from_deletion"], true);
    house.does("DELETE", "/api/vhosts/v/deletion/protection", json!(null), 204).await;
    house.does("DELETE", "/api/vhosts/v", json!(null), 204).await;
    house.does("PUT", "/api/vhosts/w", json!({"protected_from_deletion": true}), 201).await;
    house.does("DELETE", "/api/vhosts/w", json!(null), 412).await;
    house.does("POST", "/api/vhosts/nowhere/deletion/protection", json!(null), 404).await;
}

#[tokio::test]
async fn a_mailbox_has_one_replica_here() {
    let house = House::new().await;
    house.queue("q").await;
    let node = house.get("/api/overview").await["node"].clone();
    let status = house.get("/api/queues/quorum/%2F/q/status").await;
    assert_eq!(status.as_array().map(Vec::len), Some(1));
    assert_eq!((&status[0]["Node Name"], &status[0]["Raft State"]), (&node, &json!("leader")));
    let body = json!({"node": "rabbit@other"});
    let add = "/api/queues/quorum/%2F/q/replicas/add";
    let heard = house.does("POST", add, body.clone(), 503).await.json();
    assert!(heard["reason"].as_str().is_some_and(|it| it.contains("one home")), "{heard}");
    house.does("DELETE", "/api/queues/quorum/%2F/q/replicas/delete", body.clone(), 503).await;
    house.does("POST", "/api/queues/quorum/replicas/on/x/grow", body, 503).await;
    house.does("DELETE", "/api/queues/quorum/replicas/on/x/shrink", json!(null), 503).await;
    house.does("GET", "/api/queues/quorum/%2F/none/status", json!(null), 404).await;
}

#[tokio::test]
async fn memory_is_told_in_percent_too_and_statistics_stay() {
    let house = House::new().await;
    let node = house.get("/api/overview").await["node"].as_str().expect("a name").to_owned();
    let shown = house.get(&format!("/api/nodes/{node}/memory/relative")).await;
    let shares = shown["memory"].as_object().expect("classes");
    let sum: u64 =
        shares.iter().filter(|(it, _)| *it != "total").filter_map(|(_, it)| it.as_u64()).sum();
    assert!(shares["total"] == 100 && (98..=100).contains(&sum), "{shares:?}");
    house.does("DELETE", "/api/reset", json!(null), 204).await;
    assert_eq!(house.get(&format!("/api/auth/attempts/{node}/source")).await, json!([]));
    house.does("DELETE", &format!("/api/auth/attempts/{node}/source"), json!(null), 204).await;
}
