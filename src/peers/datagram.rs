//! Sealed datagrams: only who knows the hosts' secret can have made them, and not long ago.
//!
//! ```text
//! 0 "PBG1" | 4 time u64, milliseconds | 12 number u64 | 20 part u8 | 21 parts u8 | 22 bytes
//! last 32 HMAC-SHA-256 of all before, with a key of its own made from the secret
//! ```
//! What is sealed is not encrypted. A datagram that is sent again within a minute is taken again: what it carries must bear that.

use std::collections::VecDeque;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::broker::Time;

const MAGIC: [u8; 4] = *b"PBG1";
const HEAD: usize = 22;
const TAG: usize = 32;
/// As much as UDP carries over IPv4.
const DATAGRAM_MAX: usize = 65_507;
const BYTES_MAX: usize = DATAGRAM_MAX - HEAD - TAG;
/// How far the clocks of two hosts may be apart.
const WINDOW_MS: u64 = 60_000;
/// Halves whose other half did not come yet.
const HALVES_MAX: usize = 16;

/// What makes and checks seals.
pub struct Seal {
    mac: Hmac<Sha256>,
}

/// A datagram that was made by who knows the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    pub number: u64,
    pub part: u8,
    pub parts: u8,
    pub bytes: &'a [u8],
}

/// Every way a datagram can be none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("it is no datagram of this kind")]
    Foreign,
    #[error("it was not made with this host's secret")]
    Forged,
    #[error("it was made {} seconds before or after this host's time", .0 / 1000)]
    Stale(u64),
    #[error("it is part of more than two")]
    Parts,
}

impl Seal {
    pub fn new(secret: &[u8]) -> Self {
        let keyed = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("any key size will do");
        let mut own = keyed(secret);
        own.update(b"pillarbox 1 gossip");
        Self { mac: keyed(&own.finalize().into_bytes()) }
    }

    /// One datagram, or two where one is not long enough; none for what two do not hold.
    pub fn seal(&self, bytes: &[u8], number: u64, now: Time) -> Vec<Vec<u8>> {
        let parts = bytes.len().div_ceil(BYTES_MAX).max(1);
        if parts > 2 {
            return Vec::new();
        }
        let part = |part: usize| {
            let from = part * BYTES_MAX;
            let bytes = &bytes[from..bytes.len().min(from + BYTES_MAX)];
            let mut datagram = Vec::with_capacity(HEAD + bytes.len() + TAG);
            datagram.extend_from_slice(&MAGIC);
            datagram.extend_from_slice(&now.0.to_le_bytes());
            datagram.extend_from_slice(&number.to_le_bytes());
            datagram.extend_from_slice(&[part as u8, parts as u8]);
            datagram.extend_from_slice(bytes);
            let tag = self.mac.clone().chain_update(&datagram).finalize();
            datagram.extend_from_slice(&tag.into_bytes());
            datagram
        };
        (0..parts).map(part).collect()
    }

    /// Looks at nothing but the seal before that is known to be right.
    pub fn open<'a>(&self, datagram: &'a [u8], now: Time) -> Result<Piece<'a>, Broken> {
        let sealed = datagram.strip_prefix(&MAGIC).filter(|it| it.len() >= HEAD - 4 + TAG);
        if sealed.is_none() {
            return Err(Broken::Foreign);
        }
        let (said, tag) = datagram.split_at(datagram.len() - TAG);
        let mac = self.mac.clone().chain_update(said);
        mac.verify_slice(tag).map_err(|_| Broken::Forged)?;
        let u64_at =
            |at: usize| u64::from_le_bytes(said[at..at + 8].try_into().expect("eight bytes"));
        let off = u64_at(4).abs_diff(now.0);
        if off > WINDOW_MS {
            return Err(Broken::Stale(off));
        }
        let (part, parts) = (said[20], said[21]);
        if !(1..=2).contains(&parts) || part >= parts {
            return Err(Broken::Parts);
        }
        Ok(Piece { number: u64_at(12), part, parts, bytes: &said[HEAD..] })
    }
}

/// First or second halves that wait for the other one, each `From` somebody.
pub struct Halves<From> {
    waiting: VecDeque<Half<From>>,
}

struct Half<From> {
    from: From,
    number: u64,
    part: u8,
    bytes: Vec<u8>,
}

