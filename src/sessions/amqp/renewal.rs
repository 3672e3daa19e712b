//! connection.update-secret: a new proof for the user who is already here.
//!
//! Passwords do not expire, so the secret itself is not looked at, as with RabbitMQ's internal users;
//! whether the user may still be here is.

use pillarbox_amqp::{Method, ReplyCode};

use super::reply::{Fault, Ids};
use crate::broker::{ChannelId, Command, Refusal, Reply, Request, Ticket};
use crate::sessions::Outbox;

/// One ticket serves all: a second renewal has to wait for the first.
const TICKET: Ticket = Ticket(4);
const UPDATE_SECRET: Ids = (10, 70);

#[derive(Debug, Default)]
pub(super) struct Renewal {
    asked: bool,
}

impl Renewal {
    pub(super) fn begin(&mut self, out: &mut Outbox) -> Result<(), Fault> {
        if std::mem::replace(&mut self.asked, true) {
            return Err(failed());
        }
        let request = Box::new(Request::CheckAccess);
        out.commands.push(Command::Request(ChannelId(0), TICKET, request));
        Ok(())
    }

    pub(super) fn reply(
        &mut self,
        ticket: Ticket,
        result: &Result<Reply, Refusal>,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        if ticket != TICKET || !std::mem::take(&mut self.asked) {
            return Ok(());
        }
        if result.is_err() {
            return Err(failed());
        }
        Method::ConnectionUpdateSecretOk.encode(0, &mut out.wire);
        Ok(())
    }
}

fn failed() -> Fault {
    Fault::new(ReplyCode::NOT_ALLOWED, "Secret update failed", UPDATE_SECRET)
}
