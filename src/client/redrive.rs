//! Dead letters go back to where they died.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::{Client, Delivery, Error, NewMessage, Outcome, Subscribe};
use crate::broker::Value;

/// Nothing came for so long: that was all.
const SILENCE: Duration = Duration::from_secs(1);
/// Dead letters on their way here.
const CREDIT: u32 = 100;

/// What a message was told when it died.
const ORIGIN: &str = "x-first-death-queue";
const TRACES: [&str; 7] = [
    "x-death",
    "x-first-death-reason",
    ORIGIN,
    "x-first-death-exchange",
    "x-last-death-reason",
    "x-last-death-queue",
    "x-last-death-exchange",
];

/// Which dead letters go back, where to, and how fast.
#[derive(Clone, Debug, Default)]
pub struct Redrive {
    /// Only those that match this condition, as JMS has it.
    pub selector: Option<String>,
    /// At most so many.
    pub count: Option<u64>,
    /// At most so many in a second.
    pub rate: Option<u32>,
    /// To this mailbox, and not to the one where each of them died first.
    pub to: Option<String>,
}

/// What became of dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    pub moved: u64,
    /// They stay where they are: nobody knows where they died, or that mailbox does not take them.
    pub stayed: u64,
}

impl Client {
    /// Moves dead letters back to the mailboxes where they died first, as if they had never died. One that was moved when the
    /// broker or this program stops may be in both places.
    pub async fn redrive(&self, mailbox: &str, redrive: &Redrive) -> Result<Redriven, Error> {
        let selector = redrive.selector.clone();
        let subscribe = Subscribe { credit: CREDIT, selector, ..Subscribe::default() };
        let mut letters = self.subscribe(mailbox, &subscribe).await?;
        let mut done = Redriven::default();
        let pause = redrive.rate.map(|rate| Duration::from_secs(1) / rate.max(1));
        let mut next = Instant::now();
        while redrive.count.is_none_or(|most| done.moved < most) {
            let Ok(letter) = timeout(SILENCE, letters.next()).await else { break };
            let Some(letter) = letter? else { break };
            if let Some(pause) = pause {
                sleep_until(next).await;
                next = next.max(Instant::now() - pause) + pause;
            }
            if self.send_back(&letter, redrive.to.as_deref()).await? {
                self.settle([&letter], Outcome::Accepted).await?;
                done.moved += 1;
            } else {
                // It stays in this subscription's hands until the end, so that it does not come again.
                done.stayed += 1;
                letters.set_credit(CREDIT.saturating_add(done.stayed as u32)).await?;
            }
        }
        letters.end().await?;
        Ok(done)
    }

    async fn send_back(&self, letter: &Delivery, to: Option<&str>) -> Result<bool, Error> {
        let mut properties = letter.properties();
        let headers = properties.headers_mut();
        let origin = headers.get(ORIGIN).and_then(Value::as_str).map(str::to_owned);
        let Some(origin) = to.map(str::to_owned).or(origin) else { return Ok(false) };
        TRACES.iter().for_each(|name| drop(headers.remove(name)));
        let message = NewMessage {
            body: letter.body_bytes(),
            properties: Some(Box::new(properties)),
            ..NewMessage::default()
        };
        let pushed = match self.push_batch(&origin, [&message]).await {
            Ok(pushed) => pushed,
            Err(Error::Refused { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        // Taken as a duplicate it would be nowhere.
        Ok(pushed.taken == 1 && pushed.duplicates.is_empty())
    }
}
