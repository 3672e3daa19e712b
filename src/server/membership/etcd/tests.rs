//! etcd's answers, right and wrong.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::fake::{Answer, Fake, host, misbehaviour, says};
use super::*;

fn etcd(fake: &Fake) -> Etcd {
    let patience = Duration::from_millis(300);
    Etcd { patience, ..Etcd::new(&fake.url(), &Peers::default()) }
}

fn list(hosts: &[&Host]) -> String {
    let pairs: Vec<Value> = hosts
        .iter()
        .map(|host| {
            let key = STANDARD.encode(format!("pillarbox/hosts/{}", host.id));
            json!({ "key": key, "value": STANDARD.encode(entry(host)) })
        })
        .collect();
    json!({ "header": { "revision": "41" }, "kvs": pairs, "count": "2" }).to_string()
}

#[test]
fn the_range_is_of_keys_below_the_prefix() {
    let etcd = Etcd::new(&DirectoryUrl("a:1".parse().unwrap()), &Peers::default());
    let (from, to) = etcd.range();
    assert_eq!(STANDARD.decode(from).unwrap(), b"pillarbox/hosts/");
    assert_eq!(STANDARD.decode(to).unwrap(), b"pillarbox/hosts0");
}

#[tokio::test]
async fn a_host_is_written_down_under_a_lease_and_reads_the_others() {
    let (me, other) = (host(1, "a"), host(2, "b"));
    let listed = list(&[&me, &other]);
    let fake = Fake::start(move |request| match request {
        _ if request.contains("/lease/grant") => {
            assert!(request.contains("\"TTL\":\"15\""), "{request}");
            says(200, "{\"ID\":\"7587\",\"TTL\":\"15\"}")
        }
        _ if request.contains("/kv/put") => {
            assert!(request.contains("\"lease\":\"7587\""), "{request}");
            says(200, "{}")
        }
        _ if request.contains("/lease/keepalive") => says(200, "{\"result\":{\"TTL\":\"15\"}}\n"),
        _ if request.contains("/watch") => {
            assert!(request.contains("\"start_revision\":\"42\""), "{request}");
            let said = "{\"result\":{\"created\":true}}\n{\"result\":{\"events\":[{}]}}\n";
            Answer::Hangs(format!("HTTP/1.1 200 OK\r\n\r\n{said}"))
        }
        _ => says(200, &listed),
    })
    .await;
    let mut etcd = etcd(&fake);
    let seen = etcd.look(&me).await.unwrap();
    let addresses: Vec<String> = seen.iter().map(|it| it.address.to_string()).collect();
    assert_eq!(addresses, ["a:8476", "b:8476"]);
    assert_eq!(etcd.look(&me).await.unwrap(), seen);
    etcd.leave().await.unwrap();
    assert_eq!(
        fake.asked(),
        [
            "POST /v3/lease/grant",
            "POST /v3/kv/put",
            "POST /v3/kv/range",
            "POST /v3/lease/keepalive",
            "POST /v3/watch",
            "POST /v3/kv/range",
            "POST /v3/lease/revoke",
        ]
    );
}

#[tokio::test]
async fn a_lease_that_ran_out_is_made_anew() {
    let me = host(1, "a");
    let empty = AtomicBool::new(true);
    let listed = list(&[&me]);
    let fake = Fake::start(move |request| match request {
        _ if request.contains("/lease/grant") => says(200, "{\"ID\":\"1\"}"),
        _ if request.contains("/lease/keepalive") => says(200, "{\"result\":{\"ID\":\"1\"}}"),
        _ if request.contains("/kv/range") && empty.swap(false, Ordering::Relaxed) => {
            says(200, "{\"header\":{\"revision\":\"1\"}}")
        }
        _ if request.contains("/kv/range") => says(200, &listed),
        _ => says(200, "{}"),
    })
    .await;
    let mut etcd = etcd(&fake);
    // Somebody emptied it right away.
    assert_eq!(etcd.look(&me).await.unwrap(), []);
    assert_eq!((etcd.lease, etcd.revision), (None, 0));
    assert_eq!(etcd.look(&me).await.unwrap().len(), 1);
    assert_eq!(etcd.lease, Some(1));
    fake.asked();
    // The lease ran out while this host was asleep.
    etcd.revision = 0;
    assert_eq!(etcd.look(&me).await.unwrap().len(), 1);
    assert_eq!(
        fake.asked(),
        [
            "POST /v3/lease/keepalive",
            "POST /v3/lease/grant",
            "POST /v3/kv/put",
            "POST /v3/kv/range"
        ]
    );
}

#[tokio::test]
async fn a_watch_without_news_ends_and_the_list_is_read_again() {
    let me = Host { address: None, ..host(1, "a") };
    let listed = list(&[&host(2, "b")]);
    let fake = Fake::start(move |request| match request {
        _ if request.contains("/watch") => Answer::Hangs("HTTP/1.1 200 OK\r\n\r\n".into()),
        _ => says(200, &listed),
    })
    .await;
    let mut etcd = Etcd { ttl: Duration::from_millis(60), revision: 5, ..etcd(&fake) };
    assert_eq!(etcd.look(&me).await.unwrap().len(), 1);
    assert_eq!(fake.asked(), ["POST /v3/watch", "POST /v3/kv/range"]);
}

#[tokio::test]
async fn whatever_it_says_is_an_error_and_soon() {
    let me = host(1, "a");
    for (name, answer) in misbehaviour() {
        let fake = Fake::start(move |_| answer.clone()).await;
        let error = etcd(&fake).look(&me).await.unwrap_err();
        assert!(error.to_string().len() < 400, "{name}: {error}");
    }
    // The same where only the watch goes wrong; what says nothing for a while is no error there.
    let reader = Host { address: None, ..me };
    let listed = list(&[]);
    for (name, answer) in misbehaviour() {
        let listed = listed.clone();
        let fake = Fake::start(move |request| {
            if request.contains("/watch") { answer.clone() } else { says(200, &listed) }
        })
        .await;
        let mut etcd = Etcd { revision: 5, ..etcd(&fake) };
        let looked = timeout(Duration::from_secs(10), etcd.look(&reader)).await;
        if looked.expect(name).is_err() {
            assert_eq!(etcd.revision, 0, "{name}");
        }
    }
}
