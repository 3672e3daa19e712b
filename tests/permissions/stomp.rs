//! Frames as a STOMP client sends them.

use pillarbox::server::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::house::PATIENCE;
use crate::oracle::Need;
use crate::{Scene, Tally, permissions};

/// What a client sends, with `receipt:done` in the last frame, and what that needs.
const FRAMES: [(&str, &[Need]); 13] = [
    ("SEND\ndestination:/queue/ab\n", &[('c', "queue", "ab"), ('w', "exchange", "amq.default")]),
    (
        "SEND\ndestination:/queue/abx2\nx-dead-letter-exchange:abx\n",
        &[
            ('c', "queue", "abx2"),
            ('r', "queue", "abx2"),
            ('w', "exchange", "abx"),
            ('w', "exchange", "amq.default"),
        ],
    ),
    ("SEND\ndestination:/amq/queue/ab\n", &[('w', "exchange", "amq.default")]),
    ("SEND\ndestination:/reply-queue/ab\n", &[('w', "exchange", "amq.default")]),
    ("SEND\ndestination:/exchange/abx/k\n", &[('w', "exchange", "abx")]),
    ("SEND\ndestination:/exchange/abt/bad\n", &[('w', "exchange", "abt"), ('w', "abt", "bad")]),
    (
        "SEND\ndestination:/topic/k.bad\n",
        &[('w', "exchange", "amq.topic"), ('w', "amq.topic", "k.bad")],
    ),
    (
        "BEGIN\ntransaction:t\n\n\0SEND\ntransaction:t\ndestination:/exchange/abx/k\n\n\0COMMIT\ntransaction:t\n",
        &[('w', "exchange", "abx")],
    ),
    ("SUBSCRIBE\nid:0\ndestination:/queue/ab\n", &[('c', "queue", "ab"), ('r', "queue", "ab")]),
    ("SUBSCRIBE\nid:0\ndestination:/amq/queue/ab\n", &[('r', "queue", "ab")]),
    (
        "SUBSCRIBE\nid:0\ndestination:/exchange/abx/k\nx-queue-name:abx2\nexclusive:false\n",
        &[
            ('c', "queue", "abx2"),
            ('w', "queue", "abx2"),
            ('r', "exchange", "abx"),
            ('r', "queue", "abx2"),
        ],
    ),
    (
        "SUBSCRIBE\nid:0\ndestination:/topic/k.bad\nx-queue-name:abx2\n",
        &[
            ('c', "queue", "abx2"),
            ('w', "queue", "abx2"),
            ('r', "exchange", "amq.topic"),
            ('r', "amq.topic", "k.bad"),
        ],
    ),
    (
        "UNSUBSCRIBE\ndurable:true\ndestination:/exchange/abx/k\nx-queue-name:ab\n",
        &[('c', "queue", "ab")],
    ),
];

#[tokio::test]
async fn every_frame_is_refused_to_whom_it_is_not_allowed() {
    let mut scene = Scene::new().await;
    let mut tally = Tally::default();
    for shapes in permissions() {
        scene.permit(shapes).await;
        for (frames, needs) in FRAMES {
            scene.set_again().await;
            let said = play(&scene, frames).await;
            scene.note(needs, said.is_some());
            tally.note(frames, needs, shapes, said.as_deref());
        }
    }
    tally.check();
    let sent = "SEND\ndestination:/amq/queue/ab\nuser-id:guest\n";
    scene.permit([(".*", |_| true); 3]).await;
    let said = play(&scene, sent).await.expect("it is refused");
    let text = "user_id property set to 'guest' but authenticated user was 'ann'";
    assert!(said.contains(text), "{said}");
}

/// Why it was refused, if it was.
async fn play(scene: &Scene, frames: &str) -> Option<String> {
    let address = scene.house.server.address(Protocol::Stomp).expect("the listener is there");
    let mut socket = TcpStream::connect(address).await.expect("the listener accepts");
    let hello = "CONNECT\naccept-version:1.2\nlogin:ann\npasscode:ann\nhost:/\n\n\0";
    let all = format!("{hello}{frames}receipt:done\n\n\0");
    socket.write_all(all.as_bytes()).await.expect("taken");
    let mut heard = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&heard);
        if text.contains("RECEIPT\nreceipt-id:done\n\n\0") {
            return None;
        }
        if text.split_once("ERROR\n").is_some_and(|(_, error)| error.contains('\0')) {
            assert!(
                text.contains("message:access_refused\n") || text.contains("message:precondition")
            );
            return Some(text.into_owned());
        }
        let read = timeout(PATIENCE, socket.read_buf(&mut heard)).await.expect("an answer comes");
        assert!(read.expect("it can be read") > 0, "closed without a word");
    }
}
