//! The way in, and how a connection ends.

use bytes::BytesMut;
use pillarbox::sessions::native::{Settings, Token};
use pillarbox_native::{Kind, Login, encode_preface, write_empty};
use rstest::rstest;

use crate::house::{House, login, push};

fn greeting(user: &str, password: &str) -> BytesMut {
    let mut out = BytesMut::new();
    encode_preface(&mut out);
    login(user, password).encode(1, &mut out);
    out
}

#[test]
fn guest_logs_in_and_is_greeted() {
    let mut house = House::new();
    let client = house.connect(Settings::default(), true);
    house.say_bytes(client, greeting("guest", "guest"));
    assert_eq!(house.heard(client), ["Hello 0", "Done 1"]);
}

#[rstest]
#[case::password("guest", "wrong", true)]
#[case::user("nobody", "guest", true)]
#[case::from_elsewhere("guest", "guest", false)]
fn a_wrong_login_is_refused_and_closed(
    #[case] user: &str,
    #[case] password: &str,
    #[case] loopback: bool,
) {
    let mut house = House::new();
    let client = house.connect(Settings::default(), loopback);
    house.say_bytes(client, greeting(user, password));
    assert_eq!(house.heard(client), ["Hello 0", "Goodbye 0 401"]);
    assert!(house.is_closed(client));
}

#[test]
fn a_conversation_is_the_same_wherever_its_bytes_are_cut() {
    let mut said = greeting("guest", "guest");
    pillarbox_native::DeclareMailbox { name: "jobs", ..Default::default() }.encode(2, &mut said);
    push(3, 0, "", "jobs", &["one", "two"], &mut said);
    write_empty(Kind::Ping, 4, &mut said);
    let expected = ["Hello 0", "Done 1", "Done 2", "Pushed 3 2", "Pong 4"];
    for cut in 0..said.len() {
        let mut house = House::new();
        let client = house.connect(Settings::default(), true);
        let (first, second) = said.split_at(cut);
        house.say_bytes(client, BytesMut::from(first));
        // What the session left is still in the socket's buffer.
        let mut heard = house.heard(client);
        let rest = house.rest(client);
        house.say_bytes(client, [&rest[..], second].concat()[..].into());
        heard.extend(house.heard(client));
        heard.sort();
        let mut expected = expected.map(str::to_owned);
        expected.sort();
        assert_eq!(heard, expected, "cut at {cut}");
    }
}

#[test]
fn other_protocols_are_turned_away() {
    let mut house = House::new();
    let client = house.connect(Settings::default(), true);
    house.say_bytes(client, b"GET / HTTP/1.1\r\n"[..].into());
    assert!(house.is_closed(client));
}

#[test]
fn the_token_stands_for_any_password() {
    for (token, expected) in [(&b"secret"[..], "Done 1"), (b"Secret", "Goodbye 0 401")] {
        let mut house = House::new();
        let settings = Settings { token: Some(Token(b"secret".to_vec())), ..Settings::default() };
        let client = house.connect(settings, true);
        house.say(client, |out| {
            encode_preface(out);
            Login { mechanism: Login::TOKEN, proof: token, ..login("guest", "") }.encode(1, out);
        });
        assert_eq!(house.heard(client), ["Hello 0", expected]);
    }
}

#[test]
fn what_follows_a_close_is_not_looked_at() {
    let mut house = House::new();
    let client = house.client();
    let mut said = BytesMut::new();
    write_empty(Kind::Close, 7, &mut said);
    said.extend_from_slice(&[0xff; 12]);
    house.say_bytes(client, said);
    assert_eq!(house.heard(client), ["Goodbye 0 200"]);
}

#[test]
fn nothing_is_said_to_who_has_not_said_what_it_speaks() {
    let mut house = House::new();
    let client = house.connect(Settings::default(), true);
    house.send_away(client, "the broker goes");
    assert_eq!(house.heard(client), [""; 0]);
    assert!(house.is_closed(client));
}

#[test]
fn who_has_the_token_and_names_nobody_is_an_administrator() {
    for (vhost, expected) in [("/", "Done 1"), ("nowhere", "Goodbye 0 404")] {
        let mut house = House::new();
        let settings = Settings { token: Some(Token(b"secret".to_vec())), ..Settings::default() };
        let client = house.connect(settings, true);
        house.say(client, |out| {
            encode_preface(out);
            let named = Login { mechanism: Login::TOKEN, proof: b"secret", ..login("", "") };
            Login { vhost, ..named }.encode(1, out);
        });
        assert_eq!(house.heard(client), ["Hello 0", expected]);
    }
}

#[rstest]
#[case::without_a_name("", Some("guest"), "Done 1")]
#[case::by_name("guest", Some("guest"), "Done 1")]
#[case::another("nobody", Some("guest"), "Goodbye 0 401")]
#[case::unknown("", Some("nobody"), "Goodbye 0 401")]
#[case::no_certificate("guest", None, "Goodbye 0 401")]
fn the_certificate_stands_for_whom_it_names(
    #[case] user: &str,
    #[case] named: Option<&str>,
    #[case] expected: &str,
) {
    let mut house = House::new();
    let client = house.connect_certified(named);
    house.say(client, |out| {
        encode_preface(out);
        Login { mechanism: Login::CERTIFICATE, proof: b"", ..login(user, "") }.encode(1, out);
    });
    assert_eq!(house.heard(client), ["Hello 0", expected]);
}

#[test]
fn close_is_answered_after_everything_before_it() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.say(client, |out| {
        push(3, 0, "", "jobs", &["one"], out);
        write_empty(Kind::Close, 4, out);
    });
    assert_eq!(house.heard(client), ["Pushed 3 1", "Goodbye 0 200"]);
    assert!(house.is_closed(client));
}

#[rstest]
#[case::unknown_kind(&[6, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0], "Goodbye 0 400")]
#[case::too_large(&[0xff, 0xff, 0xff, 0xff], "Goodbye 0 413")]
#[case::malformed(&[7, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 9], "Goodbye 0 400")]
#[case::second_login(&[6, 0, 0, 0, 0x80, 0, 1, 0, 0, 0], "Goodbye 0 400")]
fn a_client_that_breaks_the_protocol_is_told_why(#[case] bytes: &[u8], #[case] expected: &str) {
    let mut house = House::new();
    let client = house.client();
    house.say_bytes(client, bytes.into());
    assert_eq!(house.heard(client), [expected]);
    assert!(house.is_closed(client));
}

#[test]
fn a_client_that_promised_signs_of_life_is_dropped_without_them() {
    let mut house = House::new();
    let client = house.connect(Settings::default(), true);
    house.say(client, |out| {
        encode_preface(out);
        Login { silence_max_s: 10, ..login("guest", "guest") }.encode(1, out);
    });
    house.pass(9_000);
    house.say(client, |out| write_empty(Kind::Ping, 2, out));
    house.pass(9_000);
    assert!(!house.is_closed(client));
    house.pass(1_000);
    assert!(house.is_closed(client));
}
