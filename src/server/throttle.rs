//! Slows down whoever guesses passwords: some failures are free, then each costs time.
//!
//! Counted for each user and source, so that nobody is kept out by another's guesses. On this machine the source is the
//! system's user at the other end of the socket: an address would be everybody's.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

/// Each costs the check of a password, so there can hardly be as many.
const GUESSES_MAX: usize = 10_000;

/// How many failures are free, and how fast they are forgotten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// 0 for no end of it.
    pub(super) failures_max: u32,
    pub(super) failures_per_minute: u32,
}

/// Both ends of the socket that a login comes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Host(IpAddr),
    /// A user of this machine's system.
    SystemUser(u32),
}

/// A user's name as it was tried, and by whom.
pub(super) type Guess = (String, Source);

pub(super) struct Throttle {
    patience: Patience,
    /// When all failures of a guess are forgotten; each moves it on.
    forgotten: HashMap<Guess, Instant>,
}

impl Throttle {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, forgotten: HashMap::new() }
    }

    /// Counts a failure ahead of its time; false where there were too many.
    pub(super) fn take(&mut self, guess: &Guess, now: Instant) -> bool {
        let Some(cost) = self.cost() else { return true };
        if self.forgotten.len() >= GUESSES_MAX {
            self.forgotten.retain(|_, at| *at > now);
        }
        let at = self.forgotten.get(guess).map_or(now, |at| (*at).max(now));
        let after = at + cost;
        if after > now + cost * self.patience.failures_max {
            return false;
        }
        if self.forgotten.len() < GUESSES_MAX {
            self.forgotten.insert(guess.clone(), after);
        }
        true
    }

    /// It was no failure.
    pub(super) fn give_back(&mut self, guess: &Guess) {
        if let (Some(cost), Some(at)) = (self.cost(), self.forgotten.get_mut(guess)) {
            *at -= cost;
        }
    }

    /// The next failure has to wait.
    pub(super) fn is_exhausted(&self, guess: &Guess, now: Instant) -> bool {
        let (Some(cost), Some(at)) = (self.cost(), self.forgotten.get(guess)) else { return false };
        *at + cost > now + cost * self.patience.failures_max
    }

    /// How long a failure is remembered, alone.
    fn cost(&self) -> Option<Duration> {
        let Patience { failures_max, failures_per_minute } = self.patience;
        (failures_max > 0).then(|| Duration::from_secs(60) / failures_per_minute.max(1))
    }
}

impl Origin {
    /// Reads the system's table of sockets where both ends are here.
    pub(super) fn source(self) -> Source {
        let ip = self.peer.ip().to_canonical();
        if ip.is_loopback()
            && let Some(user) = self.system_user()
        {
            return Source::SystemUser(user);
        }
        Source::Host(place(ip))
    }

    fn system_user(self) -> Option<u32> {
        let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
        let mapped = |it: SocketAddr| match it.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), it.port()),
            IpAddr::V6(_) => it,
        };
        let find =
            |table: &str, ends: [SocketAddr; 2]| owner(&std::fs::read_to_string(table).ok()?, ends);
        find("/proc/net/tcp", [self.peer, self.local].map(canonical))
            .or_else(|| find("/proc/net/tcp6", [self.peer, self.local].map(mapped)))
    }
}

/// What a canonical address is counted as.
pub(super) fn place(ip: IpAddr) -> IpAddr {
    match ip {
        // Whoever has one address of such a network has them all.
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        ip => ip,
    }
}

/// The user of the socket with these ends, its own first, in Linux's table of sockets.
fn owner(table: &str, [own, other]: [SocketAddr; 2]) -> Option<u32> {
    const TIME_WAIT: &str = "06";
    let (own, other) = (in_table(own), in_table(other));
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let found = fields.next() == Some(&own) && fields.next() == Some(&other);
        let state = fields.next().filter(|it| found && *it != TIME_WAIT);
        state.and_then(|_| fields.nth(3)?.parse().ok())
    })
}

