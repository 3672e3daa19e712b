//! Pulling, subscribing and settling.

use pillarbox_native::{Code, Kind, Outcome, Unsubscribe, encode_credit};

use crate::house::House;

#[test]
fn a_pull_brings_what_is_there() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    let bodies: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    house.push(client, 3, "jobs", &bodies);
    house.heard(client);
    house.pull(client, 4, "jobs", 70, 0);
    let got = house.got(client);
    assert_eq!(got.iter().map(|it| &*it.body).collect::<Vec<_>>(), bodies[..70]);
    house.pull(client, 5, "jobs", 1000, 0);
    assert_eq!(house.got(client).len(), 30);
    house.pull(client, 6, "jobs", 1, 0);
    assert_eq!(house.heard(client), ["Pulled 6"]);
}

/// Seeds, case 1: a message after an idle long-poll is delivered.
#[test]
fn a_pull_waits_for_the_first_message_and_swallows_none_afterwards() {
    let mut house = House::new();
    let (waits, pushes) = (house.client(), house.client());
    house.declare(waits, "jobs");
    house.pull(waits, 3, "jobs", 10, 1000);
    house.pass(999);
    assert_eq!(house.heard(waits), Vec::<String>::new());
    house.pass(1);
    assert_eq!(house.heard(waits), ["Pulled 3"]);
    house.push(pushes, 4, "jobs", &["one"]);
    assert_eq!(house.heard(waits), Vec::<String>::new());
    house.pull(waits, 5, "jobs", 10, 60_000);
    assert_eq!(house.heard(waits), ["Pulled 5 one"]);
    house.pull(waits, 6, "jobs", 1, 60_000);
    house.push(pushes, 7, "jobs", &["two", "three"]);
    assert_eq!(house.heard(waits), ["Pulled 6 two"]);
    house.pull(pushes, 8, "jobs", 1, 0);
    assert_eq!(house.heard(pushes), ["Pushed 4 1", "Pushed 7 2", "Pulled 8 three"]);
}

/// Seeds, case 3: a released message wakes who waits.
#[test]
fn a_released_message_wakes_a_waiting_pull() {
    let mut house = House::new();
    let (holds, waits) = (house.client(), house.client());
    house.declare(holds, "jobs");
    house.push(holds, 3, "jobs", &["one"]);
    house.pull(holds, 4, "jobs", 1, 0);
    let got = house.got(holds);
    house.pull(waits, 5, "jobs", 1, 60_000);
    house.settle(holds, 6, 0, Outcome::Released, &got[0]);
    assert_eq!(house.heard(holds), ["Done 6"]);
    assert_eq!(house.heard(waits), ["Pulled 5 one*"]);
}

/// Seeds, case 6: a client that goes amid waiting takes nothing with it.
#[test]
fn what_a_lost_client_held_returns() {
    let mut house = House::new();
    let (lost, stays) = (house.client(), house.client());
    house.declare(stays, "jobs");
    house.pull(lost, 3, "jobs", 5, 60_000);
    house.push(stays, 4, "jobs", &["one"]);
    house.lose(lost);
    house.push(stays, 5, "jobs", &["two"]);
    house.heard(stays);
    house.pull(stays, 6, "jobs", 5, 0);
    assert_eq!(house.heard(stays), ["Pulled 6 one* two"]);
}

/// Seeds, case 4: settling twice is an error and changes nothing.
#[test]
fn a_second_settlement_is_refused() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.push(client, 3, "jobs", &["one", "two"]);
    house.pull(client, 4, "jobs", 2, 0);
    let got = house.got(client);
    house.settle(client, 5, 0, Outcome::Accepted, &got[0]);
    house.settle(client, 6, 0, Outcome::Accepted, &got[0]);
    house.settle(client, 7, 0, Outcome::Accepted, &got[1]);
    assert_eq!(house.heard(client), ["Done 5", "Refused 6 404", "Done 7"]);
    house.settle(client, 0, 0, Outcome::Accepted, &got[1]);
    assert_eq!(house.heard(client), ["Refused 0 404"]);
}

#[test]
fn a_wrong_settlement_without_id_is_not_laid_to_the_next() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.push(client, 3, "jobs", &["one"]);
    house.pull(client, 4, "jobs", 1, 0);
    let got = house.got(client);
    let run = pillarbox_native::Run { mailbox: got[0].mailbox, first: got[0].seq, count: 1 };
    let wrong = pillarbox_native::Run { first: 77, ..run };
    house.say(client, |out| {
        pillarbox_native::Settle::encode(0, 0, Outcome::Accepted, &[wrong], out);
        pillarbox_native::Settle::encode(5, 0, Outcome::Accepted, &[run], out);
    });
    assert_eq!(house.heard(client), ["Refused 0 404", "Done 5"]);
}

