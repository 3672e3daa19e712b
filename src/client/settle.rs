//! Settling what was delivered.

use std::collections::BTreeMap;
use std::time::Duration;

use pillarbox_native::{self as wire, Run, Settle};

use super::message::Delivery;
use super::{Client, Error};

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done: the message goes.
    Accepted,
    /// Back to its place, as if it had not been delivered.
    Released,
    /// Cannot be used: to the dead letters, or away.
    Rejected,
    /// An attempt that failed: back to its place after a while, with no delay when the mailbox's retry policy says.
    Failed { delay: Duration },
}

impl Client {
    /// Settles deliveries and waits until it is done. One that is not held any longer is an error; the others are settled.
    pub async fn settle<'a>(
        &self,
        deliveries: impl IntoIterator<Item = &'a Delivery>,
        outcome: Outcome,
    ) -> Result<(), Error> {
        self.end_or_extend(deliveries, outcome.wire()).await
    }

    async fn end_or_extend<'a>(
        &self,
        deliveries: impl IntoIterator<Item = &'a Delivery>,
        outcome: wire::Outcome,
    ) -> Result<(), Error> {
        let mut receipts = Vec::new();
        for (subscription, runs) in runs(deliveries) {
            receipts.push(self.line.ask(|id, out| {
                Settle::encode(id, subscription, outcome, &runs, out);
            })?);
        }
        for receipt in receipts {
            receipt.done().await?;
        }
        Ok(())
    }

    /// The time to settle deliveries begins anew, as they take longer. One that is not held any longer is an error: somebody
    /// else may have it.
    pub async fn extend<'a>(
        &self,
        deliveries: impl IntoIterator<Item = &'a Delivery>,
    ) -> Result<(), Error> {
        self.end_or_extend(deliveries, wire::Outcome::Extended).await
    }

    /// Settles deliveries without waiting.
    pub fn settle_later<'a>(
        &self,
        deliveries: impl IntoIterator<Item = &'a Delivery>,
        outcome: Outcome,
    ) -> Result<(), Error> {
        for (subscription, runs) in runs(deliveries) {
            self.line.tell(|out| Settle::encode(0, subscription, outcome.wire(), &runs, out))?;
        }
        Ok(())
    }
}

impl Outcome {
    fn wire(self) -> wire::Outcome {
        match self {
            Self::Accepted => wire::Outcome::Accepted,
            Self::Released => wire::Outcome::Released,
            Self::Rejected => wire::Outcome::Rejected,
            Self::Failed { delay } => wire::Outcome::Failed {
                delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            },
        }
    }
}

/// Neighbours together, for each subscription.
fn runs<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> BTreeMap<u16, Vec<Run>> {
    let mut all: BTreeMap<u16, Vec<Run>> = BTreeMap::new();
    for delivery in deliveries.into_iter().filter(|it| !it.settled) {
        let runs = all.entry(delivery.subscription).or_default();
        let (mailbox, seq) = (delivery.mailbox.0, delivery.seq.0);
        match runs.last_mut() {
            Some(run) if run.mailbox == mailbox && run.first + u64::from(run.count) == seq => {
                run.count += 1;
            }
            _ => runs.push(Run { mailbox, first: seq, count: 1 }),
        }
    }
    all
}
