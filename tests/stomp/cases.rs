//! The malformed rows S1 to S19, and limits.

use rstest::rstest;

use super::House;
use pillarbox::broker::{ChannelId, Command, Holder, Quota, Request, SERVER, Ticket};

fn errors(house: &mut House, number: u64) -> (String, bool) {
    let heard = house.hears(number).unwrap_or_default();
    let message = heard.strip_prefix("ERROR\nmessage:").unwrap_or_default();
    let message = message.split('\n').next().unwrap_or_default().to_owned();
    (message, house.client(number).closed)
}

#[rstest]
#[case::unknown_command(b"SEMD\n\n\0", "Bad command")]
#[case::lower_case(b"send\n\n\0", "Bad command")]
#[case::a_server_frame(b"MESSAGE\n\n\0", "Bad command")]
#[case::no_colon(b"SEND\ndestination\n\n\0", "Invalid frame")]
#[case::no_name(b"SEND\n:x\n\n\0", "Invalid frame")]
#[case::odd_escape(b"SEND\na:\\t\n\n\0", "Invalid frame")]
#[case::cut_escape(b"SEND\na:b\\\n\n\0", "Invalid frame")]
#[case::two_lengths(b"SEND\ncontent-length:1\ncontent-length:2\n\na\0", "Invalid frame")]
#[case::nul_in_header(b"SEND\na:\0b\n\n\0", "Invalid frame")]
#[case::not_utf8(b"SEND\na:\xFF\n\n\0", "Invalid frame")]
#[case::negative_length(b"SEND\ncontent-length:-1\n\n\0", "Invalid frame")]
#[case::signed_length(b"SEND\ncontent-length:+5\n\nabcde\0", "Invalid frame")]
#[case::blank_length(b"SEND\ncontent-length: 5\n\nabcde\0", "Invalid frame")]
#[case::hexadecimal_length(b"SEND\ncontent-length:0x5\n\nabcde\0", "Invalid frame")]
#[case::large_length(b"SEND\ncontent-length:2147483648\n\n", "Frame too large")]
#[case::huge_length(b"SEND\ncontent-length:18446744073709551616\n\n", "Invalid frame")]
#[case::short_length(b"SEND\ncontent-length:1\n\nabc\0", "Invalid frame")]
#[case::long_length(b"SEND\ncontent-length:3\n\na\0bc", "Invalid frame")]
fn bytes_that_are_not_stomp_end_the_connection(#[case] bytes: &[u8], #[case] message: &str) {
    for piece in [1, usize::MAX] {
        let mut house = House::new();
        house.connects(1, "1.2");
        house.connects(2, "1.2");
        bytes.chunks(piece).for_each(|piece| house.sends(1, piece));
        assert_eq!(errors(&mut house, 1), (message.to_owned(), true));
        assert_eq!(house.hears(1), None);
        // Nobody else notices.
        house.sends(2, b"SEND\ndestination:/queue/a\nreceipt:1\n\n\0");
        assert_eq!(house.hears(2), Some("RECEIPT\nreceipt-id:1\n\n\0".into()));
    }
}

