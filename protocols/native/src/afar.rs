//! What one host asks of mailboxes that live on another, for its clients, and what it is answered.
//!
//! A *visit* is a client of the host that dialled, as the other host sees it: its number is the id of these frames.
//! Settlements are those of clients (`Settle`), with the channel in place of the subscription; `Close` ends a visit.

mod answer;
mod given;
mod takeover;
mod wish;

pub use self::answer::{Answer, Ended, NoRef, ResultRef};
pub use self::given::{FoundRef, Given, GivenBatch, GivenRef, HolderRef};
pub use self::takeover::{MovedBindingRef, MovedBindings, TakeOverRef};
pub use self::wish::{
    AskRef, ConsumeRef, LookRef, VisitRef, WishRef, decode_drained, encode_drained,
};

/// In `Settle`: a message that failed comes again at once. 0 leaves it to its mailbox.
pub const AT_ONCE: u64 = u64::MAX;
