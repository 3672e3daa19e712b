//! connection.update-secret: a new proof for the user who is already here.

use pillarbox_amqp::{Method, ReplyCode};

use super::line::Line;
use super::reply::{Fault, Ids};
use crate::broker::{ChannelId, Command, Refusal, Reply, Request, Ticket};
use crate::sessions::{Outbox, Verify};

/// One ticket serves all: a second renewal has to wait for the first.
const TICKET: Ticket = Ticket(4);
const UPDATE_SECRET: Ids = (10, 70);

/// ```text
/// Idle -> LookUp -> Verify -> CheckAccess -> Idle
/// ```
#[derive(Debug, Default)]
pub(super) enum Renewal {
    #[default]
    Idle,
    LookUp {
        secret: Vec<u8>,
    },
    Verify,
    CheckAccess,
}

impl Renewal {
    pub(super) fn begin(
        &mut self,
        secret: &[u8],
        line: &Line,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        if !matches!(self, Self::Idle) {
            return Err(failed());
        }
        *self = Self::LookUp { secret: secret.to_vec() };
        ask(Request::Credential(line.user.clone()), out);
        Ok(())
    }

    pub(super) fn reply(
        &mut self,
        ticket: Ticket,
        result: Result<Reply, Refusal>,
        line: &Line,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        if ticket != TICKET {
            return Ok(());
        }
        match (std::mem::take(self), result) {
            (Self::LookUp { secret }, Ok(Reply::Credential(credential))) => {
                *self = Self::Verify;
                out.verify = Some(Verify {
                    user: line.user.to_string(),
                    password: secret,
                    credential: credential.map(|it| *it),
                });
                Ok(())
            }
            (Self::CheckAccess, Ok(_)) => {
                Method::ConnectionUpdateSecretOk.encode(0, &mut out.wire);
                Ok(())
            }
            (Self::LookUp { .. } | Self::CheckAccess, _) => Err(failed()),
            (Self::Idle | Self::Verify, _) => Ok(()),
        }
    }

    pub(super) fn verified(&mut self, accepted: bool, out: &mut Outbox) -> Result<(), Fault> {
        if !matches!(self, Self::Verify) {
            return Ok(());
        }
        if !accepted {
            let text = "New secret was refused by one of the backends";
            return Err(Fault::new(ReplyCode::NOT_ALLOWED, text, UPDATE_SECRET));
        }
        *self = Self::CheckAccess;
        ask(Request::CheckAccess, out);
        Ok(())
    }
}

fn ask(request: Request, out: &mut Outbox) {
    out.commands.push(Command::Request(ChannelId(0), TICKET, Box::new(request)));
}

fn failed() -> Fault {
    Fault::new(ReplyCode::NOT_ALLOWED, "Secret update failed", UPDATE_SECRET)
}