#[rstest]
#[case::no_destination("SEND\n\nx", "Missing destination")]
#[case::unknown_kind("SEND\ndestination:/foo/bar\n\nx", "Unknown destination")]
#[case::two_destinations("SEND\ndestination:/queue/a,/queue/b\n\nx", "Invalid destination")]
#[case::upwards("SEND\ndestination:../x\n\nx", "Unknown destination")]
#[case::to_a_temp_queue("SEND\ndestination:/temp-queue/x\n\nx", "Invalid destination")]
#[case::message_id("SEND\ndestination:/queue/a\nmessage-id:1\n\nx", "Invalid header")]
#[case::priority("SEND\ndestination:/queue/a\npriority:high\n\nx", "Invalid header")]
#[case::nowhere("SUBSCRIBE\nid:0\n\n", "Missing destination")]
#[case::from_a_temp_queue("SUBSCRIBE\nid:0\ndestination:/temp-queue/x\n\n", "Invalid destination")]
#[case::temp_id("SUBSCRIBE\nid:/temp-queue/x\ndestination:/queue/x\n\n", "Invalid id")]
#[case::ack_mode("SUBSCRIBE\nid:0\ndestination:/queue/x\nack:maybe\n\n", "Invalid header")]
#[case::prefetch("SUBSCRIBE\nid:0\ndestination:/queue/x\nprefetch-count:-1\n\n", "Invalid header")]
#[case::durable_without_id("SUBSCRIBE\ndestination:/topic/x\ndurable:true\n\n", "Missing Header")]
#[case::unsubscribe("UNSUBSCRIBE\nid:9\n\n", "No subscription found")]
#[case::unsubscribe_nothing("UNSUBSCRIBE\n\n", "Missing header")]
#[case::ack_without_id("ACK\nmessage-id:T_0@@s@@1\n\n", "Missing header")]
#[case::ack_odd_id("ACK\nid:1\n\n", "Invalid header")]
#[case::ack_unknown_subscription("ACK\nid:T_9@@session-1@@1\n\n", "Subscription not found")]
#[case::ack_unknown_message("ACK\nid:T_s@@<session>@@1\n\n", "Message not found")]
#[case::ack_of_another_session("NACK\nid:T_s@@session-1@@1\n\n", "Message not found")]
#[case::requeue("NACK\nid:T_s@@session-1@@1\nrequeue:perhaps\n\n", "Invalid header")]
fn frame_that_cannot_be_done_is_refused_alone(#[case] frame: &str, #[case] message: &str) {
    let mut house = House::new();
    house.connects(1, "1.2");
    house.sends(1, b"SUBSCRIBE\nid:s\ndestination:/queue/s\nack:client\n\n\0");
    let id = house.client(1).id.clone();
    house.sends(1, format!("{}\0", frame.replace("<session>", &id)).as_bytes());
    assert_eq!(errors(&mut house, 1), (message.to_owned(), false));
    house.sends(1, b"SEND\ndestination:/queue/b\nreceipt:1\n\n\0");
    assert_eq!(house.hears(1), Some("RECEIPT\nreceipt-id:1\n\n\0".into()));
}

#[test]
fn repeated_header_means_what_it_says_first() {
    let mut house = House::new();
    house.connects(1, "1.2");
    house.sends(1, b"SEND\ndestination:/queue/a\nreceipt:1\nreceipt:2\n\n\0");
    assert_eq!(house.hears(1), Some("RECEIPT\nreceipt-id:1\n\n\0".into()));
    assert_eq!(house.hears(1), None);
}

#[rstest]
#[case::endless_header_line("SEND\na:", "x", 8 * 1024 - 1)]
#[case::endless_headers("SEND\n", "header:value\n", 101)]
#[case::endless_block("SEND\n", &format!("a:{}\n", "x".repeat(8000)), 5)]
#[case::endless_body("SEND\ndestination:/queue/a\n\n", &"x".repeat(1 << 20), 16)]
fn frame_that_never_ends_is_refused_at_its_limit(
    #[case] start: &str,
    #[case] more: &str,
    #[case] times: usize,
) {
    let mut house = House::new();
    house.connects(1, "1.2");
    house.sends(1, start.as_bytes());
    for _ in 0..times {
        assert!(!house.client(1).closed);
        house.sends(1, more.as_bytes());
    }
    let (message, closed) = errors(&mut house, 1);
    assert!(closed, "{message}");
}

#[test]
fn before_login_a_frame_is_small() {
    let mut house = House::new();
    house.sends(1, b"CONNECT\naccept-version:1.2\n\n");
    house.sends(1, &[b'x'; 64 * 1024]);
    assert_eq!(errors(&mut house, 1), ("Frame too large".into(), true));
}

#[test]
fn what_is_sent_ahead_of_the_login_waits_and_is_bounded() {
    let mut house = House::new();
    house.holds();
    house.sends(1, b"CONNECT\naccept-version:1.2\nhost:/\n\n\0GARBAGE\n\n\0");
    assert_eq!(house.hears(1), None);
    house.sends(1, &[b'x'; 64 * 1024]);
    assert_eq!(errors(&mut house, 1), ("Bad CONNECT".into(), true));
}

