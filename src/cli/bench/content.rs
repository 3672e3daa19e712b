//! What the messages of a load carry, so that nothing can go wrong with them unseen.
//!
//! ```text
//! number 5 bytes, due in microseconds after the start 6 bytes, sum 5 bytes, then bytes that follow from the number
//! ```

use std::time::Duration;

/// The least that a body can be.
pub(super) const HEAD: usize = 16;
const NUMBER: usize = 5;
const DUE: usize = 6;
const SUM: usize = HEAD - NUMBER - DUE;

/// Writes the body of a message.
pub(super) fn write(number: u64, due: Duration, size: usize, body: &mut Vec<u8>) {
    let due = due.as_micros() as u64;
    let sum = sum(number, due, size);
    body.extend_from_slice(&number.to_le_bytes()[..NUMBER]);
    body.extend_from_slice(&due.to_le_bytes()[..DUE]);
    body.extend_from_slice(&sum.to_le_bytes()[..SUM]);
    body.resize(body.len() + size.saturating_sub(HEAD), filling(number));
}

fn filling(number: u64) -> u8 {
    (number % 251) as u8
}

fn sum(number: u64, due: u64, size: usize) -> u64 {
    let all = (number ^ due.rotate_left(32) ^ size as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    // The upper bytes depend on every bit.
    all >> (8 * (8 - SUM))
}

/// Looks at messages as they come.
#[derive(Default)]
pub(super) struct Checker {
    /// The number that comes next in a perfect world.
    next: u64,
    pub(super) distinct: u64,
    pub(super) repeated: u64,
    pub(super) damaged: u64,
    pub(super) out_of_order: u64,
}

impl Checker {
    /// When the message was due, if it is sound.
    pub(super) fn check(&mut self, body: &[u8]) -> Option<Duration> {
        let word = |at: usize, size: usize| {
            let mut word = [0; 8];
            word[..size].copy_from_slice(&body[at..at + size]);
            u64::from_le_bytes(word)
        };
        if body.len() < HEAD {
            self.damaged += 1;
            return None;
        }
        let (number, due) = (word(0, NUMBER), word(NUMBER, DUE));
        let sound = word(NUMBER + DUE, SUM) == sum(number, due, body.len())
            && body[HEAD..].iter().all(|it| *it == filling(number));
        if !sound {
            self.damaged += 1;
            return None;
        }
        if number < self.next {
            // One producer, one consumer: what is behind came before, or too late.
            self.repeated += 1;
        } else {
            self.out_of_order += u64::from(number != self.next);
            self.distinct += 1;
            self.next = number + 1;
        }
        Some(Duration::from_micros(due))
    }

    /// Adds what another one saw.
    pub(super) fn add(&mut self, other: &Self) {
        self.distinct += other.distinct;
        self.repeated += other.repeated;
        self.damaged += other.damaged;
        self.out_of_order += other.out_of_order;
    }

    /// What is wrong, if anything, where so many should have come.
    pub(super) fn verdict(&self, expected: u64) -> Option<String> {
        let lost = expected.saturating_sub(self.distinct);
        let wrong = lost + self.repeated + self.damaged + self.out_of_order;
        (wrong > 0).then(|| {
            format!(
                "{lost} messages lost, {} repeated, {} damaged, {} out of order",
                self.repeated, self.damaged, self.out_of_order
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(number: u64, size: usize) -> Vec<u8> {
        let mut body = Vec::new();
        write(number, Duration::from_millis(5), size, &mut body);
        assert_eq!(body.len(), size);
        body
    }

    #[test]
    fn sound_messages_in_order_are_fine() {
        let mut checker = Checker::default();
        for number in 0..10 {
            assert_eq!(checker.check(&body(number, 40)), Some(Duration::from_millis(5)));
        }
        assert_eq!(checker.verdict(10), None);
        assert!(checker.verdict(11).is_some());
    }

    #[test]
    fn every_changed_byte_is_seen() {
        let whole = body(3, 30);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            let mut checker = Checker::default();
            assert_eq!(checker.check(&changed), None, "byte {at}");
        }
        assert_eq!(Checker::default().check(&whole[..29]), None);
    }

    #[test]
    fn repetition_and_gaps_are_seen() {
        let mut checker = Checker::default();
        for number in [0, 1, 1, 3] {
            checker.check(&body(number, HEAD));
        }
        assert_eq!((checker.repeated, checker.out_of_order, checker.distinct), (1, 1, 3));
    }
}
