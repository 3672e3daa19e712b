//! Hosts on this machine that gossip over its loopback.

use tokio::time::timeout;

use super::super::fake::host;
use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn gossip(seeds: &[SocketAddr], secret: &str) -> Gossip {
    let seeds = seeds.iter().map(|it| it.to_string().parse().unwrap()).collect();
    let settings = Peers { gossip_seeds: PeerAddresses(seeds), ..Peers::default() };
    let listen = "127.0.0.1:0".parse().unwrap();
    let gossip = Gossip::new(listen, &settings, &Secret::new(secret), Clock::start());
    Gossip { interval: Duration::from_millis(50), ..gossip }
}

/// Where it gossips, once it has begun.
fn address(gossip: &Gossip) -> SocketAddr {
    let running = gossip.running.as_ref().expect("it runs");
    running.chitchat.chitchat_id().gossip_advertise_addr
}

/// Looks until it sees so many hosts.
async fn sees(gossip: &mut Gossip, me: &Host, hosts: usize) -> Vec<Sighting> {
    let looking = async {
        loop {
            let mut seen = gossip.look(me).await.unwrap();
            if seen.len() >= hosts {
                seen.sort_by_key(|it| it.host);
                return seen;
            }
        }
    };
    timeout(PATIENCE, looking).await.expect("the hosts see each other")
}

const SECRET: &str = "0123456789abcdef";

#[tokio::test]
async fn hosts_find_each_other_from_one_that_all_know_and_strangers_stay_out() {
    let (one, two, three) = (host(1, "a"), host(2, "b"), host(3, "c"));
    let mut a = gossip(&[], SECRET);
    a.look(&one).await.unwrap();
    let seed = address(&a);
    // It comes before the others, and so has had its time when they have met.
    let mut stranger = gossip(&[seed], "0123456789abcdeX");
    stranger.look(&host(9, "x")).await.unwrap();
    let junk = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for bytes in [&b""[..], b"junk", &[0; 60_000]] {
        junk.send_to(bytes, seed).unwrap();
    }
    let (mut b, mut c) = (gossip(&[seed], SECRET), gossip(&[seed], SECRET));
    let (of_a, of_b, of_c) =
        tokio::join!(sees(&mut a, &one, 3), sees(&mut b, &two, 3), sees(&mut c, &three, 3));
    let expected: Vec<Sighting> = [&one, &two, &three]
        .map(|it| Sighting {
            address: it.address.clone().unwrap(),
            host: Some((it.id, it.incarnation)),
        })
        .into();
    assert_eq!((&of_a, &of_b, &of_c), (&expected, &expected, &expected));
    let seen = stranger.running.as_mut().unwrap().live.borrow_and_update().len();
    assert!(seen <= 1, "the stranger sees {seen}");
    for gossip in [a, b, c, stranger].iter_mut() {
        gossip.leave().await.unwrap();
    }
}

#[tokio::test]
async fn a_host_that_starts_again_is_known_by_its_new_start() {
    let (one, mut two) = (host(1, "a"), host(2, "b"));
    let mut a = gossip(&[], SECRET);
    a.look(&one).await.unwrap();
    let mut b = gossip(&[address(&a)], SECRET);
    sees(&mut b, &two, 2).await;
    sees(&mut a, &one, 2).await;
    b.leave().await.unwrap();
    two.incarnation += 1;
    two.address = Some("b:9999".parse().unwrap());
    let mut b = gossip(&[address(&a)], SECRET);
    b.look(&two).await.unwrap();
    let found = async {
        loop {
            let seen = a.look(&one).await.unwrap();
            if seen.iter().any(|it| it.address.as_str() == "b:9999") {
                return;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("the new start is told");
    a.leave().await.unwrap();
    b.leave().await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_until_it_is_free() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut a = gossip(&[], SECRET);
    a.listen = taken.local_addr().unwrap();
    let refused = a.look(&host(1, "a")).await.unwrap_err();
    assert!(matches!(refused, DirectoryError::Io(_)), "{refused}");
    a.leave().await.unwrap();
    drop(taken);
    a.look(&host(1, "a")).await.unwrap();
    a.leave().await.unwrap();
}
