//! Virtual hosts, users, what they may do, and their limits.

use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use super::{Answer, Answered, Question};
use crate::broker::{
    Credential, Definition, DefinitionKind, Holder, PermissionDefinition, Quota, Request,
    TopicPermissionDefinition, UserDefinition, VhostDefinition,
};
use crate::management::Fault;
use crate::management::definitions::{
    Fields, hash_given, hashing, permission_of, topic_permission_of, vhost_of,
};
use crate::management::json as show;
use crate::server::password;

impl Question<'_> {
    pub(super) async fn vhost_list(&self) -> Answered {
        let host = self.estate.host().await?;
        let visible = self.vhosts().await?;
        let all = self.estate.definitions(DefinitionKind::Vhost, None).await?;
        let all: Vec<VhostDefinition> = all.into_iter().filter_map(vhost).collect();
        let all = all.into_iter().filter(|it| visible.contains(&it.name)).collect();
        let selection = self.query.selection()?;
        Ok(Answer::Json(selection.list(all, |it| &it.name, |it| show::vhost(&it, &host))?))
    }

    pub(super) async fn vhost(&self) -> Answered {
        let host = self.estate.host().await?;
        let found = self.find_vhost(&self.name("vhost")?).await?;
        let mut value = show::vhost(&found, &host);
        let (mut ready, mut unsettled) = (0, 0);
        for view in self.all_mailboxes(&found.name).await? {
            ready += view.ready;
            unsettled += view.unsettled;
        }
        value["messages"] = json!(ready + unsettled);
        value["messages_ready"] = json!(ready);
        value["messages_unacknowledged"] = json!(unsettled);
        Ok(Answer::Json(self.query.selection()?.one(value)))
    }

    pub(super) async fn define_vhost(&self) -> Answered {
        let name = self.name("vhost")?;
        let object = self.object()?;
        let before = self.find_vhost(&name).await.ok();
        let was_there = before.is_some();
        let definition = vhost_of(name.clone(), &Self::fields(&object), before)?;
        self.define(Definition::Vhost(definition)).await?;
        if !was_there {
            // Who makes a virtual host may use it.
            let all = || ".*".to_owned();
            let (vhost, user) = (name, self.guest.user.clone());
            let permission =
                PermissionDefinition { vhost, user, configure: all(), write: all(), read: all() };
            self.define(Definition::Permission(permission)).await?;
        }
        Ok(Self::put(was_there))
    }

    pub(super) async fn delete_vhost(&self) -> Answered {
        let found = self.find_vhost(&self.name("vhost")?).await?;
        if found.protected {
            let name = &found.name;
            let reason = format!("vhost '{name}' cannot be deleted: it is protected from deletion");
            return Err(Fault::new(412, "precondition_failed", reason));
        }
        self.undefine(&Definition::Vhost(found)).await
    }

    pub(super) async fn protect_vhost(&self, protected: bool) -> Answered {
        let found = self.find_vhost(&self.name("vhost")?).await?;
        self.define(Definition::Vhost(VhostDefinition { protected, ..found })).await?;
        Ok(Answer::NoContent)
    }

    async fn all_users(&self) -> Result<Vec<UserDefinition>, Fault> {
        let all = self.estate.definitions(DefinitionKind::User, None).await?;
        Ok(all.into_iter().filter_map(user).collect())
    }

    async fn find_user(&self, name: &str) -> Result<UserDefinition, Fault> {
        let all = self.all_users().await?;
        all.into_iter().find(|it| it.name == *name).ok_or_else(Fault::not_found)
    }

    fn list_users(&self, all: Vec<UserDefinition>) -> Answered {
        Ok(Answer::Json(self.query.selection()?.list(all, |it| &it.name, |it| show::user(&it))?))
    }

    pub(super) async fn users(&self) -> Answered {
        self.list_users(self.all_users().await?)
    }

    pub(super) async fn users_without_permissions(&self) -> Answered {
        let mut all = self.all_users().await?;
        let permissions = self.all_permissions().await?;
        all.retain(|user| permissions.iter().all(|it| it.user != user.name));
        self.list_users(all)
    }

    pub(super) async fn user(&self) -> Answered {
        Ok(Answer::Json(show::user(&self.find_user(self.text("user")).await?)))
    }

    pub(super) async fn define_user(&self) -> Answered {
        let name = self.name("user")?;
        let object = self.object()?;
        let fields = Self::fields(&object);
        let before = self.find_user(&name).await.ok();
        let tags = fields.tags("tags")?.or(fields.tags("administrator")?);
        let tags = tags.ok_or_else(|| Fault::bad_request("'tags' is missing"))?;
        let (password_hash, hashing) =
            match (fields.text("password")?, fields.text("password_hash")?) {
                (Some(password), _) if !password.is_empty() => {
                    let password = password.as_bytes().to_vec();
                    let hash = spawn_blocking(move || password::hash(&password)).await;
                    let hash = hash.map_err(|_| Fault::unavailable("no hash was made"))?;
                    let hash = hash.map_err(|error| Fault::unavailable(error.to_string()))?;
                    (hash, "argon2id".to_owned())
                }
                (_, Some(_)) => hash_given(&fields)?,
                (Some(_), None) => return Err(Fault::bad_request("the password is empty")),
                // Only the tags change; a new user without a password cannot log in with one.
                (None, None) => match &before {
                    Some(it) => {
                        (it.credential.password_hash.clone(), it.credential.hashing.clone())
                    }
                    None => (String::new(), hashing(&fields)?),
                },
            };
        let loopback_only = before.as_ref().is_some_and(|it| it.credential.loopback_only);
        let credential = Credential { password_hash, hashing, tags, loopback_only };
        let was_there = before.is_some();
        let (max_connections, max_channels) =
            before.map_or((None, None), |it| (it.max_connections, it.max_channels));
        let user = UserDefinition { name, credential, max_connections, max_channels };
        self.define(Definition::User(user)).await?;
        Ok(Self::put(was_there))
    }

    pub(super) async fn delete_user(&self) -> Answered {
        let found = self.find_user(self.text("user")).await?;
        self.undefine(&Definition::User(found)).await
    }

    pub(super) async fn delete_users(&self) -> Answered {
        let object = self.object()?;
        let users = Self::fields(&object).tags("users")?;
        for name in users.ok_or_else(|| Fault::bad_request("'users' is missing"))? {
            if let Ok(found) = self.find_user(&name).await {
                self.undefine(&Definition::User(found)).await?;
            }
        }
        Ok(Answer::NoContent)
    }

    async fn all_permissions(&self) -> Result<Vec<PermissionDefinition>, Fault> {
        let all = self.estate.definitions(DefinitionKind::Permission, None).await?;
        let permission = |it| match it {
            Definition::Permission(it) => Some(it),
            _ => None,
        };
        Ok(all.into_iter().filter_map(permission).collect())
    }

    async fn all_topic_permissions(&self) -> Result<Vec<TopicPermissionDefinition>, Fault> {
        let all = self.estate.definitions(DefinitionKind::TopicPermission, None).await?;
        let permission = |it| match it {
            Definition::TopicPermission(it) => Some(it),
            _ => None,
        };
        Ok(all.into_iter().filter_map(permission).collect())
    }

    /// Whether a permission is of the virtual host and the user of the address, where it names them.
    fn is_asked(&self, vhost: &str, user: &str) -> bool {
        self.captures.get("vhost").is_none_or(|it| it == vhost)
            && self.captures.get("user").is_none_or(|it| it == user)
    }

    async fn check_named(&self) -> Result<(), Fault> {
        if self.captures.get("vhost").is_some() {
            self.find_vhost(&self.name("vhost")?).await?;
        }
        if let Some(user) = self.captures.get("user") {
            self.find_user(user).await?;
        }
        Ok(())
    }

    pub(super) async fn permissions(&self) -> Answered {
        self.check_named().await?;
        let mut all = self.all_permissions().await?;
        all.retain(|it| self.is_asked(&it.vhost, &it.user));
        let selection = self.query.selection()?;
        Ok(Answer::Json(selection.list(all, |it| &it.user, |it| show::permission(&it))?))
    }

    async fn find_permission(&self) -> Result<PermissionDefinition, Fault> {
        let all = self.all_permissions().await?;
        let found = all.into_iter().find(|it| self.is_asked(&it.vhost, &it.user));
        found.ok_or_else(Fault::not_found)
    }

    pub(super) async fn permission(&self) -> Answered {
        Ok(Answer::Json(show::permission(&self.find_permission().await?)))
    }

    pub(super) async fn define_permission(&self) -> Answered {
        self.check_named().await?;
        let object = self.object()?;
        let fields = Self::fields(&object);
        let permission = permission_of(self.name("vhost")?, self.name("user")?, &fields)?;
        let was_there = self.find_permission().await.is_ok();
        self.define(Definition::Permission(permission)).await?;
        Ok(Self::put(was_there))
    }

    pub(super) async fn delete_permission(&self) -> Answered {
        let found = self.find_permission().await?;
        self.undefine(&Definition::Permission(found)).await
    }

    pub(super) async fn topic_permissions(&self) -> Answered {
        self.check_named().await?;
        let mut all = self.all_topic_permissions().await?;
        all.retain(|it| self.is_asked(&it.vhost, &it.user));
        let selection = self.query.selection()?;
        Ok(Answer::Json(selection.list(all, |it| &it.user, |it| show::topic_permission(&it))?))
    }

    /// Those of the address, of which there is at least one.
    async fn asked_topic_permissions(&self) -> Result<Vec<TopicPermissionDefinition>, Fault> {
        let mut all = self.all_topic_permissions().await?;
        let exchange = self.captures.get("exchange");
        all.retain(|it| {
            self.is_asked(&it.vhost, &it.user) && exchange.is_none_or(|name| it.exchange == *name)
        });
        if all.is_empty() { Err(Fault::not_found()) } else { Ok(all) }
    }

    pub(super) async fn topic_permissions_of(&self) -> Answered {
        let all = self.asked_topic_permissions().await?;
        if self.captures.get("exchange").is_some() {
            return Ok(Answer::Json(show::topic_permission(&all[0])));
        }
        Ok(Answer::Json(all.iter().map(show::topic_permission).collect()))
    }

    pub(super) async fn define_topic_permission(&self) -> Answered {
        self.check_named().await?;
        let object = self.object()?;
        let fields = Self::fields(&object);
        let permission = topic_permission_of(self.name("vhost")?, self.name("user")?, &fields)?;
        let before = self.all_topic_permissions().await?;
        let was_there = before
            .iter()
            .any(|it| self.is_asked(&it.vhost, &it.user) && it.exchange == permission.exchange);
        self.define(Definition::TopicPermission(permission)).await?;
        Ok(Self::put(was_there))
    }

    pub(super) async fn delete_topic_permissions(&self) -> Answered {
        for permission in self.asked_topic_permissions().await? {
            self.undefine(&Definition::TopicPermission(permission)).await?;
        }
        Ok(Answer::NoContent)
    }

    pub(super) async fn vhost_limits(&self) -> Answered {
        let visible = self.vhosts().await?;
        let all = self.estate.definitions(DefinitionKind::Vhost, None).await?;
        let all: Vec<VhostDefinition> = all.into_iter().filter_map(vhost).collect();
        let rows = all.iter().filter(|it| visible.contains(&it.name)).filter_map(|it| {
            let value = show::vhost_limits(it);
            has_any(&value).then(|| json!({"vhost": it.name.as_str(), "value": value}))
        });
        Ok(Answer::Json(rows.collect()))
    }

    pub(super) async fn set_vhost_limit(&self, set: bool) -> Answered {
        let vhost = self.find_vhost(&self.name("vhost")?).await?;
        let most = if set { self.limit()? } else { None };
        let quota = match self.text("limit") {
            "max-connections" => Quota::Connections,
            "max-queues" => Quota::Mailboxes,
            other => return Err(Fault::bad_request(format!("Unrecognised limit '{other}'"))),
        };
        let holder = Holder::Vhost(vhost.name);
        self.estate.desk.ask(Request::SetQuota { holder, quota, most }).await?;
        Ok(Answer::NoContent)
    }

    pub(super) async fn user_limits(&self) -> Answered {
        let mut all = self.all_users().await?;
        if let Some(name) = self.captures.get("user") {
            all = vec![self.find_user(name).await?];
        }
        let rows = all.iter().filter_map(|it| {
            let value = show::user_limits(it);
            has_any(&value).then(|| json!({"user": it.name.as_str(), "value": value}))
        });
        Ok(Answer::Json(rows.collect()))
    }

    pub(super) async fn set_user_limit(&self, set: bool) -> Answered {
        let user = self.find_user(self.text("user")).await?;
        let most = if set { self.limit()? } else { None };
        let quota = match self.text("limit") {
            "max-connections" => Quota::Connections,
            "max-channels" => Quota::Channels,
            other => return Err(Fault::bad_request(format!("Unrecognised limit '{other}'"))),
        };
        let holder = Holder::User(user.name);
        self.estate.desk.ask(Request::SetQuota { holder, quota, most }).await?;
        Ok(Answer::NoContent)
    }

    /// Below zero means none.
    fn limit(&self) -> Result<Option<u64>, Fault> {
        let object = self.object()?;
        let value = Fields::new(&object, "the body").whole("value")?;
        let value = value.ok_or_else(|| Fault::bad_request("'value' is missing"))?;
        Ok(u64::try_from(value).ok())
    }
}

fn has_any(limits: &Value) -> bool {
    limits.as_object().is_some_and(|limits: &Map<String, Value>| !limits.is_empty())
}

fn vhost(definition: Definition) -> Option<VhostDefinition> {
    match definition {
        Definition::Vhost(it) => Some(it),
        _ => None,
    }
}

fn user(definition: Definition) -> Option<UserDefinition> {
    match definition {
        Definition::User(it) => Some(it),
        _ => None,
    }
}
