//! The first administrator: without one who may come from other hosts, only this machine is served.

use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::StartError;
use super::password;
use crate::broker::{
    Broker, ChannelId, Command, Credential, Definition, DefinitionKey, DefinitionKind, Effect,
    Event, Name, PermissionDefinition, Recovered, Request, SERVER, Ticket, Time, UserDefinition,
};
use crate::config::Login;

/// Whom the broker defines by itself; may log in from this machine only.
const GUEST: &str = "guest";

/// Somebody may log in from another host, or will once the first user is defined.
pub(super) fn reachable(login: &Login, recovered: &Recovered) -> bool {
    login.user != GUEST || known(recovered)
}

fn known(recovered: &Recovered) -> bool {
    recovered
        .definitions
        .iter()
        .any(|it| matches!(it, Definition::User(user) if !user.credential.loopback_only))
}

/// The settings' user, where nobody but `guest` is known.
pub(super) async fn wanted(
    login: &Login,
    recovered: &Recovered,
) -> Result<Option<FirstUser>, StartError> {
    if login.user == GUEST || known(recovered) {
        return Ok(None);
    }
    if login.user.is_empty() || login.user.len() > Name::SIZE_MAX {
        return Err(StartError::FirstUser("login.user must have 1 to 255 bytes".into()));
    }
    let password = Zeroizing::new(login.password.reveal().as_bytes().to_vec());
    if password.as_slice() == GUEST.as_bytes() {
        return Err(StartError::FirstUser(
            "login.password must be set along with login.user".into(),
        ));
    }
    let hash = spawn_blocking(move || password::hash(&password)).await;
    let hash =
        hash.map_err(|error| error.to_string()).and_then(|it| it.map_err(|it| it.to_string()));
    let password_hash = hash.map_err(StartError::FirstUser)?;
    Ok(Some(FirstUser { name: login.user.as_str().into(), password_hash }))
}

pub(super) struct FirstUser {
    name: Name,
    password_hash: String,
}

impl FirstUser {
    /// Takes the place of `guest`.
    pub(super) fn define(
        self,
        broker: &mut Broker,
        now: Time,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StartError> {
        let before = effects.len();
        let user = Definition::User(UserDefinition {
            name: self.name.clone(),
            credential: Credential {
                password_hash: self.password_hash,
                hashing: "argon2id".into(),
                tags: vec!["administrator".into()],
                loopback_only: false,
            },
            max_connections: None,
            max_channels: None,
        });
        let permission = Definition::Permission(PermissionDefinition {
            vhost: "/".into(),
            user: self.name.clone(),
            configure: ".*".into(),
            write: ".*".into(),
            read: ".*".into(),
        });
        let guest = DefinitionKey { kind: DefinitionKind::User, path: vec![GUEST.into()] };
        for request in
            [Request::Define(user), Request::Define(permission), Request::Undefine(guest)]
        {
            let command = Command::Request(ChannelId(0), Ticket(0), Box::new(request));
            broker.apply(SERVER, command, now, effects);
        }
        for effect in &effects[before..] {
            if let Effect::Notify(SERVER, event) | Effect::NotifyDurable(SERVER, event) = effect
                && let Event::Reply { result: Err(refusal), .. } = event
            {
                return Err(StartError::FirstUser(refusal.to_string()));
            }
        }
        tracing::info!(user = %self.name, "first administrator defined");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn recovered(loopback_only: bool) -> Recovered {
        let user = UserDefinition {
            name: "x".into(),
            credential: Credential { loopback_only, ..Credential::default() },
            max_connections: None,
            max_channels: None,
        };
        Recovered { definitions: vec![Definition::User(user)], ..Recovered::default() }
    }

    #[test]
    fn guest_alone_is_not_reachable() {
        let login = Login::default();
        assert!(!reachable(&login, &Recovered::default()));
        assert!(!reachable(&login, &recovered(true)));
        assert!(reachable(&login, &recovered(false)));
        let named = Login { user: "anna".into(), ..Login::default() };
        assert!(reachable(&named, &Recovered::default()));
    }

    #[tokio::test]
    async fn a_first_user_needs_a_password_and_is_defined_once() {
        let named = Login { user: "anna".into(), ..Login::default() };
        assert!(wanted(&named, &Recovered::default()).await.is_err());
        let named = Login { user: "anna".into(), password: Secret::new("s3cret") };
        assert!(wanted(&named, &Recovered::default()).await.unwrap().is_some());
        assert!(wanted(&named, &recovered(false)).await.unwrap().is_none());
        assert!(wanted(&Login::default(), &Recovered::default()).await.unwrap().is_none());
    }
}
