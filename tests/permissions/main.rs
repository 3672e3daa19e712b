//! The matrix of permissions (`tests/transcripts/permissions.rs` has it for AMQP) over STOMP, the native protocol, RabbitMQ's
//! HTTP API and mailboxes over HTTP: every operation against every pattern, and the same oracle says what to expect.

#[path = "../http/house.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod house;
mod http;
mod native;
mod oracle;
mod stomp;

use std::time::Duration;

use pillarbox::client::{Binding, Client, Connect, Exchange, Mailbox, Proof};
use pillarbox::config::Address;
use pillarbox::server::Protocol;
use serde_json::json;

use crate::house::House;
use crate::oracle::{KEYS, Need, SHAPES, Shape, missing, text};

/// A house with a user `ann`, and the guest who puts everything back where it was.
struct Scene {
    house: House,
    guest: Client,
    changed: bool,
}

impl Scene {
    async fn new() -> Self {
        let house = House::listening(Address::local(0)).await;
        let hash = house.get("/api/auth/hash_password/ann").await["ok"].clone();
        let user = json!({"password_hash": hash, "tags": "management"});
        house.does("PUT", "/api/users/ann", user, 201).await;
        for exchange in ["abt", "amq.topic"] {
            let keys = json!({"exchange": exchange, "write": KEYS, "read": KEYS});
            house.does("PUT", "/api/topic-permissions/%2F/ann", keys, 201).await;
        }
        let guest = connect(&house, "guest").await;
        Self { house, guest, changed: true }
    }

    async fn permit(&self, shapes: [Shape; 3]) {
        let [configure, write, read] = shapes.map(|(pattern, _)| pattern);
        let body = json!({"configure": configure, "write": write, "read": read});
        let heard = self.house.ask("PUT", "/api/permissions/%2F/ann", Some(&body)).await;
        assert!(heard.status == 201 || heard.status == 204, "{heard:?}");
    }

    /// What is refused for want of its only need has changed nothing.
    fn note(&mut self, needs: &[Need], refused: bool) {
        self.changed = !refused || needs.len() > 1;
    }

    async fn set_again(&mut self) {
        if std::mem::replace(&mut self.changed, false) {
            self.set().await;
        }
    }

    async fn set(&self) {
        let exchange = |name: &str, kind: &str| Exchange {
            name: name.into(),
            kind: kind.into(),
            ..Exchange::default()
        };
        let abx = Binding {
            source: "abx".into(),
            destination: "ab".into(),
            key: "k".into(),
            ..Binding::default()
        };
        let guest = &self.guest;
        // Whatever was made may be there or not.
        let _ = guest.delete("abx2", false, false).await;
        let _ = guest.delete_exchange("abx2", false).await;
        guest.declare(&Mailbox::durable("ab")).await.unwrap();
        for (name, kind) in [("abx", "direct"), ("aby", "fanout"), ("abt", "topic")] {
            guest.declare_exchange(&exchange(name, kind)).await.unwrap();
        }
        guest.bind(&abx).await.unwrap();
    }
}

async fn connect(house: &House, user: &str) -> Client {
    let address = house.server.address(Protocol::Native).expect("the listener is there");
    let connect = Connect {
        address: address.to_string(),
        user: user.into(),
        proof: Proof::Password(user.into()),
        timeout: Duration::from_secs(30),
        ..Connect::default()
    };
    Client::connect(&connect).await.expect("the login is right")
}

/// All triples of patterns.
fn permissions() -> impl Iterator<Item = [Shape; 3]> {
    let each = || SHAPES.into_iter();
    each().flat_map(move |configure| {
        each().flat_map(move |write| each().map(move |read| [configure, write, read]))
    })
}

#[derive(Default)]
struct Tally {
    allowed: u32,
    refused: u32,
}

impl Tally {
    /// `said` is why it was refused.
    fn note(&mut self, what: &str, needs: &[Need], shapes: [Shape; 3], said: Option<&str>) {
        let expected = missing(needs, shapes).map(text);
        let patterns = shapes.map(|(pattern, _)| pattern);
        match (&expected, said) {
            (None, None) => self.allowed += 1,
            (Some(expected), Some(said)) if said.contains(expected.as_str()) => self.refused += 1,
            _ => panic!("{what} with {patterns:?}: expected {expected:?}, said {said:?}"),
        }
    }

    fn check(&self) {
        let Self { allowed, refused } = self;
        assert!(*allowed > 100 && *refused > 100, "{allowed} allowed, {refused} refused");
    }
}
