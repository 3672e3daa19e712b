//! What happens to hosts and to the network between them.

use std::fmt;

use crate::lab::Loss;
use crate::random::Random;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One host and the others do not hear each other.
    Alone(usize),
    /// Two parts do not hear each other; the hosts of the first.
    Halves(Vec<usize>),
    /// These two do not hear each other, and all others hear both.
    Bridge(usize, usize),
    /// What the first sends does not reach the second.
    OneWay(usize, usize),
    /// Some of what the first sends does not reach the second.
    Lossy(usize, usize, u8),
    Kill(usize),
    Stop(usize),
    /// All are killed, and come back in this order.
    KillAll(Vec<usize>),
}

impl Fault {
    /// Each shape comes in its turn, with hosts by chance.
    pub(crate) fn choose(turn: u64, hosts: usize, random: &mut Random) -> Self {
        let mut order: Vec<usize> = (0..hosts).collect();
        for at in (1..hosts).rev() {
            order.swap(at, random.below(at as u64 + 1) as usize);
        }
        let (one, other) = (order[0], order[1]);
        match turn % 8 {
            0 => Self::Kill(one),
            1 => Self::Alone(one),
            2 => Self::OneWay(one, other),
            3 => Self::KillAll(order),
            4 => Self::Halves(order[..hosts / 2].to_vec()),
            5 => Self::Lossy(one, other, 10 + random.below(50) as u8),
            6 => Self::Bridge(one, other),
            _ => Self::Stop(one),
        }
    }

    /// What gets lost while it lasts.
    pub(crate) fn losses(&self, hosts: usize) -> Vec<Loss> {
        let all = |from, to| Loss { from, to, percent: 100 };
        let both = |a, b| [all(a, b), all(b, a)];
        let between = |part: &[usize]| {
            let others: Vec<usize> = (0..hosts).filter(|it| !part.contains(it)).collect();
            part.iter().flat_map(|a| others.iter().flat_map(move |b| both(*a, *b))).collect()
        };
        match self {
            Self::Alone(host) => between(&[*host]),
            Self::Halves(part) => between(part),
            Self::Bridge(a, b) => both(*a, *b).to_vec(),
            Self::OneWay(from, to) => vec![all(*from, *to)],
            Self::Lossy(from, to, percent) => {
                vec![Loss { from: *from, to: *to, percent: *percent }]
            }
            Self::Kill(_) | Self::Stop(_) | Self::KillAll(_) => Vec::new(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone(host) => write!(f, "{host} alone"),
            Self::Halves(part) => write!(f, "{part:?} apart"),
            Self::Bridge(a, b) => write!(f, "{a} and {b} apart"),
            Self::OneWay(from, to) => write!(f, "nothing from {from} to {to}"),
            Self::Lossy(from, to, percent) => write!(f, "{percent} % lost from {from} to {to}"),
            Self::Kill(host) => write!(f, "{host} killed"),
            Self::Stop(host) => write!(f, "{host} stopped"),
            Self::KillAll(order) => write!(f, "all killed, back as {order:?}"),
        }
    }
}

#[test]
fn faults_are_what_they_say() {
    let losses = |fault: Fault| {
        let mut pairs: Vec<(usize, usize)> =
            fault.losses(3).iter().map(|loss| (loss.from, loss.to)).collect();
        pairs.sort_unstable();
        pairs
    };
    assert_eq!(losses(Fault::Alone(1)), [(0, 1), (1, 0), (1, 2), (2, 1)]);
    assert_eq!(losses(Fault::Halves(vec![0])), [(0, 1), (0, 2), (1, 0), (2, 0)]);
    assert_eq!(losses(Fault::Bridge(0, 2)), [(0, 2), (2, 0)]);
    assert_eq!(losses(Fault::OneWay(2, 0)), [(2, 0)]);
    assert_eq!(losses(Fault::KillAll(vec![2, 0, 1])), []);
}
