//! Who may ask what.

use std::collections::BTreeSet;

use pillarbox::management::routes::ROUTES;
use pillarbox::management::{Method, Needs};
use serde_json::json;

use crate::house::House;

const USERS: [(&str, &[Needs]); 5] = [
    ("none", &[Needs::Nothing]),
    ("management", &[Needs::Nothing, Needs::Management]),
    ("policymaker", &[Needs::Nothing, Needs::Management, Needs::Policymaker]),
    ("monitoring", &[Needs::Nothing, Needs::Management, Needs::Monitoring]),
    (
        "administrator",
        &[
            Needs::Nothing,
            Needs::Management,
            Needs::Policymaker,
            Needs::Monitoring,
            Needs::Administrator,
        ],
    ),
];

/// A path with names for its places, of things that are not there.
fn concrete(path: &str) -> String {
    let part =
        |part: &str| if part == "{vhost}" { "%2F".into() } else { part.replace(['{', '}'], "") };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

async fn house() -> House {
    let house = House::new().await;
    for (name, _) in USERS {
        let tags = if name == "none" { "" } else { name };
        // A fast hash, as every request checks it once.
        let hash = house.get("/api/auth/hash_password/x").await["ok"].clone();
        let body = json!({"password_hash": hash, "tags": tags});
        house.does("PUT", &format!("/api/users/{name}"), body, 201).await;
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        house.does("PUT", &format!("/api/permissions/%2F/{name}"), all, 201).await;
    }
    house
}

/// Every route is asked by everybody: who lacks what it needs hears 401, the others anything else.
#[tokio::test]
async fn every_route_is_closed_to_who_lacks_its_tag() {
    let house = house().await;
    for route in ROUTES {
        let path = concrete(route.path);
        let method = route.method.name();
        let nobody = house.send(method, &path, &[], b"").await;
        assert_eq!(
            nobody.status == 401,
            route.needs != Needs::Nothing,
            "{method} {path}: {nobody:?}"
        );
        for (user, may) in USERS {
            // What a route does to those who may is tested elsewhere.
            let allowed = may.contains(&route.needs);
            if allowed && route.method != Method::Get {
                continue;
            }
            let heard = house.as_user((user, "x"), method, &path, None).await;
            let refused = heard.status == 401;
            assert_eq!(refused, !allowed, "{user}: {method} {path}: {heard:?}");
        }
    }
}

#[tokio::test]
async fn logins_are_refused_in_rabbitmqs_words() {
    let house = House::new().await;
    let heard = house.send("GET", "/api/whoami", &[], b"").await;
    assert_eq!(heard.header("www-authenticate"), Some("Basic realm=\"RabbitMQ Management\""));
    assert_eq!(heard.json(), json!({"error": "not_authorized", "reason": "Not_Authorized"}));
    let heard = house.as_user(("guest", "wrong"), "GET", "/api/whoami", None).await;
    assert_eq!((heard.status, heard.json()["error"].clone()), (401, json!("not_authorised")));
    let me = house.get("/api/whoami").await;
    assert_eq!((&me["name"], &me["tags"]), (&json!("guest"), &json!(["administrator"])));
}

#[tokio::test]
async fn users_see_the_virtual_hosts_that_they_may_enter() {
    let house = house().await;
    house.does("PUT", "/api/vhosts/other", json!({}), 201).await;
    house.does("PUT", "/api/queues/other/q", json!({}), 201).await;
    house.queue("here").await;
    for (user, seen) in [("management", 1), ("monitoring", 2), ("administrator", 2)] {
        let heard = house.as_user((user, "x"), "GET", "/api/queues", None).await.json();
        assert_eq!(heard.as_array().map(Vec::len), Some(seen), "{user}");
        let heard = house.as_user((user, "x"), "GET", "/api/vhosts", None).await.json();
        assert_eq!(heard.as_array().map(Vec::len), Some(seen), "{user}");
    }
    let heard = house.as_user(("management", "x"), "GET", "/api/queues/other", None).await;
    assert_eq!(heard.status, 401);
    // Seeing is not doing.
    for user in ["management", "monitoring"] {
        let heard = house.as_user((user, "x"), "DELETE", "/api/queues/other/q", None).await;
        assert_eq!(heard.status, 401, "{user}");
    }
}

#[tokio::test]
async fn what_is_declared_needs_the_permissions_of_amqp() {
    let house = house().await;
    let some = json!({"configure": "^mine", "write": "", "read": ".*"});
    house.does("PUT", "/api/permissions/%2F/management", some, 204).await;
    let body = json!({});
    for (name, status) in [("mine", 201), ("yours", 401)] {
        let path = format!("/api/queues/%2F/{name}");
        let heard = house.as_user(("management", "x"), "PUT", &path, Some(&body)).await;
        assert_eq!(heard.status, status, "{heard:?}");
    }
    let body = json!({"routing_key": "mine", "payload": "", "properties": {}});
    let path = "/api/exchanges/%2F/amq.default/publish";
    let heard = house.as_user(("management", "x"), "POST", path, Some(&body)).await;
    assert_eq!(heard.status, 401);
    assert!(heard.body.contains("write access to exchange 'amq.default'"), "{heard:?}");
}

/// Said here once more, so that the table of routes cannot say otherwise unseen.
#[tokio::test]
async fn to_move_a_mailbox_is_for_administrators_who_may_configure_it() {
    let house = house().await;
    house.queue("work").await;
    let body = json!({"to": "b"});
    let path = "/api/queues/%2F/work/move";
    let nobody = house.send("POST", path, &[], b"{\"to\": \"b\"}").await;
    assert_eq!(nobody.status, 401, "{nobody:?}");
    for user in ["none", "management", "policymaker", "monitoring"] {
        let heard = house.as_user((user, "x"), "POST", path, Some(&body)).await;
        assert_eq!(heard.status, 401, "{user}: {heard:?}");
        assert!(heard.body.contains("Not administrator user"), "{user}: {heard:?}");
    }
    let heard = house.as_user(("administrator", "x"), "POST", path, Some(&body)).await;
    assert_eq!(heard.status, 400, "{heard:?}");
    assert!(heard.body.contains("no other host 'b' is known"), "{heard:?}");
    let others = json!({"configure": "^other", "write": ".*", "read": ".*"});
    house.does("PUT", "/api/permissions/%2F/administrator", others, 204).await;
    let heard = house.as_user(("administrator", "x"), "POST", path, Some(&body)).await;
    assert_eq!(heard.status, 401, "{heard:?}");
    assert!(heard.body.contains("configure access to queue 'work'"), "{heard:?}");
}

#[tokio::test]
async fn the_description_has_every_route_and_no_other() {
    let house = House::new().await;
    let heard = house.send("GET", "/api/openapi.json", &[], b"").await.json();
    let mut described = BTreeSet::new();
    for (path, methods) in heard["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            described.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let routes = ROUTES.iter().map(|it| format!("{} {}", it.method.name(), it.path));
    assert_eq!(described, routes.collect());
    let calls: BTreeSet<_> = ROUTES.iter().map(|it| it.call).collect();
    assert_eq!(calls.len(), ROUTES.len(), "each route has a call of its own");
}