impl<From> Default for Halves<From> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<From: PartialEq> Halves<From> {
    /// All bytes, once they are there.
    pub fn join(&mut self, from: From, piece: Piece<'_>) -> Option<Vec<u8>> {
        let Piece { number, part, parts, bytes } = piece;
        if parts == 1 {
            return Some(bytes.to_vec());
        }
        let same = |it: &Half<From>| it.number == number && it.from == from;
        let Some(at) = self.waiting.iter().position(same) else {
            if self.waiting.len() == HALVES_MAX {
                self.waiting.pop_front();
            }
            self.waiting.push_back(Half { from, number, part, bytes: bytes.to_vec() });
            return None;
        };
        if self.waiting[at].part == part {
            return None;
        }
        let other = self.waiting.remove(at)?.bytes;
        let (first, second) = if part == 0 { (bytes, &other[..]) } else { (&other[..], bytes) };
        Some([first, second].concat())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const NOW: Time = Time(1_700_000_000_000);

    fn seal() -> Seal {
        Seal::new(b"0123456789abcdef")
    }

    #[test]
    fn what_is_sealed_is_opened_with_the_same_secret() {
        let datagrams = seal().seal(b"hello", 7, NOW);
        let [datagram] = &datagrams[..] else { panic!("one is enough") };
        let piece = seal().open(datagram, NOW).unwrap();
        assert_eq!(piece, Piece { number: 7, part: 0, parts: 1, bytes: b"hello" });
        assert_eq!(Halves::default().join("a", piece), Some(b"hello".to_vec()));
        let other = Seal::new(b"0123456789abcdeg");
        assert_eq!(other.open(datagram, NOW), Err(Broken::Forged));
        // Not the secret itself: a proof of a link is no seal.
        let mut raw = Hmac::<Sha256>::new_from_slice(b"0123456789abcdef").unwrap();
        let said = &datagram[..datagram.len() - TAG];
        raw.update(said);
        let forged = [said, &raw.finalize().into_bytes()].concat();
        assert_eq!(seal().open(&forged, NOW), Err(Broken::Forged));
    }

    #[test]
    fn no_byte_can_be_changed_or_left_out() {
        let datagram = seal().seal(b"hello", 7, NOW).remove(0);
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            assert!(seal().open(&changed, NOW).is_err(), "byte {at}");
            assert!(seal().open(&datagram[..at], NOW).is_err(), "the first {at} bytes");
            assert!(seal().open(&datagram[at + 1..], NOW).is_err(), "without the first {at}");
        }
    }

    #[rstest]
    #[case(0, None)]
    #[case(60_000, None)]
    #[case(-60_000, None)]
    #[case(60_001, Some(60_001))]
    #[case(-3_600_000, Some(3_600_000))]
    fn what_is_old_or_of_the_future_is_not_taken(#[case] off: i64, #[case] stale: Option<u64>) {
        let datagram = seal().seal(b"hello", 7, NOW).remove(0);
        let opened = seal().open(&datagram, Time(NOW.0.wrapping_add_signed(off)));
        assert_eq!(opened.err(), stale.map(Broken::Stale));
    }

    #[rstest]
    #[case(0, 0)]
    #[case(1, 1)]
    #[case(2, 2)]
    #[case(0, 3)]
    fn parts_are_one_or_two(#[case] part: u8, #[case] parts: u8) {
        let seal = seal();
        let mut said = seal.seal(b"hello", 7, NOW).remove(0);
        said.truncate(said.len() - TAG);
        said[20..22].copy_from_slice(&[part, parts]);
        let tag = seal.mac.clone().chain_update(&said).finalize().into_bytes();
        assert_eq!(seal.open(&[&said[..], &tag].concat(), NOW), Err(Broken::Parts));
    }

    #[test]
    fn what_is_too_long_for_one_goes_in_two_and_comes_in_any_order() {
        let seal = seal();
        for size in [BYTES_MAX, BYTES_MAX + 1, 65_507, 2 * BYTES_MAX] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let datagrams = seal.seal(&bytes, 9, NOW);
            assert_eq!(datagrams.len(), size.div_ceil(BYTES_MAX));
            assert!(datagrams.iter().all(|it| it.len() <= DATAGRAM_MAX));
            for turned in [false, true] {
                let mut halves = Halves::default();
                let mut pieces: Vec<_> =
                    datagrams.iter().map(|it| seal.open(it, NOW).unwrap()).collect();
                if turned {
                    pieces.reverse();
                }
                let last = pieces.pop().unwrap();
                for piece in pieces {
                    assert_eq!(halves.join("a", piece), None);
                    assert_eq!(halves.join("a", piece), None, "the same half again");
                }
                assert_eq!(halves.join("a", last), Some(bytes.clone()));
                assert!(halves.waiting.is_empty());
            }
        }
        assert_eq!(seal.seal(&vec![0; 2 * BYTES_MAX + 1], 9, NOW), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn halves_are_not_kept_for_ever_nor_mixed() {
        let mut halves = Halves::default();
        let half = |number, part| Piece { number, part, parts: 2, bytes: b"x" };
        for number in 0..100 {
            assert_eq!(halves.join("a", half(number, 0)), None);
        }
        assert_eq!(halves.waiting.len(), HALVES_MAX);
        assert_eq!(halves.join("b", half(99, 1)), None, "of another host");
        assert_eq!(halves.join("a", half(3, 1)), None, "its half was let go");
        assert_eq!(halves.join("a", half(99, 1)), Some(b"xx".to_vec()));
    }

    proptest! {
        #[test]
        fn anything_is_refused_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(seal().open(&bytes, NOW).is_err());
            let marked = [&MAGIC[..], &bytes].concat();
            prop_assert!(seal().open(&marked, NOW).is_err());
        }
    }
}
