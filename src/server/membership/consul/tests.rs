//! Consul's answers, right and wrong.

use super::super::fake::{Answer, Fake, host, misbehaviour, says, says_with};
use super::*;

fn consul(fake: &Fake) -> Consul {
    let settings =
        Peers { consul_token: Some(crate::config::Secret::new("t0ken")), ..Peers::default() };
    let patience = Duration::from_millis(300);
    Consul { patience, ..Consul::new(&fake.url(), &settings) }
}

fn pair(host: &Host) -> String {
    let value = STANDARD.encode(entry(host));
    format!("{{\"Key\":\"pillarbox/hosts/{}\",\"Value\":\"{value}\",\"Session\":\"s-1\"}}", host.id)
}

const LISTING: &str = "/v1/kv/pillarbox/hosts/?recurse";

#[tokio::test]
async fn a_host_is_written_down_under_a_session_and_reads_the_others() {
    let (me, other) = (host(1, "a"), host(2, "b"));
    let list = format!(
        "[{},{},{{\"Key\":\"pillarbox/hosts/x\",\"Value\":\"!\"}},{{\"Key\":\"pillarbox/hosts/y\",\"Value\":null}}]",
        pair(&me),
        pair(&other)
    );
    let fake = Fake::start(move |request| {
        assert!(request.contains("x-consul-token: t0ken"), "{request}");
        match request {
            _ if request.contains("/session/create") => says(200, "{\"ID\":\"s-1\"}"),
            _ if request.contains("?acquire=s-1") => says(200, "true"),
            _ if request.contains(LISTING) => says_with(200, "x-consul-index: 12\r\n", &list),
            _ => says(200, "[]"),
        }
    })
    .await;
    let mut consul = consul(&fake);
    let seen = consul.look(&me).await.unwrap();
    let addresses: Vec<String> = seen.iter().map(|it| it.address.to_string()).collect();
    assert_eq!(addresses, ["a:8476", "b:8476"]);
    assert_eq!(seen[1].host, Some((other.id, 7)));
    consul.look(&me).await.unwrap();
    consul.leave().await.unwrap();
    let key = format!("pillarbox/hosts/{}", me.id);
    assert_eq!(
        fake.asked(),
        [
            "PUT /v1/session/create".to_owned(),
            format!("PUT /v1/kv/{key}?acquire=s-1"),
            "GET /v1/kv/pillarbox/hosts/?recurse=true&index=0&wait=5s".to_owned(),
            "PUT /v1/session/renew/s-1".to_owned(),
            "GET /v1/kv/pillarbox/hosts/?recurse=true&index=12&wait=5s".to_owned(),
            "PUT /v1/session/destroy/s-1".to_owned(),
        ]
    );
}

#[tokio::test]
async fn a_session_that_ran_out_is_made_anew_and_an_index_that_went_back_is_dropped() {
    let me = host(1, "a");
    let list = format!("[{}]", pair(&me));
    let renewals = std::sync::atomic::AtomicU32::new(0);
    let fake = Fake::start(move |request| match request {
        _ if request.contains("/session/create") => says(200, "{\"ID\":\"s-1\"}"),
        _ if request.contains("?acquire=") => says(200, "true"),
        _ if request.contains("/session/renew") => {
            renewals.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            says(404, "Session id not found")
        }
        _ if request.contains(LISTING) && request.contains("index=0") => {
            says_with(200, "x-consul-index: 12\r\n", &list)
        }
        _ => says_with(404, "x-consul-index: 3\r\n", ""),
    })
    .await;
    let mut consul = consul(&fake);
    consul.look(&me).await.unwrap();
    assert_eq!(consul.index, 12);
    fake.asked();
    // It began anew: no session, no keys, and an index of its own.
    assert_eq!(consul.look(&me).await.unwrap(), []);
    assert_eq!((consul.index, &consul.session), (0, &None));
    assert!(fake.asked().contains(&"PUT /v1/session/create".to_owned()));
    consul.look(&me).await.unwrap();
    assert_eq!(fake.asked()[0], "PUT /v1/session/create");
    assert_eq!(consul.session.as_deref(), Some("s-1"));
}

#[tokio::test]
async fn the_session_of_an_earlier_start_is_ended() {
    let me = host(1, "a");
    let held = std::sync::atomic::AtomicBool::new(true);
    let of_me = format!("[{}]", pair(&me)).replace("s-1", "old");
    let fake = Fake::start(move |request| match request {
        _ if request.contains("/session/create") => says(200, "{\"ID\":\"s-1\"}"),
        _ if request.contains("?acquire=") => {
            let held = held.load(std::sync::atomic::Ordering::Relaxed);
            says(200, if held { "false" } else { "true" })
        }
        _ if request.contains("/session/destroy/old") => {
            held.store(false, std::sync::atomic::Ordering::Relaxed);
            says(200, "true")
        }
        _ => says(200, &of_me),
    })
    .await;
    let mut consul = consul(&fake);
    assert_eq!(consul.look(&me).await.unwrap().len(), 1);
    assert!(fake.asked().contains(&"PUT /v1/session/destroy/old".to_owned()));
}

#[tokio::test]
async fn whatever_it_says_is_an_error_and_soon() {
    let me = host(1, "a");
    for (name, answer) in misbehaviour() {
        let fake = Fake::start(move |_| answer.clone()).await;
        let error = consul(&fake).look(&me).await.unwrap_err();
        assert!(error.to_string().len() < 400, "{name}: {error}");
    }
    // The same where only the list goes wrong; a host that nobody can dial asks for nothing else.
    let reader = Host { address: None, ..me };
    for (name, answer) in misbehaviour() {
        let fake = Fake::start(move |_| answer.clone()).await;
        let mut consul = Consul { ttl: Duration::from_millis(3), index: 9, ..consul(&fake) };
        consul.look(&reader).await.expect_err(name);
        assert_eq!(consul.index, 0, "{name}");
    }
    let nobody = Fake::start(|_| Answer::Says(String::new())).await;
    let gone = consul(&nobody);
    drop(nobody);
    tokio::task::yield_now().await;
    assert!(Consul { ..gone }.look(&reader).await.is_err());
}
