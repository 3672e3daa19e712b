//! The way in: CONNECT, the login, the virtual host.

use pillarbox_stomp::{Frame, Headers, Version, negotiate_version};

use super::error::Fault;
use super::heart_beat::HeartBeat;
use super::settings::Settings;
use crate::broker::{self, Credential, Name, Table, Time, Value};
use crate::sessions::{Facts, Verify};

/// A login on its way: the broker looks the user up, the server checks the password, the broker opens the virtual host.
pub(super) struct Login {
    pub(super) version: Version,
    pub(super) user: Name,
    pub(super) vhost: Name,
    /// Names durable subscriptions, as Artemis has it.
    pub(super) client_id: Option<String>,
    pub(super) heart_beat: HeartBeat,
    pub(super) receipt: Option<String>,
    /// To be done once the client is in, instead of saying so.
    pub(super) first: Option<Frame>,
    proof: Proof,
    pub(super) credential: Option<Box<Credential>>,
    /// The broker may speak of it before it answers.
    pub(super) blocked: Option<&'static str>,
}

enum Proof {
    Password(Vec<u8>),
    Certificate,
}

/// What follows when the user was looked up.
pub(super) enum LookedUp {
    Verify(Verify),
    Proven,
    Refused,
}

impl Login {
    /// That of a client which begins with another frame than CONNECT.
    pub(super) fn implied(
        first: Frame,
        facts: &Facts,
        settings: &Settings,
        now: Time,
    ) -> Result<Self, Fault> {
        let login = Self::read(&Headers::new(), facts, settings, now)?;
        Ok(Self { first: Some(first), ..login })
    }

    /// Reads CONNECT or STOMP.
    pub(super) fn read(
        headers: &Headers,
        facts: &Facts,
        settings: &Settings,
        now: Time,
    ) -> Result<Self, Fault> {
        let Some(version) = negotiate_version(headers.get("accept-version")) else {
            let detail = format!("Supported versions are {}", Version::SUPPORTED);
            return Err(Fault::fatal("Version mismatch", detail));
        };
        let heart_beat = HeartBeat::negotiate(headers.get("heart-beat"), now)
            .map_err(|error| Fault::login(error.to_string()))?;
        let passcode = || {
            let passcode = headers.get("passcode").unwrap_or(&settings.default_passcode);
            Proof::Password(passcode.as_bytes().to_vec())
        };
        let (user, proof) = match (headers.get("login"), &facts.certificate_user) {
            _ if settings.forced_login => {
                let passcode = settings.default_passcode.as_bytes().to_vec();
                (settings.default_login.as_str(), Proof::Password(passcode))
            }
            (Some(login), _) => (login, passcode()),
            (None, Some(user)) if settings.certificate_login => (user.as_str(), Proof::Certificate),
            (None, _) => (settings.default_login.as_str(), passcode()),
        };
        let vhost = headers.get("host").unwrap_or(&settings.default_vhost);
        if vhost.len() > Name::SIZE_MAX {
            return Err(Fault::login("Virtual host name is too long"));
        }
        Ok(Self {
            version,
            user: user.into(),
            vhost: vhost.into(),
            client_id: headers.get("client-id").map(str::to_owned),
            heart_beat,
            receipt: headers.get("receipt").map(str::to_owned),
            first: None,
            proof,
            credential: None,
            blocked: None,
        })
    }

    /// The broker knows the user, or not.
    pub(super) fn looked_up(&mut self, credential: Option<Box<Credential>>) -> LookedUp {
        self.credential = credential;
        match &mut self.proof {
            Proof::Password(password) => LookedUp::Verify(Verify {
                user: self.user.to_string(),
                password: std::mem::take(password),
                credential: self.credential.as_deref().cloned(),
            }),
            Proof::Certificate if self.credential.is_some() => LookedUp::Proven,
            Proof::Certificate => LookedUp::Refused,
        }
    }

    pub(super) fn refusal(&self) -> Fault {
        Fault::login(format!("Access refused for user '{}'", self.user))
    }

    /// Asks for the virtual host, once the user is proven. Some users may come from this machine only.
    pub(super) fn open(&self, facts: &Facts) -> Result<broker::Open, Fault> {
        let credential = self.credential.as_deref().ok_or_else(|| self.refusal())?;
        if credential.loopback_only && !facts.loopback {
            return Err(Fault::login("non-loopback access denied"));
        }
        let mut client_properties = Table::new();
        client_properties.set("product", Value::text("STOMP client"));
        Ok(broker::Open {
            user: self.user.clone(),
            vhost: self.vhost.clone(),
            protocol: match self.version {
                Version::V10 => "STOMP 1.0",
                Version::V11 => "STOMP 1.1",
                Version::V12 => "STOMP 1.2",
            },
            peer: facts.peer.clone(),
            local: facts.local.clone(),
            client_name: self.client_id.clone(),
            client_properties,
            mechanism: match self.proof {
                Proof::Password(_) => "PLAIN",
                Proof::Certificate => "EXTERNAL",
            },
            strict_channels: false,
            cancel_notify: true,
        })
    }
}
