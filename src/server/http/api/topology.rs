//! Exchanges and bindings.

use super::{Answer, Answered, Question};
use crate::broker::inspect::{BindingsOf, ExchangeView, Inspect, Inspection, SLICE_MAX};
use crate::broker::{
    self, BindingDefinition, Definition, DefinitionKind, Destination, Name, Request, Table,
    TableKey,
};
use crate::management::Fault;
use crate::management::definitions::{binding_of, declare_exchange};
use crate::management::json as show;
use crate::management::routes::encode;

impl Question<'_> {
    /// The default exchange has a name in addresses.
    pub(super) fn exchange_name(&self, of: &str) -> Result<Name, Fault> {
        let name = self.name(of)?;
        Ok(if name == "amq.default" { "".into() } else { name })
    }

    pub(super) async fn exchanges(&self) -> Answered {
        let mut all: Vec<ExchangeView> = Vec::new();
        for vhost in self.vhosts().await? {
            let mut after = None;
            loop {
                let inspect = Inspect::Exchanges { vhost: vhost.clone(), after, count: SLICE_MAX };
                let Inspection::Exchanges(found) = self.estate.desk.inspect(inspect).await? else {
                    break;
                };
                after = found.last().map(|it| it.definition.name.clone());
                let last = found.len() < SLICE_MAX;
                all.extend(found);
                if last {
                    break;
                }
            }
        }
        let estate = self.estate.clone();
        let json = move |view: &ExchangeView| show::exchange(view, &estate.samples());
        self.many(all, |it| &it.definition.name, json).await
    }

    pub(super) async fn exchange(&self) -> Answered {
        let (vhost, name) = (self.name("vhost")?, self.exchange_name("name")?);
        let found = match self.estate.desk.inspect(Inspect::Exchange { vhost, name }).await? {
            Inspection::Exchanges(mut found) => found.pop(),
            _ => None,
        };
        let view = found.ok_or_else(Fault::not_found)?;
        let value = show::exchange(&view, &self.estate.samples());
        Ok(Answer::Json(self.query.selection()?.one(value)))
    }

    pub(super) async fn declare_exchange(&self) -> Answered {
        let object = self.object()?;
        let declare = declare_exchange(self.name("name")?, &Self::fields(&object))?;
        let was_there = self.exchange_is_there().await?;
        self.ask_here(Request::DeclareExchange(declare)).await?;
        Ok(Self::put(was_there))
    }

    pub(super) async fn delete_exchange(&self) -> Answered {
        if !self.exchange_is_there().await? {
            return Err(Fault::not_found());
        }
        let (name, if_unused) = (self.exchange_name("name")?, self.query.is_true("if-unused"));
        self.ask_here(Request::DeleteExchange { name, if_unused }).await?;
        Ok(Answer::NoContent)
    }

    async fn all_bindings(
        &self,
        vhost: &Name,
        of: BindingsOf,
    ) -> Result<Vec<BindingDefinition>, Fault> {
        let mut all = Vec::new();
        loop {
            let (vhost, of, skip) = (vhost.clone(), of.clone(), all.len());
            let inspect = Inspect::Bindings { vhost, of, skip, count: SLICE_MAX };
            let Inspection::Bindings(found) = self.estate.desk.inspect(inspect).await? else {
                break;
            };
            let last = found.len() < SLICE_MAX;
            all.extend(found);
            if last {
                break;
            }
        }
        Ok(all)
    }

    /// Every mailbox is bound to the default exchange by its name.
    fn default_binding(vhost: &Name, mailbox: &Name) -> BindingDefinition {
        BindingDefinition {
            vhost: vhost.clone(),
            source: "".into(),
            destination: Destination::Mailbox(mailbox.clone()),
            key: TableKey::from(&**mailbox),
            arguments: Table::new(),
        }
    }

    async fn default_bindings(&self, vhost: &Name) -> Result<Vec<BindingDefinition>, Fault> {
        let mailboxes = self.all_mailboxes(vhost).await?;
        let visible = mailboxes.iter().filter(|it| !it.internal);
        Ok(visible.map(|it| Self::default_binding(vhost, &it.name)).collect())
    }

    async fn list_bindings(&self, all: Vec<BindingDefinition>) -> Answered {
        let name = |it: &BindingDefinition| match &it.destination {
            Destination::Mailbox(name) | Destination::Exchange(name) => name.clone(),
        };
        let named: Vec<(Name, BindingDefinition)> =
            all.into_iter().map(|it| (name(&it), it)).collect();
        let json = |(_, it): &(Name, BindingDefinition)| show::binding(it);
        self.many(named, |it| &it.0, json).await
    }

    pub(super) async fn bindings(&self) -> Answered {
        let mut all = Vec::new();
        for vhost in self.vhosts().await? {
            all.extend(self.default_bindings(&vhost).await?);
            all.extend(self.all_bindings(&vhost, BindingsOf::default()).await?);
        }
        self.list_bindings(all).await
    }

    pub(super) async fn bindings_of_exchange(&self, source: bool) -> Answered {
        let (vhost, name) = (self.name("vhost")?, self.exchange_name("name")?);
        self.find_vhost(&vhost).await?;
        if !self.exchange_is_there().await? {
            return self.list_bindings(Vec::new()).await;
        }
        if name.is_empty() {
            let all = if source { self.default_bindings(&vhost).await? } else { Vec::new() };
            return self.list_bindings(all).await;
        }
        let of = if source {
            BindingsOf { source: Some(name), destination: None }
        } else {
            BindingsOf { source: None, destination: Some(Destination::Exchange(name)) }
        };
        self.list_bindings(self.all_bindings(&vhost, of).await?).await
    }

    pub(super) async fn bindings_of_queue(&self) -> Answered {
        let (vhost, name) = (self.name("vhost")?, self.name("name")?);
        self.find_vhost(&vhost).await?;
        let inspect = Inspect::Mailbox { vhost: vhost.clone(), name: name.clone() };
        if self.estate.desk.inspect(inspect).await.is_err_and(|it| it.status == 404) {
            return self.list_bindings(Vec::new()).await;
        }
        let mut all = vec![Self::default_binding(&vhost, &name)];
        let destination = Some(Destination::Mailbox(name));
        all.extend(self.all_bindings(&vhost, BindingsOf { source: None, destination }).await?);
        self.list_bindings(all).await
    }

    fn destination(&self) -> Result<Destination, Fault> {
        Ok(match self.captures.get("queue") {
            Some(_) => Destination::Mailbox(self.name("queue")?),
            None => Destination::Exchange(self.exchange_name("destination")?),
        })
    }

    /// Both ends must be there.
    async fn between(&self) -> Result<Vec<BindingDefinition>, Fault> {
        let vhost = self.name("vhost")?;
        let (source, destination) = (self.exchange_name("source")?, self.destination()?);
        let desk = &self.estate.desk;
        desk.inspect(Inspect::Exchange { vhost: vhost.clone(), name: source.clone() }).await?;
        let (vhost_of, name) = (
            vhost.clone(),
            match &destination {
                Destination::Mailbox(name) | Destination::Exchange(name) => name.clone(),
            },
        );
        match &destination {
            Destination::Mailbox(_) => {
                desk.inspect(Inspect::Mailbox { vhost: vhost_of, name: name.clone() }).await?
            }
            Destination::Exchange(_) => {
                desk.inspect(Inspect::Exchange { vhost: vhost_of, name: name.clone() }).await?
            }
        };
        if source.is_empty() {
            let bound = matches!(destination, Destination::Mailbox(_));
            return Ok(bound.then(|| Self::default_binding(&vhost, &name)).into_iter().collect());
        }
        let of = BindingsOf { source: Some(source), destination: Some(destination) };
        self.all_bindings(&vhost, of).await
    }

    pub(super) async fn bindings_between(&self) -> Answered {
        self.find_vhost(&self.name("vhost")?).await?;
        match self.between().await {
            // What is not there has no bindings: tools ask before they declare.
            Err(fault) if fault.status == 404 => self.list_bindings(Vec::new()).await,
            found => self.list_bindings(found?).await,
        }
    }

    pub(super) async fn bind(&self) -> Answered {
        self.between().await?;
        let object = self.object()?;
        let (source, destination) = (self.exchange_name("source")?, self.destination()?);
        let bind = binding_of(source, destination, &Self::fields(&object))?;
        let properties = show::properties_key(&bind.key, &bind.arguments);
        self.ask_here(Request::Bind(bind)).await?;
        // Relative to the address that was asked, as RabbitMQ has it.
        let last = self.captures.get("queue").or_else(|| self.captures.get("destination"));
        let last = encode(last.unwrap_or_default().as_bytes());
        Ok(Answer::Created(Some(format!("{last}/{}", encode(properties.as_bytes())))))
    }

    async fn find_binding(&self) -> Result<BindingDefinition, Fault> {
        let props = self.text("props");
        let found = self.between().await?.into_iter().find(|it| {
            let key = show::properties_key(&it.key.0, &it.arguments);
            // The address is decoded once more than the key was coded.
            key == props || crate::management::routes::decode(&key).is_ok_and(|key| key == props)
        });
        found.ok_or_else(Fault::not_found)
    }

    pub(super) async fn binding(&self) -> Answered {
        Ok(Answer::Json(show::binding(&self.find_binding().await?)))
    }

    pub(super) async fn unbind(&self) -> Answered {
        let found = self.find_binding().await?;
        let (source, destination) = (found.source, found.destination);
        let (key, arguments) = (found.key.0, found.arguments);
        self.ask_here(Request::Unbind(broker::BindingOf { source, destination, key, arguments }))
            .await?;
        Ok(Answer::NoContent)
    }

    pub(super) async fn policies(&self, operator: bool) -> Answered {
        let mut all = Vec::new();
        for vhost in self.vhosts().await? {
            let kind = policy_kind(operator);
            all.extend(self.estate.definitions(kind, Some(&vhost)).await?);
        }
        let all = all.into_iter().filter_map(policy_of).collect();
        let selection = self.query.selection()?;
        Ok(Answer::Json(selection.list(all, |it| &it.name, |it| show::policy(&it))?))
    }

    async fn find_policy(&self, operator: bool) -> Result<broker::PolicyDefinition, Fault> {
        let (vhost, name) = (self.name("vhost")?, self.name("name")?);
        let all = self.estate.definitions(policy_kind(operator), Some(&vhost)).await?;
        let found = all.into_iter().filter_map(policy_of).find(|it| it.name == name);
        found.ok_or_else(Fault::not_found)
    }

    pub(super) async fn policy(&self, operator: bool) -> Answered {
        Ok(Answer::Json(show::policy(&self.find_policy(operator).await?)))
    }

    pub(super) async fn define_policy(&self, operator: bool) -> Answered {
        let vhost = self.name("vhost")?;
        self.find_vhost(&vhost).await?;
        let object = self.object()?;
        let fields = Self::fields(&object);
        let name = self.name("name")?;
        let policy = crate::management::definitions::policy_of(vhost, name, operator, &fields)?;
        let was_there = self.find_policy(operator).await.is_ok();
        self.define(Definition::Policy(policy)).await?;
        Ok(Self::put(was_there))
    }

    pub(super) async fn delete_policy(&self, operator: bool) -> Answered {
        let policy = self.find_policy(operator).await?;
        self.undefine(&Definition::Policy(policy)).await
    }
}

fn policy_kind(operator: bool) -> DefinitionKind {
    if operator { DefinitionKind::OperatorPolicy } else { DefinitionKind::Policy }
}

fn policy_of(definition: Definition) -> Option<broker::PolicyDefinition> {
    match definition {
        Definition::Policy(it) => Some(it),
        _ => None,
    }
}
