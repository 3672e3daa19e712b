//! Malformed and hostile requests: rows H1 to H13.

use rstest::rstest;
use serde_json::{Value, json};

use crate::house::{BODY_MAX, House};

const LOGIN: &str = "authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n";

/// The status of the answer; 0 where the server only closes.
async fn status(house: &House, request: &str) -> u16 {
    house.raw(request.as_bytes()).await.map_or(0, |heard| heard.status)
}

#[rstest]
#[case::two_lengths("content-length: 2\r\ncontent-length: 3\r\n\r\n{}")]
#[case::folded_line("x-a: b\r\n c\r\ncontent-length: 2\r\n\r\n{}")]
#[tokio::test]
async fn h1_ambiguous_requests_are_refused_and_closed(#[case] rest: &str) {
    let house = House::new().await;
    let request = format!("PUT /api/queues/%2F/h1 HTTP/1.1\r\nhost: localhost\r\n{LOGIN}{rest}");
    assert_eq!(status(&house, &request).await, 400);
    house.does("GET", "/api/queues/%2F/h1", Value::Null, 404).await;
}

/// Somebody in front may have seen another end of it.
#[tokio::test]
async fn h1_a_length_beside_chunks_is_refused() {
    let house = House::new().await;
    let behind = format!("GET /api/whoami HTTP/1.1\r\nhost: localhost\r\n{LOGIN}\r\n");
    for (first, second) in [("content-length: 2\r\n", ""), ("", "content-length: 2\r\n")] {
        let request = format!(
            "PUT /api/queues/%2F/h1 HTTP/1.1\r\nhost: localhost\r\n{LOGIN}{first}transfer-encoding: chunked\r\n{second}\r\n2\r\n{{}}\r\n0\r\n\r\n{behind}"
        );
        let heard = house.raw(request.as_bytes()).await.expect("an answer");
        assert_eq!(heard.status, 400, "{heard:?}");
        assert!(!heard.body.contains("HTTP/1.1"), "{heard:?}");
    }
    house.does("GET", "/api/queues/%2F/h1", Value::Null, 404).await;
    // Chunks alone are welcome, and end the connection.
    let request = format!(
        "PUT /api/queues/%2F/h1 HTTP/1.1\r\nhost: localhost\r\n{LOGIN}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{behind}"
    );
    let heard = house.raw(request.as_bytes()).await.expect("an answer");
    assert_eq!(heard.status, 201, "{heard:?}");
    assert!(!heard.body.contains("HTTP/1.1"), "{heard:?}");
}

#[tokio::test]
async fn h1_a_request_names_one_host() {
    let house = House::new().await;
    let without = format!("GET /api/whoami HTTP/1.1\r\nconnection: close\r\n{LOGIN}\r\n");
    assert_eq!(status(&house, &without).await, 400);
    let twice = format!(
        "GET /api/whoami HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\nconnection: close\r\n{LOGIN}\r\n"
    );
    assert_eq!(status(&house, &twice).await, 400);
}

#[tokio::test]
async fn h2_chunks_that_cannot_be_are_refused() {
    let house = House::new().await;
    let extension = format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(64 << 10));
    for chunk in ["FFFFFFFFFFFFFFFFF\r\n", extension.as_str()] {
        let request = format!(
            "PUT /api/queues/%2F/h2 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{LOGIN}transfer-encoding: chunked\r\n\r\n{chunk}"
        );
        let status = status(&house, &request).await;
        assert!(status == 400 || status == 0, "{status}");
    }
    house.does("GET", "/api/queues/%2F/h2", Value::Null, 404).await;
}

#[tokio::test]
async fn h3_heads_have_an_end() {
    let house = House::new().await;
    let head = |line: &str, headers: &str| {
        format!(
            "GET {line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{LOGIN}{headers}\r\n"
        )
    };
    let large = format!("x-a: {}\r\n", "x".repeat(16 << 10));
    assert_eq!(status(&house, &head("/api/whoami", &large)).await, 431);
    assert_eq!(status(&house, &head("/api/whoami", &"x-a: b\r\n".repeat(101))).await, 431);
    let long = format!("/api/queues/%2F/{}", "x".repeat(4097));
    assert_eq!(status(&house, &head(&long, "")).await, 414);
}

