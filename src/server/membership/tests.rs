//! A host's membership over its starts.

use super::*;
use crate::peers::HostId;

fn config(directory: &std::path::Path, hosts: &str) -> Config {
    let flags = [
        ("x", "store.directory", directory.to_str().unwrap().to_owned()),
        ("x", "peers.name", "a".to_owned()),
        ("x", "peers.hosts", hosts.to_owned()),
    ];
    Config::load(None, [], flags).unwrap()
}

async fn open(config: &Config) -> Members {
    let listening = Some("127.0.0.1:8476".parse().unwrap());
    Members::open(config, None, listening, Clock::start()).await.unwrap()
}

fn shown(members: &Members) -> Vec<(Option<HostId>, String)> {
    let dials = members.dials().borrow().clone();
    dials.iter().map(|it| (it.id, format!("{:?}", it.addresses))).collect()
}

#[tokio::test]
async fn a_start_dials_whom_the_last_one_knew() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(&config(directory.path(), "localhost:1")).await;
    assert_eq!(shown(&first), [(None, "[localhost:1]".to_owned())]);
    let closed = CancellationToken::new();
    let keeper = tokio::spawn(first.clone().keep(closed.clone()));
    let b = Host {
        id: HostId(2),
        name: "b".into(),
        incarnation: 4,
        run: 0,
        tags: Vec::new(),
        address: Some("127.0.0.1:2".parse().unwrap()),
    };
    let via = "localhost:1".parse().unwrap();
    assert_eq!(first.meet(&b, Some(&via)), Meeting::Welcome);
    assert_eq!(shown(&first), [(Some(b.id), "[localhost:1, 127.0.0.1:2]".to_owned())]);
    let file = directory.path().join("hosts.json");
    tokio::time::timeout(Duration::from_secs(10), async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    closed.cancel();
    keeper.await.unwrap();

    // The settings have lost it, and still it is known.
    let second = open(&config(directory.path(), "")).await;
    assert_eq!(second.me().id, first.me().id);
    assert!(second.me().incarnation > first.me().incarnation);
    assert_eq!(shown(&second), [(Some(b.id), "[127.0.0.1:2]".to_owned())]);
    let stale = Host { incarnation: 3, ..b.clone() };
    assert_eq!(second.meet(&stale, None), Meeting::OldIncarnation { known: 4 });
    second.forget(&"x".into());
    assert_eq!(shown(&second).len(), 1);
    second.forget(&b.name);
    assert_eq!(shown(&second), []);
}
