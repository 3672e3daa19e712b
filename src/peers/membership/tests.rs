//! Sources that come late, go, lie and forget: whom a host dials after each.

use super::*;

const FORGET_MS: u64 = 1000;

fn id(number: u128) -> HostId {
    HostId(number)
}

fn at(text: &str) -> PeerAddress {
    text.parse().unwrap()
}

fn host(number: u128, incarnation: u64, address: &str) -> Host {
    Host {
        id: id(number),
        name: format!("h{number}").into(),
        incarnation,
        run: incarnation * 100,
        tags: Vec::new(),
        address: (!address.is_empty()).then(|| at(address)),
    }
}

fn alone() -> Membership {
    Membership::new(host(1, 1, "a:1"), Vec::new(), FORGET_MS, Time(0))
}

fn addresses(names: &[&str]) -> Vec<Sighting> {
    names.iter().map(|it| Sighting::from(at(it))).collect()
}

fn entry(number: u128, incarnation: u64, address: &str) -> Sighting {
    Sighting { address: at(address), host: Some((id(number), incarnation)) }
}

/// `2: b:1 10.0.0.2:1 | ?: c:1`
fn dials(membership: &Membership) -> String {
    let shown = membership.dials().into_iter().map(|dial| {
        let id = dial.id.map_or_else(|| "?".to_owned(), |id| id.0.to_string());
        let addresses: Vec<String> = dial.addresses.iter().map(ToString::to_string).collect();
        format!("{id}: {}", addresses.join(" "))
    });
    shown.collect::<Vec<_>>().join(" | ")
}

#[test]
fn an_address_is_dialled_to_learn_who_is_there() {
    let mut hosts = alone();
    hosts.see(Source::Static, addresses(&["b:1", "c:1", "b:1"]), Time(0));
    assert_eq!(dials(&hosts), "?: b:1 | ?: c:1");
    assert_eq!(hosts.meet(&host(2, 1, "10.0.0.2:1"), Some(&at("b:1")), Time(1)), Meeting::Welcome);
    assert_eq!(dials(&hosts), "2: b:1 10.0.0.2:1 | ?: c:1");
    // Two names of one host are one host.
    assert_eq!(hosts.meet(&host(2, 1, "10.0.0.2:1"), Some(&at("c:1")), Time(2)), Meeting::Welcome);
    assert_eq!(dials(&hosts), "2: c:1 b:1 10.0.0.2:1");
}

#[test]
fn a_host_does_not_dial_itself() {
    let mut hosts = alone();
    hosts.see(Source::Static, addresses(&["a:1", "alias:1"]), Time(0));
    assert_eq!(dials(&hosts), "?: alias:1");
    assert_eq!(hosts.meet(&host(1, 1, "a:1"), Some(&at("alias:1")), Time(1)), Meeting::Itself);
    assert_eq!(dials(&hosts), "");
    hosts.see(Source::Consul, vec![entry(1, 1, "old:1")], Time(2));
    assert_eq!(dials(&hosts), "");
}

#[test]
fn who_dials_this_host_is_dialled_back() {
    let mut hosts = alone();
    assert_eq!(hosts.meet(&host(2, 1, "b:1"), None, Time(0)), Meeting::Welcome);
    assert_eq!(dials(&hosts), "2: b:1");
    assert_eq!(hosts.meet(&host(3, 1, ""), None, Time(0)), Meeting::Welcome);
    assert_eq!(dials(&hosts), "2: b:1");
}

#[test]
fn an_empty_or_lost_source_takes_nobody_away() {
    let mut hosts = alone();
    hosts.see(Source::Consul, vec![entry(2, 1, "b:1"), entry(3, 1, "c:1")], Time(0));
    assert_eq!(dials(&hosts), "?: b:1 | ?: c:1");
    hosts.meet(&host(2, 1, "b:1"), Some(&at("b:1")), Time(1));
    hosts.linked(id(2), Time(1));
    hosts.see(Source::Consul, Vec::new(), Time(2));
    // Nobody ever answered as 3.
    assert_eq!(dials(&hosts), "2: b:1");
    hosts.unlinked(id(2), Time(3));
    assert_eq!(dials(&hosts), "2: b:1");
    hosts.see(Source::Consul, vec![entry(2, 1, "b:1"), entry(3, 1, "c:1")], Time(4));
    assert_eq!(dials(&hosts), "2: b:1 | ?: c:1");
}

#[test]
fn what_was_written_before_the_last_start_is_old_news() {
    let mut hosts = alone();
    hosts.meet(&host(2, 7, "new:1"), None, Time(0));
    hosts.see(Source::Consul, vec![entry(2, 6, "old:1")], Time(1));
    assert_eq!(dials(&hosts), "2: new:1");
    // It moved, and the directory knew first.
    hosts.see(Source::Consul, vec![entry(2, 8, "newest:1")], Time(2));
    assert_eq!(dials(&hosts), "2: newest:1 new:1");
    hosts.meet(&host(2, 8, "newest:1"), Some(&at("newest:1")), Time(3));
    assert_eq!(dials(&hosts), "2: newest:1");
}

#[test]
fn another_host_at_an_old_address_is_told_apart() {
    let mut hosts = alone();
    hosts.see(Source::Static, addresses(&["b:1"]), Time(0));
    hosts.meet(&host(2, 1, "10.0.0.2:1"), Some(&at("b:1")), Time(1));
    hosts.meet(&host(3, 1, "10.0.0.3:1"), Some(&at("b:1")), Time(2));
    assert_eq!(dials(&hosts), "2: 10.0.0.2:1 | 3: b:1 10.0.0.3:1");
}