#[test]
fn a_settlement_that_names_everything_is_refused_at_once() {
    let mut house = House::new();
    let client = house.client();
    for run in [(1, u32::MAX), (u64::MAX, 1)] {
        let run = pillarbox_native::Run { mailbox: 1, first: run.0, count: run.1 };
        house.say(client, |out| {
            pillarbox_native::Settle::encode(5, 0, Outcome::Accepted, &[run], out);
        });
        assert_eq!(house.heard(client), ["Refused 5 400"]);
    }
}

#[test]
fn messages_pulled_as_settled_are_gone() {
    let mut house = House::new();
    let (client, other) = (house.client(), house.client());
    house.declare(client, "jobs");
    house.push(client, 3, "jobs", &["one"]);
    house.heard(client);
    house.pull_settled(client, 4, "jobs", 5, 0);
    house.pull_settled(client, 5, "jobs", 5, 60_000);
    house.push(other, 6, "jobs", &["two"]);
    assert_eq!(house.heard(client), ["Pulled 4 one", "Pulled 5 two"]);
    house.lose(client);
    house.pull(other, 7, "jobs", 5, 0);
    assert_eq!(house.heard(other), ["Pushed 6 1", "Pulled 7"]);
}

#[test]
fn a_subscription_gets_as_much_as_its_credit() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.subscribe(client, 1, "jobs", 2);
    assert_eq!(house.heard(client), ["Done 900"]);
    house.push(client, 0, "jobs", &["one", "two", "three", "four", "five", "six"]);
    let first = house.heard_raw(client);
    assert_eq!(first.len(), 1, "neighbours share a frame");
    let got = first[0].deliveries();
    assert_eq!(got.len(), 2);
    house.settle(client, 0, 1, Outcome::Accepted, &got[0]);
    assert_eq!(house.heard(client), ["Delivered 1 three"]);
    house.say(client, |out| encode_credit(5, 1, 4, out));
    assert_eq!(house.heard(client), ["Delivered 1 four five", "Done 5"]);
    house.say(client, |out| encode_credit(5, 1, 1, out));
    house.settle(client, 0, 1, Outcome::Accepted, &got[1]);
    assert_eq!(house.heard(client), ["Done 5"]);
}

#[test]
fn an_ended_subscription_returns_what_it_held_in_order() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.push(client, 0, "jobs", &["one", "two", "three"]);
    house.subscribe(client, 1, "jobs", 2);
    house.subscribe(client, 1, "jobs", 2);
    house.heard(client);
    house.say(client, |out| Unsubscribe { subscription: 1, keep: false }.encode(5, out));
    assert_eq!(house.heard(client), ["Done 5"]);
    house.subscribe(client, 1, "jobs", 3);
    assert_eq!(house.heard(client), ["Delivered 1 one* two* three", "Done 900"]);
}

#[test]
fn a_subscription_that_keeps_its_deliveries_can_settle_them() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.push(client, 0, "jobs", &["one", "two"]);
    house.subscribe(client, 1, "jobs", 1);
    let got = house.got(client);
    house.say(client, |out| Unsubscribe { subscription: 1, keep: true }.encode(5, out));
    house.settle(client, 6, 1, Outcome::Accepted, &got[0]);
    assert_eq!(house.heard(client), ["Done 5", "Done 6"]);
}

#[test]
fn a_deleted_mailbox_ends_its_subscriptions_and_pulls() {
    let mut house = House::new();
    let (client, other) = (house.client(), house.client());
    house.declare(client, "jobs");
    house.subscribe(client, 3, "jobs", 2);
    house.pull(client, 4, "jobs", 1, 60_000);
    house.heard(client);
    let delete =
        pillarbox_native::DeleteMailbox { name: "jobs", if_unused: false, if_empty: false };
    house.say(other, |out| delete.encode(5, out));
    let mut heard = house.heard(client);
    heard.sort();
    assert_eq!(heard, ["Cancelled 3 404", "Refused 4 404"]);
}

#[test]
fn taking_from_a_missing_mailbox_is_refused() {
    let mut house = House::new();
    let client = house.client();
    house.pull(client, 3, "none", 10, 60_000);
    house.subscribe(client, 1, "none", 1);
    let heard = house.heard_raw(client);
    let refusals: Vec<_> = heard.iter().map(|it| (it.kind, it.id, it.code())).collect();
    let refused = Kind::Refused;
    assert_eq!(refusals, [(refused, 3, Code::NotFound), (refused, 900, Code::NotFound)]);
}

#[test]
fn a_failed_attempt_comes_back_after_its_delay() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.push(client, 0, "jobs", &["one"]);
    house.subscribe(client, 1, "jobs", 1);
    let got = house.got(client);
    house.settle(client, 5, 1, Outcome::Failed { delay_ms: 500 }, &got[0]);
    assert_eq!(house.heard(client), ["Done 5"]);
    house.pass(499);
    assert_eq!(house.heard(client), Vec::<String>::new());
    house.pass(2);
    assert_eq!(house.heard(client), ["Delivered 1 one*"]);
}
