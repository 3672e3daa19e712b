//! Other hosts as JSON and as metrics.

use serde_json::{Value, json};

use super::metrics::Page;
use crate::broker::{DrainView, PeerView, Time};

pub fn peer(view: &PeerView, now: Time) -> Value {
    let state = |since: Option<Time>| match since {
        Some(since) => json!({"state": "up", "since_ms": since.0}),
        None => json!({"state": "down"}),
    };
    let shadowed: Vec<&str> = view.shadowed.iter().map(|name| name.as_str()).collect();
    let tags: Vec<&str> = view.tags.iter().map(|tag| tag.as_str()).collect();
    json!({
        "name": view.host.as_str(),
        "tags": tags,
        "to": state(view.carried_since),
        "from": state(view.greeted_since),
        "messages": view.messages,
        "message_bytes": view.bytes,
        "oldest_age_ms": view.oldest.map(|oldest| now.since_ms(oldest)),
        "mailboxes": view.mailboxes,
        "bindings": view.bindings,
        "arrived": view.arrived,
        "repeated": view.repeated,
        "refused": view.refused,
        "error": view.error.as_ref().map(|(at, text)| json!({"text": text, "at_ms": at.0})),
        "shadowed": shadowed,
    })
}

/// How far a host is drained.
pub fn drain(view: &DrainView) -> Value {
    json!({
        "draining": view.draining,
        "connections": view.connections,
        "unsettled": view.unsettled,
        "waiting": view.waiting,
        "untold": view.untold,
        "resting": view.resting,
    })
}

/// One sample of each for each host.
pub fn metrics(page: &mut Page, views: &[PeerView], now: Time) {
    for view in views {
        let up = |since: Option<Time>| f64::from(u8::from(since.is_some()));
        let age = view.oldest.map_or(0, |oldest| now.since_ms(oldest)) as f64 / 1000.0;
        for (name, help, value) in [
            ("link_up", "Whether the link to the host is up", up(view.carried_since)),
            ("guest_up", "Whether the host's own link to this one is up", up(view.greeted_since)),
            ("messages", "Messages that wait for the host", view.messages as f64),
            ("message_bytes", "Bytes of their bodies", view.bytes as f64),
            ("oldest_age_seconds", "How long the oldest of them waits", age),
            ("mailboxes", "Mailboxes that are known to live there", view.mailboxes as f64),
            ("bindings", "Bindings of exchanges that are known from there", view.bindings as f64),
        ] {
            page.gauge(&format!("pillarbox_peer_{name}"), help, &[("peer", &view.host)], value);
        }
        for (name, help, value) in [
            ("arrived", "Messages that came from the host", view.arrived),
            (
                "repeated",
                "Messages that the host brought twice and that were taken once",
                view.repeated,
            ),
            ("refused", "Messages that the host refused for good", view.refused),
        ] {
            let name = format!("pillarbox_peer_{name}_total");
            page.counter(&name, help, &[("peer", &view.host)], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> PeerView {
        PeerView {
            host: "b".into(),
            tags: vec!["gpu".into()],
            carried_since: Some(Time(5000)),
            greeted_since: None,
            error: Some((Time(7), "refused".into())),
            mailboxes: 3,
            bindings: 2,
            messages: 4,
            bytes: 400,
            oldest: Some(Time(1500)),
            arrived: 10,
            repeated: 1,
            refused: 2,
            shadowed: vec!["work".into()],
        }
    }

    #[test]
    fn a_host_is_shown_with_its_links_and_what_waits() {
        let shown = peer(&view(), Time(4000));
        assert_eq!(shown["to"], json!({"state": "up", "since_ms": 5000}));
        assert_eq!(shown["from"], json!({"state": "down"}));
        assert_eq!(shown["oldest_age_ms"], json!(2500));
        assert_eq!(shown["error"], json!({"text": "refused", "at_ms": 7}));
        assert_eq!((&shown["shadowed"], &shown["tags"]), (&json!(["work"]), &json!(["gpu"])));
    }

    #[test]
    fn each_host_has_its_metrics() {
        let mut page = Page::default();
        let quiet = PeerView { host: "c".into(), oldest: None, carried_since: None, ..view() };
        metrics(&mut page, &[view(), quiet], Time(4000));
        let text = page.text();
        for line in [
            "# TYPE pillarbox_peer_link_up gauge",
            "pillarbox_peer_link_up{peer=\"b\"} 1",
            "pillarbox_peer_link_up{peer=\"c\"} 0",
            "pillarbox_peer_messages{peer=\"b\"} 4",
            "pillarbox_peer_oldest_age_seconds{peer=\"b\"} 2.5",
            "pillarbox_peer_oldest_age_seconds{peer=\"c\"} 0",
            "pillarbox_peer_repeated_total{peer=\"b\"} 1",
            "pillarbox_peer_refused_total{peer=\"b\"} 2",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
    }
}