#[test]
fn an_old_incarnation_and_a_copy_are_refused() {
    let mut hosts = alone();
    hosts.meet(&host(2, 5, "b:1"), None, Time(0));
    let refused = hosts.meet(&host(2, 4, "copy:1"), Some(&at("b:1")), Time(1));
    assert_eq!(refused, Meeting::OldIncarnation { known: 5 });
    let copy = Host { run: 1, ..host(2, 5, "copy:1") };
    assert_eq!(hosts.meet(&copy, None, Time(1)), Meeting::Duplicate);
    let mine = Host { run: 1, ..host(1, 9, "copy:1") };
    assert_eq!(hosts.meet(&mine, None, Time(1)), Meeting::Duplicate);
    // A refusal changes nothing.
    assert_eq!(dials(&hosts), "2: b:1");
    assert_eq!(hosts.meet(&host(2, 5, "b:1"), None, Time(2)), Meeting::Welcome);
    assert_eq!(hosts.meet(&host(2, 6, "b2:1"), None, Time(2)), Meeting::Welcome);
    assert_eq!(dials(&hosts), "2: b2:1");
}

#[test]
fn one_name_is_of_one_host_at_a_time() {
    let mut hosts = alone();
    hosts.meet(&host(2, 5, "b:1"), Some(&at("b:1")), Time(0));
    hosts.linked(id(2), Time(0));
    let rebuilt = Host { name: "h2".into(), ..host(3, 1, "b:1") };
    assert_eq!(hosts.meet(&rebuilt, None, Time(1)), Meeting::NameTaken);
    let mine = Host { name: "h1".into(), ..host(4, 1, "c:1") };
    assert_eq!(hosts.meet(&mine, None, Time(1)), Meeting::NameTaken);
    hosts.unlinked(id(2), Time(2));
    assert_eq!(hosts.meet(&rebuilt, Some(&at("b:1")), Time(3)), Meeting::Welcome);
    assert_eq!(dials(&hosts), "3: b:1");
}

#[test]
fn an_earlier_run_knew_them_already() {
    let known = vec![host(2, 5, "b:1"), host(1, 1, "a:1")];
    let mut hosts = Membership::new(host(1, 2, "a:1"), known, FORGET_MS, Time(0));
    assert_eq!(dials(&hosts), "2: b:1");
    assert_eq!(hosts.meet(&host(2, 4, "b:1"), None, Time(0)), Meeting::OldIncarnation { known: 5 });
}

#[test]
fn who_is_gone_for_long_is_let_go_unless_somebody_names_it() {
    let mut hosts = alone();
    for number in 2..=5 {
        hosts.meet(&host(number, 1, &format!("h{number}:1")), None, Time(0));
    }
    hosts.linked(id(2), Time(0));
    hosts.see(Source::Etcd, vec![entry(3, 1, "h3:1")], Time(0));
    hosts.see(Source::Static, addresses(&["h4:1"]), Time(0));
    assert_eq!(hosts.tick(Time(FORGET_MS - 1)), []);
    assert_eq!(hosts.tick(Time(FORGET_MS)), [id(5)]);
    assert_eq!(dials(&hosts), "2: h2:1 | 3: h3:1 | 4: h4:1");
    hosts.unlinked(id(2), Time(FORGET_MS));
    assert_eq!(hosts.tick(Time(2 * FORGET_MS)), [id(2)]);
    // It comes back by itself.
    assert_eq!(hosts.meet(&host(2, 1, "h2:1"), None, Time(5000)), Meeting::Welcome);
    assert_eq!(hosts.tick(Time(5000)), []);
}

#[test]
fn who_is_forgotten_by_hand_stays_so_until_it_is_met() {
    let mut hosts = alone();
    hosts.meet(&host(2, 9, "b:1"), None, Time(0));
    assert!(hosts.forget(id(2)));
    assert!(!hosts.forget(id(2)));
    assert_eq!(dials(&hosts), "");
    // That is how a host comes back from a backup.
    assert_eq!(hosts.meet(&host(2, 3, "b:1"), None, Time(1)), Meeting::Welcome);
}

#[test]
fn there_is_an_end_to_hosts_and_addresses() {
    let mut hosts = alone();
    for number in 0..HOSTS_MAX as u128 {
        assert_eq!(hosts.meet(&host(10 + number, 1, ""), None, Time(0)), Meeting::Welcome);
    }
    assert_eq!(hosts.meet(&host(9, 1, ""), None, Time(0)), Meeting::TooMany);
    assert_eq!(hosts.meet(&host(10, 2, ""), None, Time(0)), Meeting::Welcome);
    let many = (0..2 * SIGHTINGS_MAX).map(|it| Sighting::from(at(&format!("h{it}:1"))));
    hosts.see(Source::Dns, many.collect(), Time(0));
    assert_eq!(hosts.dials().len(), SIGHTINGS_MAX);
}

#[test]
fn a_certificate_is_known_while_the_link_stands_at_which_it_was_shown() {
    let mut hosts = alone();
    hosts.meet(&host(2, 1, "b:1"), None, Time(0));
    let ends = |hosts: &Membership| hosts.get(id(2)).expect("met").certificate_ends;
    hosts.linked(id(2), Time(1));
    assert_eq!(ends(&hosts), None, "a link without TLS");
    hosts.certified(id(2), 77);
    hosts.meet(&host(2, 1, "b:1"), None, Time(2));
    assert_eq!(ends(&hosts), Some(77));
    hosts.unlinked(id(2), Time(3));
    assert_eq!(ends(&hosts), None);
}