#[tokio::test]
async fn h4_bodies_end_at_the_limit() {
    let house = House::new().await;
    let body = |size: usize| format!("{{\"x\":\"{}\"}}", "a".repeat(size - 8)).into_bytes();
    let headers = [("authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=")];
    let heard = house.send("PUT", "/api/queues/%2F/h4", &headers, &body(BODY_MAX)).await;
    assert_eq!(heard.status, 201, "{heard:?}");
    let heard = house.send("PUT", "/api/queues/%2F/h4b", &headers, &body(BODY_MAX + 1)).await;
    assert_eq!(heard.status, 413);
    // Declared: refused before any of it comes.
    let lying = format!(
        "PUT /api/queues/%2F/h4b HTTP/1.1\r\nhost: localhost\r\n{LOGIN}content-length: {}\r\n\r\n",
        u64::MAX / 2
    );
    assert_eq!(status(&house, &lying).await, 413);
    let chunk = "x".repeat(BODY_MAX + 1);
    let chunked = format!(
        "PUT /api/queues/%2F/h4b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{LOGIN}transfer-encoding: chunked\r\n\r\n{:x}\r\n{chunk}\r\n0\r\n\r\n",
        chunk.len()
    );
    assert_eq!(status(&house, &chunked).await, 413);
    house.does("GET", "/api/queues/%2F/h4b", Value::Null, 404).await;
}

#[tokio::test]
async fn h5_only_good_json_is_read() {
    let house = House::new().await;
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(65), "]".repeat(65));
    let login = ("authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=");
    for body in [
        deep.as_bytes(),
        b"{\"durable\":true,\"durable\":false}",
        b"{\"arguments\":{\"x-max-length\":18446744073709551616}}",
        b"{\"arguments\":{\"x-max-length\":18446744073709551615}}",
        b"{\"a\":\"\xff\"}",
        b"[]",
        b"{} {}",
        b"{",
    ] {
        let heard = house.send("PUT", "/api/queues/%2F/h5", &[login], body).await;
        assert_eq!(heard.status, 400, "{:?}", String::from_utf8_lossy(body));
    }
    for kind in ["text/plain", "application/xml", "multipart/form-data; boundary=x"] {
        let heard =
            house.send("PUT", "/api/queues/%2F/h5", &[login, ("content-type", kind)], b"{}").await;
        assert_eq!(heard.status, 415, "{kind}");
    }
    house.does("GET", "/api/queues/%2F/h5", Value::Null, 404).await;
}

#[tokio::test]
async fn h6_names_are_what_their_codes_say() {
    let house = House::new().await;
    for (name, expected) in
        [("%00", 400), ("%zz", 400), ("%f", 400), ("%ff", 400), ("%2e%2e%2f", 404)]
    {
        let heard = house.ask("GET", &format!("/api/queues/%2F/{name}"), None).await;
        assert_eq!(heard.status, expected, "{name}");
    }
    house.does("PUT", "/api/queues/%2f/%2e%2e%2f", json!({}), 201).await;
    assert_eq!(house.get("/api/queues/%2F/..%2F").await["name"], "../");
    house.does("PUT", &format!("/api/queues/%2F/{}", "n".repeat(256)), json!({}), 400).await;
}

#[tokio::test]
async fn h7_nothing_is_read_from_who_did_not_log_in() {
    let house = House::new().await;
    let request = "PUT /api/queues/%2F/h7 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                   expect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    let heard = house.raw(request.as_bytes()).await.expect("an answer");
    assert_eq!(heard.status, 401, "{heard:?}");
}