/// `0100007F:1628`: words in the machine's order of bytes.
fn in_table(address: SocketAddr) -> String {
    let mut text = String::new();
    let mut word = |bytes: [u8; 4]| {
        let _ = write!(text, "{:08X}", u32::from_ne_bytes(bytes));
    };
    match address.ip() {
        IpAddr::V4(ip) => word(ip.octets()),
        IpAddr::V6(ip) => ip.octets().as_chunks().0.iter().for_each(|it| word(*it)),
    }
    let _ = write!(text, ":{:04X}", address.port());
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const PATIENCE: Patience = Patience { failures_max: 10, failures_per_minute: 5 };

    fn guess(user: &str, host: u8) -> Guess {
        (user.into(), Source::Host([10, 0, 0, host].into()))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn after_ten_failures_there_are_five_a_minute() {
        let (mut throttle, start) = (Throttle::new(PATIENCE), Instant::now());
        let anna = guess("anna", 1);
        assert!((0..10).all(|_| throttle.take(&anna, start)));
        assert!(!throttle.take(&anna, start));
        assert!(!throttle.take(&anna, start + seconds(11)));
        let minute: Vec<u64> =
            (12..72).filter(|at| throttle.take(&anna, start + seconds(*at))).collect();
        assert_eq!(minute, [12, 24, 36, 48, 60]);
        // All is forgotten when nobody tries for two minutes.
        let later = start + seconds(72 + 120);
        assert!((0..10).all(|_| throttle.take(&anna, later)));
        assert!(!throttle.take(&anna, later));
    }

    #[test]
    fn others_are_not_kept_out() {
        let (mut throttle, now) = (Throttle::new(PATIENCE), Instant::now());
        while throttle.take(&guess("anna", 1), now) {}
        assert!(throttle.take(&guess("anna", 2), now));
        assert!(throttle.take(&guess("bob", 1), now));
    }

    #[test]
    fn success_costs_nothing() {
        let (mut throttle, now) = (Throttle::new(PATIENCE), Instant::now());
        let anna = guess("anna", 1);
        for _ in 0..100 {
            assert!(throttle.take(&anna, now));
            throttle.give_back(&anna);
        }
        assert!((0..9).all(|_| throttle.take(&anna, now)));
        assert!(!throttle.is_exhausted(&anna, now));
        assert!(throttle.take(&anna, now) && throttle.is_exhausted(&anna, now));
    }

    #[test]
    fn nothing_is_counted_where_patience_has_no_end() {
        let mut throttle = Throttle::new(Patience { failures_max: 0, failures_per_minute: 5 });
        let now = Instant::now();
        assert!((0..1000).all(|_| throttle.take(&guess("anna", 1), now)));
        assert!(throttle.forgotten.is_empty());
    }

    #[test]
    fn what_is_forgotten_takes_no_room() {
        let (mut throttle, now) = (Throttle::new(PATIENCE), Instant::now());
        for user in 0..GUESSES_MAX {
            throttle.take(&guess(&user.to_string(), 1), now);
        }
        assert_eq!(throttle.forgotten.len(), GUESSES_MAX);
        throttle.take(&guess("late", 1), now + seconds(13));
        assert_eq!(throttle.forgotten.len(), 1);
    }

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1628 00000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 21 1
   1: 0100007F:1628 0100007F:C350 01 00000000:00000000 00:00000000 00000000   105        0 22 1
   2: 0100007F:C350 0100007F:1628 01 00000000:00000000 02:0000A1B2 00000000  1000        0 23 2
   3: 0100007F:C351 0100007F:1628 06 00000000:00000000 03:0000A1B2 00000000     0        0 0 3
";

    #[rstest]
    #[case(50_000, Some(1000))]
    #[case(50_001, None)]
    #[case(50_002, None)]
    fn owner_of_the_other_end_is_found(#[case] port: u16, #[case] expected: Option<u32>) {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(owner(TABLE, [at(port), at(0x1628)]), expected);
    }

    #[rstest]
    #[case("127.0.0.1:0")]
    #[case("[::1]:0")]
    #[tokio::test]
    async fn own_socket_is_the_own_users(#[case] address: &str) {
        let Ok(listener) = tokio::net::TcpListener::bind(address).await else { return };
        let local = listener.local_addr().unwrap();
        let client = tokio::net::TcpStream::connect(local).await.unwrap();
        let origin = Origin { peer: client.local_addr().unwrap(), local };
        let own = rustix::process::getuid().as_raw();
        assert_eq!(origin.source(), Source::SystemUser(own));
    }

    #[rstest]
    #[case("10.0.0.1:5", "10.0.0.1")]
    #[case("[::ffff:10.0.0.1]:5", "10.0.0.1")]
    #[case("[2001:db8:1:2:3:4:5:6]:5", "2001:db8:1:2::")]
    fn other_hosts_are_their_addresses(#[case] peer: &str, #[case] expected: &str) {
        let origin = Origin { peer: peer.parse().unwrap(), local: "10.0.0.9:1".parse().unwrap() };
        assert_eq!(origin.source(), Source::Host(expected.parse().unwrap()));
    }
}
