//! The way in: what a client says of itself, and how it proves it.

use std::fmt;

use bytes::BytesMut;
use pillarbox_native::{self as wire, Code, Hello};
use subtle::ConstantTimeEq;

use super::settings::Settings;
use super::{CREDENTIAL_TICKET, Fault, MAIN, OPEN_TICKET, table};
use crate::broker::{self, Command, Credential, Name, Request, Table};
use crate::sessions::{Facts, Verify};

/// A secret of the broker, readable on its host only.
#[derive(Clone)]
pub struct Token(pub Vec<u8>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The server's first frame.
pub(super) fn hello(settings: &Settings, facts: &Facts, out: &mut BytesMut) {
    let mut mechanisms = vec![wire::Login::PASSWORD];
    if settings.token.is_some() {
        mechanisms.push(wire::Login::TOKEN);
    }
    if facts.certificate_user.is_some() {
        mechanisms.push(wire::Login::CERTIFICATE);
    }
    let hello = Hello {
        product: "Pillarbox",
        version: env!("CARGO_PKG_VERSION"),
        frame_size_max: settings.frame_size_max,
        mechanisms,
    };
    hello.encode(out);
}

/// A login on its way: the broker looks the user up, the server checks the password.
pub(super) struct Login {
    /// Of the request.
    pub(super) id: u32,
    pub(super) user: Name,
    pub(super) vhost: Name,
    mechanism: &'static str,
    proof: Vec<u8>,
    client_name: Option<String>,
    client_properties: Table,
    silence_max_s: u16,
    credential: Option<Box<Credential>>,
}

/// What follows when the user was looked up.
pub(super) enum Next {
    Verify(Verify),
    Decided(bool),
}

impl Login {
    pub(super) fn read(id: u32, login: &wire::Login<'_>, facts: &Facts) -> Result<Self, Fault> {
        let mut user = Name::from(login.user);
        let mechanism = match login.mechanism {
            wire::Login::PASSWORD => wire::Login::PASSWORD,
            wire::Login::TOKEN => wire::Login::TOKEN,
            wire::Login::CERTIFICATE => {
                user = certified(&user, facts)?;
                wire::Login::CERTIFICATE
            }
            other => {
                let text = format!("unknown login mechanism '{other}'");
                return Err(Fault::new(Code::LoginFailed, text));
            }
        };
        Ok(Self {
            id,
            user,
            vhost: login.vhost.into(),
            mechanism,
            proof: login.proof.to_vec(),
            client_name: (!login.client_name.is_empty()).then(|| login.client_name.to_owned()),
            client_properties: table::decode(login.properties),
            silence_max_s: login.silence_max_s,
            credential: None,
        })
    }

    pub(super) fn look_up(&self) -> Command {
        // Who has the token need not know who may do everything here.
        let request = match self.mechanism == wire::Login::TOKEN && self.user.is_empty() {
            true => Request::Administrator(self.vhost.clone()),
            false => Request::Credential(self.user.clone()),
        };
        Command::Request(MAIN, CREDENTIAL_TICKET, Box::new(request))
    }

    pub(super) fn looked_up(
        &mut self,
        credential: Option<Box<Credential>>,
        settings: &Settings,
    ) -> Next {
        let proof = std::mem::take(&mut self.proof);
        self.credential = credential;
        if self.mechanism == wire::Login::TOKEN {
            let right = settings.token.as_ref().is_some_and(|it| it.0.ct_eq(&proof).into());
            return Next::Decided(right && self.credential.is_some());
        }
        if self.mechanism == wire::Login::CERTIFICATE {
            return Next::Decided(self.credential.is_some());
        }
        Next::Verify(Verify {
            user: self.user.to_string(),
            password: proof,
            credential: self.credential.as_deref().cloned(),
        })
    }

    pub(super) fn admitted(&self, accepted: bool, facts: &Facts) -> Result<(), Fault> {
        let fault = |text: String| Err(Fault::new(Code::LoginFailed, text));
        match &self.credential {
            Some(credential) if accepted => match credential.loopback_only && !facts.loopback {
                true => {
                    fault(format!("user '{}' may log in from the broker's host only", self.user))
                }
                false => Ok(()),
            },
            _ if self.mechanism == wire::Login::CERTIFICATE => {
                fault(format!("no user '{}', whom the certificate names", self.user))
            }
            _ if self.mechanism == wire::Login::TOKEN => {
                fault("the token is not of this run of the broker, or the user is gone".into())
            }
            _ => fault(format!("wrong password for user '{}', or no such user", self.user)),
        }
    }

    pub(super) fn open(&self, facts: &Facts) -> Command {
        let open = broker::Open {
            user: self.user.clone(),
            vhost: self.vhost.clone(),
            protocol: "native",
            peer: facts.peer.clone(),
            local: facts.local.clone(),
            client_name: self.client_name.clone(),
            client_properties: self.client_properties.clone(),
            mechanism: self.mechanism,
            strict_channels: false,
            cancel_notify: true,
        };
        Command::Open(Box::new(open), OPEN_TICKET)
    }

    pub(super) fn is_impersonator(&self) -> bool {
        self.credential.as_ref().is_some_and(|it| it.may_impersonate())
    }

    pub(super) fn silence_max_ms(&self) -> Option<u64> {
        (self.silence_max_s > 0).then(|| u64::from(self.silence_max_s) * 1000)
    }
}

/// Whom the client's certificate names; nobody else is let in by it.
fn certified(user: &Name, facts: &Facts) -> Result<Name, Fault> {
    let refused = |text: &str| Err(Fault::new(Code::LoginFailed, text.to_owned()));
    match &facts.certificate_user {
        None => refused("no certificate names a user"),
        Some(named) if user.is_empty() || **user == **named => Ok(named.as_str().into()),
        Some(_) => refused("the certificate names another user"),
    }
}