#[rstest]
#[case("TRACE", 405)]
#[case("CONNECT", 405)]
#[case("PATCH", 405)]
#[case("OPTIONS", 405)]
#[case("POST", 405)]
#[tokio::test]
async fn h8_other_methods_are_refused(#[case] method: &str, #[case] expected: u16) {
    let house = House::new().await;
    let heard = house.ask(method, "/api/whoami", None).await;
    assert_eq!(heard.status, expected);
    assert_eq!(heard.header("allow"), Some("GET, HEAD"));
    assert!(heard.header("access-control-allow-origin").is_none());
    let headers =
        [("authorization", "Basic Z3Vlc3Q6Z3Vlc3Q="), ("x-http-method-override", "DELETE")];
    house.queue("h8").await;
    assert_eq!(house.send("GET", "/api/queues/%2F/h8", &headers, b"").await.status, 200);
    house.does("GET", "/api/queues/%2F/h8", Value::Null, 200).await;
}

#[tokio::test]
async fn h8_head_is_get_without_a_body() {
    let house = House::new().await;
    for route in pillarbox::management::routes::ROUTES {
        let path = route.path.replace("{vhost}", "%2F").replace(['{', '}'], "");
        let (head, get) =
            (house.ask("HEAD", &path, None).await, house.ask("GET", &path, None).await);
        assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}");
    }
}

#[tokio::test]
async fn h9_bad_logins_all_hear_the_same() {
    let house = House::new().await;
    let long = format!("Basic {}", "Z".repeat(8 << 10));
    let mut answers = Vec::new();
    for login in [
        None,
        Some("Basic"),
        Some("Basic !"),
        Some("Bearer x"),
        Some("Basic Z3Vlc3Q="),
        Some("Basic //8="),
        Some(&long),
        Some("Basic \u{fc}"),
    ] {
        let headers: Vec<(&str, &str)> =
            login.map(|it| ("authorization", it)).into_iter().collect();
        let heard = house.send("GET", "/api/whoami", &headers, b"").await;
        assert_eq!(heard.status, 401, "{login:?}");
        answers.push(heard.body);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    for token in ["Bearer ", "Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
        let heard = house.send("GET", "/api/whoami", &[("authorization", token)], b"").await;
        assert_eq!(heard.status, 401, "{token}");
    }
}

#[tokio::test]
async fn h10_numbers_of_pages_are_checked() {
    let house = House::new().await;
    for wrong in
        ["page=0", "page=-1", "page=9223372036854775808", "page=x", "page=1&page_size=0", "page=2"]
    {
        let heard = house.ask("GET", &format!("/api/queues?{wrong}"), None).await;
        assert_eq!(heard.status, 400, "{wrong}");
    }
    assert_eq!(house.get("/api/queues?page=1&page_size=1000000000").await["page_size"], 500);
    assert_eq!(house.get("/api/queues?sort=nothing").await, json!([]));
}

#[tokio::test]
async fn h11_a_long_pattern_is_refused() {
    let house = House::new().await;
    let long = "(a*)*".repeat(800);
    let coded = long.replace('(', "%28").replace(')', "%29").replace('*', "%2A");
    let path = format!("/api/queues?page=1&use_regex=true&name={}", &coded[..4000]);
    assert_eq!(house.ask("GET", &path, None).await.status, 400);
    let path = "/api/queues?page=1&use_regex=true&name=%28";
    assert_eq!(house.ask("GET", path, None).await.status, 400);
}

#[tokio::test]
async fn h12_another_name_for_this_host_is_refused() {
    let house = House::new().await;
    let request = format!(
        "GET /api/whoami HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n{LOGIN}\r\n"
    );
    assert_eq!(status(&house, &request).await, 421);
}

#[tokio::test]
async fn h13_other_hosts_pages_change_nothing() {
    let house = House::new().await;
    let login = ("authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=");
    let evil = ("origin", "https://evil.example");
    let heard = house
        .send("PUT", "/api/queues/%2F/h13", &[login, evil, ("content-type", "text/plain")], b"{}")
        .await;
    assert_eq!(heard.status, 403);
    let preflight = [evil, ("access-control-request-method", "PUT")];
    let heard = house.send("OPTIONS", "/api/queues/%2F/h13", &preflight, b"").await;
    assert!(heard.header("access-control-allow-origin").is_none(), "{heard:?}");
    let heard = house.send("GET", "/api/whoami", &[login, evil], b"").await;
    assert!(heard.header("access-control-allow-origin").is_none(), "{heard:?}");
    house.does("GET", "/api/queues/%2F/h13", Value::Null, 404).await;
}
