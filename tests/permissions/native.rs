//! Requests of the native protocol, through the Rust library.

use std::time::Duration;

use pillarbox::broker::Value;
use pillarbox::client::{
    Binding, Browse, Client, Error, Exchange, List, Mailbox, NewMessage, Rewind, Subscribe,
};
use pillarbox_native::Code;

use crate::oracle::Need;
use crate::{Scene, Tally, connect, permissions};

const REQUESTS: [(&str, &[Need]); 21] = [
    ("declare", &[('c', "queue", "ab")]),
    (
        "declare with dead letters",
        &[('c', "queue", "abx2"), ('r', "queue", "abx2"), ('w', "exchange", "abx")],
    ),
    ("find", &[('?', "queue", "ab")]),
    ("purge", &[('r', "queue", "ab")]),
    ("bind", &[('w', "queue", "ab"), ('r', "exchange", "abx")]),
    ("bind topic", &[('w', "queue", "ab"), ('r', "exchange", "abt"), ('r', "abt", "k.bad")]),
    ("unbind", &[('w', "queue", "ab"), ('r', "exchange", "abx")]),
    ("bind exchange", &[('w', "exchange", "aby"), ('r', "exchange", "abx")]),
    ("declare exchange", &[('c', "exchange", "abx")]),
    (
        "declare exchange with alternate",
        &[('c', "exchange", "abx2"), ('r', "exchange", "abx2"), ('w', "exchange", "abx")],
    ),
    ("push", &[('w', "exchange", "amq.default")]),
    ("publish", &[('w', "exchange", "abx")]),
    ("publish topic", &[('w', "exchange", "abt"), ('w', "abt", "k.bad")]),
    ("pull", &[('r', "queue", "ab")]),
    ("pull settled", &[('r', "queue", "ab")]),
    ("subscribe", &[('r', "queue", "ab")]),
    ("browse", &[('r', "queue", "ab")]),
    ("rewind", &[('r', "queue", "ab")]),
    ("delayed", &[('r', "queue", "ab")]),
    // Deleting what is not there is refused as such: so it is for who sees nothing of it.
    ("delete", &[('?', "queue", "ab"), ('c', "queue", "ab")]),
    ("delete exchange", &[('?', "exchange", "abx"), ('c', "exchange", "abx")]),
];

#[tokio::test]
async fn every_request_is_refused_to_whom_it_is_not_allowed() {
    let mut scene = Scene::new().await;
    let mut tally = Tally::default();
    for shapes in permissions() {
        scene.permit(shapes).await;
        let ann = connect(&scene.house, "ann").await;
        for (request, needs) in REQUESTS {
            scene.set_again().await;
            let said = match ask(&ann, request).await {
                Ok(()) => None,
                Err(Error::Refused { code: Code::Forbidden | Code::NotFound, text }) => Some(text),
                Err(other) => panic!("{request}: {other}"),
            };
            scene.note(needs, said.is_some());
            tally.note(request, needs, shapes, said.as_deref());
        }
        ann.close().await.expect("it is closed");
    }
    tally.check();
    scene.permit([(".*", |_| true); 3]).await;
    let ann = connect(&scene.house, "ann").await;
    let forged = NewMessage::new("x").with(|it| it.user_id = Some("guest".into()));
    let refused = ann.push("ab", forged).await.expect_err("it is refused").to_string();
    let text = "user_id property set to 'guest' but authenticated user was 'ann'";
    assert!(refused.contains(text), "{refused}");
}

async fn ask(ann: &Client, request: &str) -> Result<(), Error> {
    let binding = |source: &str, destination: &str, key: &str| Binding {
        source: source.into(),
        destination: destination.into(),
        to_exchange: destination == "aby",
        key: key.into(),
        ..Binding::default()
    };
    let exchange =
        |name: &str| Exchange { name: name.into(), kind: "direct".into(), ..Exchange::default() };
    match request {
        "declare" => ann.declare(&Mailbox::durable("ab")).await.map(drop),
        "declare with dead letters" => {
            let abx = Value::text("abx");
            let mailbox = Mailbox::durable("abx2").argument("x-dead-letter-exchange", abx);
            ann.declare(&mailbox).await.map(drop)
        }
        "find" => ann.find("ab").await.map(drop),
        "purge" => ann.purge("ab").await.map(drop),
        "bind" => ann.bind(&binding("abx", "ab", "k")).await,
        "bind topic" => ann.bind(&binding("abt", "ab", "k.bad")).await,
        "unbind" => ann.unbind(&binding("abx", "ab", "k")).await,
        "bind exchange" => ann.bind(&binding("abx", "aby", "k")).await,
        "declare exchange" => ann.declare_exchange(&exchange("abx")).await,
        "declare exchange with alternate" => {
            let mut exchange = exchange("abx2");
            exchange.arguments.set("alternate-exchange", Value::text("abx"));
            ann.declare_exchange(&exchange).await
        }
        "push" => ann.push("ab", "x").await,
        "publish" => ann.publish("abx", "k", "x").await,
        "publish topic" => ann.publish("abt", "k.bad", "x").await,
        "pull" => ann.pull("ab", 1, Duration::ZERO).await.map(drop),
        "pull settled" => ann.pull_settled("ab", 1, Duration::ZERO).await.map(drop),
        "subscribe" => ann.subscribe("ab", &Subscribe::default()).await?.end().await,
        "browse" => ann.browse("ab", &Browse::default()).await.map(drop),
        "rewind" => match ann.rewind("ab", &Rewind::default()).await {
            // It keeps none, which is told only to who may read it.
            Err(error) if error.code() == Some(Code::Precondition) => Ok(()),
            other => other.map(drop),
        },
        "delayed" => ann.list(List::Delayed, "ab").await.map(drop),
        "delete" => ann.delete("ab", false, false).await.map(drop),
        "delete exchange" => ann.delete_exchange("abx", false).await,
        other => panic!("what is {other}?"),
    }
}
