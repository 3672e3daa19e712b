//! The way in: what a client says of itself, how it logs in, what is negotiated.

use pillarbox_amqp::{FieldTable, Method, ReplyCode, ShortString, decode_amqplain, decode_plain};

use super::reply::{Fault, Ids};
use super::settings::Settings;
use super::value::table;
use crate::broker::{Credential, Name, Table};
use crate::sessions::{Facts, Verify};

const START_OK: Ids = (10, 11);
/// RabbitMQ names connection.tune itself in the close.
const TUNE: Ids = (10, 30);

/// What the client says of itself.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) properties: Table,
    pub(super) name: Option<String>,
    /// Can read why its login was refused.
    pub(super) failure_close: bool,
    pub(super) cancel_notify: bool,
    pub(super) blocked_notify: bool,
}

impl Client {
    fn new(fields: FieldTable) -> Self {
        let properties = table(fields);
        let capability = |name| match properties.get("capabilities") {
            Some(crate::broker::Value::Table(all)) => {
                all.get(name).and_then(crate::broker::Value::as_bool).unwrap_or(false)
            }
            _ => false,
        };
        Self {
            name: properties.get("connection_name").and_then(|it| it.as_str()).map(str::to_owned),
            failure_close: capability("authentication_failure_close"),
            cancel_notify: capability("consumer_cancel_notify"),
            blocked_notify: capability("connection.blocked"),
            properties,
        }
    }
}

/// A login on its way: the broker looks the user up, the server checks the password.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) client: Client,
    pub(super) mechanism: &'static str,
    pub(super) user: Name,
    proof: Proof,
    pub(super) step: LoginStep,
}

enum Proof {
    Password(Vec<u8>),
    /// Proved elsewhere (a certificate), or none is needed.
    Given,
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(…)",
            Self::Given => "Given",
        })
    }
}

#[derive(Debug)]
pub(super) enum LoginStep {
    LookUp,
    Verify(Box<Credential>),
    /// Nobody's password is checked, at the cost of somebody's.
    VerifyNobody,
}

/// What follows when the user was looked up.
pub(super) enum LookedUp {
    Verify(Verify),
    Accepted(Box<Credential>),
    Refused,
}

impl Login {
    /// Reads connection.start-ok.
    pub(super) fn read(
        properties: FieldTable,
        mechanism: &ShortString,
        response: &[u8],
        facts: &Facts,
        settings: &Settings,
    ) -> Result<Self, Fault> {
        let password = |name: &'static str, decoded: Option<(&[u8], &[u8])>| match decoded {
            // No user has a name that is not UTF-8; it is refused like any unknown one.
            Some((user, password)) => Ok((
                name,
                Name::from(&*String::from_utf8_lossy(user)),
                Proof::Password(password.to_vec()),
            )),
            None => Err(Fault::new(
                ReplyCode::SYNTAX_ERROR,
                format!("response of mechanism {name} is malformed"),
                START_OK,
            )),
        };
        let (mechanism, user, proof) =
            match (&**mechanism, &facts.certificate_user, &settings.anonymous_user) {
                (b"PLAIN", ..) => password("PLAIN", decode_plain(response))?,
                (b"AMQPLAIN", ..) => password("AMQPLAIN", decode_amqplain(response))?,
                (b"EXTERNAL", Some(user), _) => {
                    ("EXTERNAL", Name::from(user.as_str()), Proof::Given)
                }
                (b"ANONYMOUS", _, Some(user)) => ("ANONYMOUS", user.clone(), Proof::Given),
                _ => {
                    let text = format!("unknown authentication mechanism '{mechanism}'");
                    return Err(Fault::new(ReplyCode::COMMAND_INVALID, text, START_OK));
                }
            };
        let client = Client::new(properties);
        Ok(Self { client, mechanism, user, proof, step: LoginStep::LookUp })
    }

    /// The broker knows the user, or not.
    pub(super) fn looked_up(&mut self, credential: Option<Box<Credential>>) -> LookedUp {
        match (&mut self.proof, credential) {
            (Proof::Password(password), credential) => {
                let verify = Verify {
                    user: self.user.to_string(),
                    password: std::mem::take(password),
                    credential: credential.as_deref().cloned(),
                };
                self.step = credential.map_or(LoginStep::VerifyNobody, LoginStep::Verify);
                LookedUp::Verify(verify)
            }
            (Proof::Given, Some(credential)) => LookedUp::Accepted(credential),
            (Proof::Given, None) => LookedUp::Refused,
        }
    }

    pub(super) fn refusal(&self) -> Fault {
        let text = format!(
            "Login was refused using authentication mechanism {}. For details see the broker logfile.",
            self.mechanism
        );
        Fault::new(ReplyCode::ACCESS_REFUSED, text, (0, 0))
    }
}

/// A client whose login was accepted.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) client: Client,
    pub(super) mechanism: &'static str,
    pub(super) user: Name,
    pub(super) impersonator: bool,
}

impl Guest {
    pub(super) fn new(login: Login, credential: &Credential) -> Self {
        let Login { client, mechanism, user, .. } = login;
        Self { client, mechanism, user, impersonator: credential.may_impersonate() }
    }
}

/// What was negotiated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) channel_max: u16,
    pub(super) frame_max: u32,
}

impl Limits {
    /// Reads connection.tune-ok. 0 stands for no limit, which is more than any limit.
    pub(super) fn negotiate(
        settings: &Settings,
        channel_max: u16,
        frame_max: u32,
    ) -> Result<Self, Fault> {
        within("channel_max", channel_max.into(), 1, settings.channel_max.into())?;
        within("frame_max", frame_max, Settings::FRAME_MAX_MIN, settings.frame_max)?;
        Ok(Self { channel_max, frame_max })
    }
}

fn within(name: &str, wanted: u32, min: u32, max: u32) -> Result<(), Fault> {
    let detail = if wanted == 0 { " (no limit)" } else { "" };
    let (than, bound, limit) = if wanted == 0 || wanted > max {
        ("higher", "maximum", max)
    } else if wanted < min {
        ("lower", "minimum", min)
    } else {
        return Ok(());
    };
    let text = format!(
        "negotiated {name} = {wanted}{detail} is {than} than the {bound} allowed value ({limit})"
    );
    Err(Fault::new(ReplyCode::NOT_ALLOWED, text, TUNE))
}

/// The server's first method.
pub(super) fn start(settings: &Settings, facts: &Facts) -> Method {
    let mut mechanisms = String::from("PLAIN AMQPLAIN");
    if facts.certificate_user.is_some() {
        mechanisms.push_str(" EXTERNAL");
    }
    if settings.anonymous_user.is_some() {
        mechanisms.push_str(" ANONYMOUS");
    }
    Method::ConnectionStart {
        version_major: 0,
        version_minor: 9,
        server_properties: settings.identity.properties(),
        mechanisms: mechanisms.into(),
        locales: bytes::Bytes::from_static(b"en_US"),
    }
}

/// What the server proposes.
pub(super) fn tune(settings: &Settings) -> Method {
    Method::ConnectionTune {
        channel_max: settings.channel_max,
        frame_max: settings.frame_max,
        heartbeat: settings.heartbeat,
    }
}