#[test]
fn line_feeds_are_heart_beats_within_reason() {
    let mut house = House::new();
    house.connects(1, "1.2");
    for _ in 0..20 {
        house.sends(1, &[b'\n'; 9000]);
        house.passes(1000);
        assert!(!house.client(1).closed);
    }
    house.sends(1, &[b'\n'; 1_000_000]);
    assert_eq!(errors(&mut house, 1), ("Too many heart-beats".into(), true));
}

#[test]
fn line_feed_behind_each_frame_is_no_flood() {
    let mut house = House::new();
    house.connects(1, "1.2");
    house.sends(1, &b"SEND\ndestination:/queue/a\n\nx\0\n".repeat(30_000));
    assert!(!house.client(1).closed);
}

#[test]
fn transactions_are_bounded() {
    let mut house = House::new();
    house.settings.transaction_actions_max = 3;
    house.settings.transactions_max = 2;
    house.connects(1, "1.2");
    house.sends(1, b"BEGIN\ntransaction:a\n\n\0BEGIN\ntransaction:b\n\n\0");
    house.sends(1, b"BEGIN\ntransaction:c\n\n\0");
    assert_eq!(errors(&mut house, 1), ("Transaction limit exceeded".into(), false));
    house.sends(1, &b"SEND\ndestination:/queue/a\ntransaction:a\n\nx\0".repeat(3));
    assert_eq!(house.hears(1), None);
    house.sends(1, b"SEND\ndestination:/queue/a\ntransaction:a\n\nx\0");
    assert_eq!(errors(&mut house, 1), ("Transaction too large".into(), false));
    house.sends(1, b"COMMIT\ntransaction:a\n\n\0");
    assert_eq!(errors(&mut house, 1), ("Bad transaction".into(), false));
}

#[test]
fn default_user_comes_from_this_machine_only() {
    let mut house = House::new();
    house.loopback = false;
    house.sends(1, b"CONNECT\naccept-version:1.2\nhost:/\n\n\0");
    let heard = house.hears(1).unwrap_or_default();
    assert!(heard.ends_with("\n\nnon-loopback access denied\n\0"), "{heard:?}");
    assert!(house.client(1).closed);
}

#[rstest]
#[case::of_the_vhost(Holder::Vhost("/".into()), "Connection refused: vhost connection limit reached")]
#[case::of_the_user(
    Holder::User("guest".into()),
    "connection refused for user 'guest': user connection limit (1) is reached"
)]
fn limit_of_connections_is_told(#[case] holder: Holder, #[case] detail: &str) {
    let mut house = House::new();
    house.connects(1, "1.2");
    let quota = Request::SetQuota { holder, quota: Quota::Connections, most: Some(1) };
    house.apply(SERVER, Command::Request(ChannelId(0), Ticket(0), Box::new(quota)));
    house.sends(2, b"CONNECT\naccept-version:1.2\nhost:/\n\n\0");
    let heard = house.hears(2).unwrap_or_default();
    let expected = format!("\n\n{detail}\n\0");
    assert!(heard.starts_with("ERROR\nmessage:Bad CONNECT\n"), "{heard:?}");
    assert!(heard.ends_with(&expected), "{heard:?}");
    assert!(house.client(2).closed);
    // Whoever goes makes room.
    house.leaves(1);
    house.connects(3, "1.2");
}

#[test]
fn temporary_queue_carries_answers_back() {
    let mut house = House::new();
    house.connects(1, "1.2");
    house.connects(2, "1.2");
    house.sends(2, b"SUBSCRIBE\nid:0\ndestination:/queue/service\n\n\0");
    for question in ["one", "two"] {
        house.sends(
            1,
            format!("SEND\ndestination:/queue/service\nreply-to:/temp-queue/t\n\n{question}\0")
                .as_bytes(),
        );
        let heard = house.hears(2).expect("the service is asked");
        let address = heard.split("reply-to:").nth(1).and_then(|it| it.split('\n').next());
        let address = address.expect("there is an address for the answer");
        assert!(address.starts_with("/reply-queue/amq.gen-"), "{address}");
        house.sends(2, format!("SEND\ndestination:{address}\n\nanswer\0").as_bytes());
        let heard = house.hears(1).expect("the answer arrives");
        assert!(
            heard.starts_with("MESSAGE\nsubscription:/temp-queue/t\ndestination:/queue/amq.gen-")
        );
        assert!(heard.ends_with("\n\nanswer\0"));
    }
}
