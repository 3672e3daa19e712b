//! Settling: the fate of deliveries, in runs of neighbouring positions.
//!
//! ```text
//! subscription u16 (0 for what was pulled), outcome u8, delay_ms u64, count u32, then each run:
//!   mailbox u64, first u64, count u32
//! ```

use bytes::{BufMut, BytesMut};

use crate::frame::Kind;
use crate::reader::{Malformed, Reader};
use crate::writer::write_frame;

pub const RUN_SIZE: usize = 20;

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done: the message goes.
    Accepted,
    /// Back to its place, as if it had not been delivered.
    Released,
    /// Cannot be used: to the dead letters, or away.
    Rejected,
    /// An attempt that failed: back to its place after a while.
    Failed { delay_ms: u64 },
    /// It takes longer: the time to settle it begins anew.
    Extended,
}

/// Neighbouring positions of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub mailbox: u64,
    pub first: u64,
    pub count: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Settle<'a> {
    /// 0 for what was pulled.
    pub subscription: u16,
    pub outcome: Outcome,
    runs: &'a [u8],
}

impl<'a> Settle<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let subscription = reader.u16()?;
        let (outcome, delay_ms) = (reader.u8()?, reader.u64()?);
        let outcome = match outcome {
            0 => Outcome::Accepted,
            1 => Outcome::Released,
            2 => Outcome::Rejected,
            3 => Outcome::Failed { delay_ms },
            4 => Outcome::Extended,
            other => return Err(Malformed::Unknown { what: "outcome", value: other.into() }),
        };
        let count = reader.u32()? as usize;
        let runs = reader.rest();
        match runs.len().cmp(&count.saturating_mul(RUN_SIZE)) {
            std::cmp::Ordering::Less => Err(Malformed::Short),
            std::cmp::Ordering::Greater => {
                Err(Malformed::Long(runs.len() - count.saturating_mul(RUN_SIZE)))
            }
            std::cmp::Ordering::Equal => Ok(Self { subscription, outcome, runs }),
        }
    }

    pub fn runs(&self) -> impl ExactSizeIterator<Item = Run> + use<'a> {
        self.runs.as_chunks::<RUN_SIZE>().0.iter().map(|run| {
            let (mailbox, rest) = run.split_at(8);
            let (first, count) = rest.split_at(8);
            Run {
                mailbox: u64::from_le_bytes(mailbox.try_into().unwrap_or_default()),
                first: u64::from_le_bytes(first.try_into().unwrap_or_default()),
                count: u32::from_le_bytes(count.try_into().unwrap_or_default()),
            }
        })
    }

    pub fn encode(id: u32, subscription: u16, outcome: Outcome, runs: &[Run], out: &mut BytesMut) {
        write_frame(Kind::Settle, 0, id, out, |out| {
            let (octet, delay_ms) = match outcome {
                Outcome::Accepted => (0, 0),
                Outcome::Released => (1, 0),
                Outcome::Rejected => (2, 0),
                Outcome::Failed { delay_ms } => (3, delay_ms),
                Outcome::Extended => (4, 0),
            };
            out.put_u16_le(subscription);
            out.put_u8(octet);
            out.put_u64_le(delay_ms);
            out.put_u32_le(runs.len() as u32);
            for run in runs {
                out.put_u64_le(run.mailbox);
                out.put_u64_le(run.first);
                out.put_u32_le(run.count);
            }
        });
    }
}
