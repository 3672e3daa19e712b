//! Connections that have not logged in, counted for each place they come from: nobody takes all the room without a name.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::throttle::place;

/// How many there are from where.
pub(super) struct Newcomers {
    /// Of one place; 0 for any number.
    most: u32,
    places: Mutex<HashMap<IpAddr, Crowd>>,
}

#[derive(Default)]
struct Crowd {
    /// Never 0.
    size: u32,
    /// The log says once that there are too many, until nobody is left.
    told: bool,
}

/// One of them, until it has logged in or is gone.
pub(super) struct Newcomer {
    among: Arc<Newcomers>,
    place: IpAddr,
    counted: AtomicBool,
}

impl Newcomers {
    pub(super) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self { most, places: Mutex::default() })
    }

    /// `None` where there are too many. Who is on this machine can take its room anyway, and a proxy here brings everybody.
    pub(super) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Arc<Newcomer>> {
        let ip = peer.ip().to_canonical();
        let (place, counted) = (place(ip), self.most > 0 && !ip.is_loopback());
        if counted {
            let mut places = self.lock();
            let crowd = places.entry(place).or_default();
            if crowd.size >= self.most {
                if !std::mem::replace(&mut crowd.told, true) {
                    tracing::warn!(%place, "too many connections without a login: further ones are closed");
                }
                return None;
            }
            crowd.size += 1;
        }
        let counted = AtomicBool::new(counted);
        Some(Arc::new(Newcomer { among: self.clone(), place, counted }))
    }

    fn leave(&self, place: IpAddr) {
        let mut places = self.lock();
        if let Some(crowd) = places.get_mut(&place) {
            crowd.size -= 1;
            if crowd.size == 0 {
                places.remove(&place);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Crowd>> {
        // Nothing in here can leave the state half changed.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newcomer {
    /// It has logged in.
    pub(super) fn settle(&self) {
        if self.counted.swap(false, Ordering::Relaxed) {
            self.among.leave(self.place);
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn further_ones_of_a_place_are_refused_until_one_logs_in_or_goes() {
        let newcomers = Newcomers::new(2);
        let one = newcomers.enter(at("10.0.0.1:1")).unwrap();
        let two = newcomers.enter(at("10.0.0.1:2")).unwrap();
        assert!(newcomers.enter(at("10.0.0.1:3")).is_none());
        assert!(newcomers.enter(at("10.0.0.2:3")).is_some());
        one.settle();
        let three = newcomers.enter(at("10.0.0.1:3")).unwrap();
        assert!(newcomers.enter(at("10.0.0.1:4")).is_none());
        // Whoever has logged in is not counted a second time when it goes.
        drop(one);
        assert!(newcomers.enter(at("10.0.0.1:4")).is_none());
        drop(two);
        assert!(newcomers.enter(at("10.0.0.1:4")).is_some());
        drop(three);
        assert!(newcomers.lock().is_empty());
    }

    #[rstest]
    #[case::own_machine(1, "127.0.0.1:1", "127.0.0.1:2", true)]
    #[case::own_machine_by_v6(1, "[::1]:1", "[::1]:2", true)]
    #[case::own_machine_mapped(1, "[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:2", true)]
    #[case::no_limit(0, "10.0.0.1:1", "10.0.0.1:2", true)]
    #[case::mapped(1, "10.0.0.1:1", "[::ffff:10.0.0.1]:2", false)]
    #[case::one_network(1, "[2001:db8:1:2::3]:1", "[2001:db8:1:2::4]:2", false)]
    #[case::two_networks(1, "[2001:db8:1:2::3]:1", "[2001:db8:1:3::3]:2", true)]
    fn who_is_counted_together(
        #[case] most: u32,
        #[case] one: &str,
        #[case] two: &str,
        #[case] both: bool,
    ) {
        let newcomers = Newcomers::new(most);
        let first = newcomers.enter(at(one));
        assert!(first.is_some());
        assert_eq!(newcomers.enter(at(two)).is_some(), both);
    }
}
