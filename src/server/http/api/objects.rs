//! Mailboxes, and the messages in them.

use std::fmt::Display;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Answer, Answered, Question};
use crate::broker::access::check_sender;
use crate::broker::inspect::{Inspect, Inspection, MailboxView, SLICE_MAX};
use crate::broker::selector::Selector;
use crate::broker::{
    Browse, Browsed, Delivery, Message, NEUTRAL, Name, NoPlace, NoState, Outcome, Reply, Request,
    Rewind, Run, Seq, Settle, Source, State, States, Time,
};
use crate::management::Fault;
use crate::management::definitions::{declare_mailbox, properties_of};
use crate::management::json::{self as show, Showing};
use crate::server::http::desk::CHANNEL;

/// Bodies of one answer together; one message comes in any case.
const BROWSE_BYTES_MAX: u64 = 16 << 20;
/// Messages on a page where nothing is said.
const COUNT_DEFAULT: usize = 20;
/// Steps of a search that finds nothing, a thousand messages each, before who asked has to ask again.
const STEPS_MAX: usize = 64;

impl Question<'_> {
    pub(super) async fn ask_here(&self, request: Request) -> Result<Reply, Fault> {
        let vhost = self.name("vhost")?;
        self.estate.desk.ask_for(&self.guest.user, &vhost, request).await
    }

    pub(super) async fn all_mailboxes(&self, vhost: &Name) -> Result<Vec<MailboxView>, Fault> {
        let mut all: Vec<MailboxView> = Vec::new();
        loop {
            let after = all.last().map(|it| it.name.clone());
            let inspect = Inspect::Mailboxes { vhost: vhost.clone(), after, count: SLICE_MAX };
            let Inspection::Mailboxes(found) = self.estate.desk.inspect(inspect).await? else {
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

    pub(super) async fn queues(&self) -> Answered {
        let mut all = Vec::new();
        for vhost in self.vhosts().await? {
            all.extend(self.all_mailboxes(&vhost).await?);
        }
        let host = self.estate.host().await?;
        let estate = self.estate.clone();
        let json = move |view: &MailboxView| show::mailbox(view, &estate.samples(), &host);
        self.many_by(all, |it| &it.name, show::mailbox_number, json).await
    }

    async fn find_mailbox(&self) -> Result<MailboxView, Fault> {
        let (vhost, name) = (self.name("vhost")?, self.name("name")?);
        match self.estate.desk.inspect(Inspect::Mailbox { vhost, name }).await? {
            Inspection::Mailboxes(mut found) => found.pop().ok_or_else(Fault::not_found),
            _ => Err(Fault::not_found()),
        }
    }

    /// Whether there is one: the difference between 201 and 204.
    async fn is_there(&self, inspect: Inspect) -> Result<bool, Fault> {
        match self.estate.desk.inspect(inspect).await {
            Ok(_) => Ok(true),
            Err(fault) if fault.status == 404 => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    pub(super) async fn queue(&self) -> Answered {
        let view = self.find_mailbox().await?;
        let (vhost, mailbox) = (view.vhost.clone(), view.name.clone());
        let inspect = Inspect::Consumers { vhost: vhost.clone(), mailbox };
        let consumers = match self.estate.desk.inspect(inspect).await? {
            Inspection::Consumers(found) => found,
            _ => Vec::new(),
        };
        let connections = if consumers.is_empty() && view.owner.is_none() {
            Vec::new()
        } else {
            self.all_connections().await?
        };
        let host = self.estate.host().await?;
        let find = |id| connections.iter().find(|it| it.id == id).cloned();
        let mut value = show::mailbox(&view, &self.estate.samples(), &host);
        show::mailbox_consumers(&mut value, &consumers, &vhost, &find, &host);
        if let Some(owner) = view.owner.and_then(find) {
            let name = show::connection_name(&owner.peer, &owner.local);
            value["owner_pid_details"] = json!({"name": name, "node": host.node});
        }
        Ok(Answer::Json(self.query.selection()?.one(value)))
    }

    pub(super) async fn declare_queue(&self) -> Answered {
        let (vhost, name) = (self.name("vhost")?, self.name("name")?);
        let object = self.object()?;
        let declare = declare_mailbox(name.clone(), &Self::fields(&object))?;
        let was_there = self.is_there(Inspect::Mailbox { vhost, name }).await?;
        self.ask_here(Request::DeclareMailbox(declare)).await?;
        Ok(Self::put(was_there))
    }

    pub(super) async fn delete_queue(&self) -> Answered {
        let name = self.find_mailbox().await?.name;
        let (if_unused, if_empty) =
            (self.query.is_true("if-unused"), self.query.is_true("if-empty"));
        self.ask_here(Request::DeleteMailbox { name, if_unused, if_empty }).await?;
        Ok(Answer::NoContent)
    }

    pub(super) async fn purge_queue(&self) -> Answered {
        self.ask_here(Request::PurgeMailbox { name: self.name("name")? }).await?;
        Ok(Answer::NoContent)
    }

    pub(super) async fn move_queue(&self) -> Answered {
        let object = self.object()?;
        let (name, to) = (self.name("name")?, Self::fields(&object).needed("to")?);
        match self.ask_here(Request::MoveMailbox { name, to: to.into() }).await? {
            Reply::Counted(waiting) => Ok(Answer::Json(json!({"to": to, "waiting": waiting}))),
            _ => Ok(Answer::NoContent),
        }
    }

    pub(super) async fn queue_action(&self) -> Answered {
        self.find_mailbox().await?;
        let object = self.object()?;
        match Self::fields(&object).needed("action")? {
            "sync" | "cancel_sync" => Ok(Answer::NoContent),
            other => Err(Fault::bad_request(format!("Not a valid action: '{other}'"))),
        }
    }

    /// As RabbitMQ's members of a quorum queue: there is one, which leads.
    pub(super) async fn quorum_status(&self) -> Answered {
        let view = self.find_mailbox().await?;
        let last = view.counts.published + view.counts.recovered;
        Ok(Answer::Json(json!([{
            "Node Name": self.estate.node(),
            "Raft State": "leader",
            "Membership": "voter",
            "Last Log Index": last,
            "Last Written": last,
            "Last Applied": last,
            "Commit Index": last,
            "Snapshot Index": 0,
            "Term": 1,
        }])))
    }

    pub(super) async fn change_replicas(&self) -> Answered {
        self.find_mailbox().await?;
        Err(Self::one_home())
    }

    pub(super) fn one_home() -> Fault {
        Fault::unavailable("a mailbox has one home here; POST …/move gives it to another host")
    }

    pub(super) async fn exchange_is_there(&self) -> Result<bool, Fault> {
        let (vhost, name) = (self.name("vhost")?, self.exchange_name("name")?);
        self.is_there(Inspect::Exchange { vhost, name }).await
    }

    pub(super) async fn publish(&self) -> Answered {
        let object = self.object()?;
        let fields = Self::fields(&object);
        let payload = fields.needed("payload")?;
        let body = match fields.text("payload_encoding")?.unwrap_or("string") {
            "string" => payload.as_bytes().to_vec(),
            "base64" => STANDARD
                .decode(payload)
                .map_err(|_| Fault::bad_request("the payload is no base64"))?,
            other => return Err(Fault::bad_request(format!("Unsupported encoding: '{other}'"))),
        };
        let key = fields.needed("routing_key")?;
        crate::management::definitions::name(key)?;
        let properties = properties_of(&fields)?;
        let impersonator = self.guest.credential.may_impersonate();
        check_sender(&self.guest.user, impersonator, properties.user_id.as_deref())?;
        let exchange = self.exchange_name("name")?;
        let message = Message::build(&Source {
            exchange: &exchange,
            key: key.as_bytes(),
            properties: &properties,
            body: &body,
            form: &NEUTRAL,
            persistent: properties.delivery_mode == Some(2),
            accepted: self.estate.clock.now(),
        });
        match self.ask_here(Request::Post(Arc::new(message))).await? {
            Reply::Routed(routed) => Ok(Answer::Json(json!({"routed": routed}))),
            Reply::Stopped(why) => {
                Err(Fault::unavailable(format!("publishers are stopped: {why}")))
            }
            _ => Err(Fault::unavailable("the broker answers something else")),
        }
    }

    pub(super) async fn get_messages(&self) -> Answered {
        let object = self.object()?;
        let fields = Self::fields(&object);
        let count = fields.whole("count")?;
        let count = count.ok_or_else(|| Fault::bad_request("'count' is missing"))?;
        let count = usize::try_from(count)
            .map_err(|_| Fault::bad_request("'count' is negative"))?
            .min(SLICE_MAX);
        let truncate = fields.whole("truncate")?.map(usize::try_from).transpose();
        let showing = Showing {
            text: match fields.text("encoding")?.unwrap_or("auto") {
                "auto" => true,
                "base64" => false,
                other => {
                    return Err(Fault::bad_request(format!("Unsupported encoding: '{other}'")));
                }
            },
            truncate: truncate.map_err(|_| Fault::bad_request("'truncate' is negative"))?,
        };
        // The words of old tools say only whether messages stay.
        let stays = match fields.get("requeue") {
            Some(_) => Some(fields.flag("requeue", true)?),
            None => None,
        };
        let mode = match (fields.text("ackmode")?, stays) {
            (Some(mode), _) => mode,
            (None, Some(true) | None) => "ack_requeue_true",
            (None, Some(false)) => "ack_requeue_false",
        };
        match mode {
            "ack_requeue_true" => self.show_messages(count, showing).await,
            "ack_requeue_false" => self.take_messages(count, showing, None).await,
            "reject_requeue_true" => {
                let outcome = Outcome::Modified { delay_ms: None };
                self.take_messages(count, showing, Some(outcome)).await
            }
            "reject_requeue_false" => {
                self.take_messages(count, showing, Some(Outcome::Rejected)).await
            }
            other => Err(Fault::bad_request(format!("Unsupported ackmode: '{other}'"))),
        }
    }

    /// They stay as they are: nothing counts as delivered.
    async fn show_messages(&self, count: usize, showing: Showing) -> Answered {
        let mailbox = self.name("name")?;
        let states = States::only(State::Ready);
        let (selector, after) = (None, None);
        let bytes_max = BROWSE_BYTES_MAX;
        let browse = Browse { mailbox, states, selector, after, count, bytes_max };
        let browsed = self.look(browse).await?;
        let rows = browsed.found.iter().enumerate();
        let left = |at: usize| browsed.ready.saturating_sub(at as u64 + 1);
        Ok(Answer::Json(rows.map(|(at, it)| show::found(it, left(at), showing)).collect()))
    }

    async fn look(&self, browse: Browse) -> Result<Browsed, Fault> {
        match self.ask_here(Request::Browse(browse)).await? {
            Reply::Browsed(browsed) => Ok(browsed),
            _ => Err(Fault::unavailable("the broker answers something else")),
        }
    }

    /// A page of messages in any state. A search goes on for a while before it answers without any.
    pub(super) async fn browse_messages(&self) -> Answered {
        let query = &self.query;
        let asked = |name| query.get(name).filter(|text| !text.is_empty());
        let wrong = |error: &dyn Display| Fault::bad_request(error.to_string());
        let states = asked("state").unwrap_or_default().parse();
        let selector = asked("where").map(Selector::parse).transpose();
        let mut browse = Browse {
            mailbox: self.name("name")?,
            states: states.map_err(|it: NoState| wrong(&it))?,
            selector: selector.map_err(|it| wrong(&it))?.map(Arc::new),
            after: asked("after").map(str::parse).transpose().map_err(|it: NoPlace| wrong(&it))?,
            count: query.number("count")?.unwrap_or(COUNT_DEFAULT).min(SLICE_MAX),
            bytes_max: BROWSE_BYTES_MAX,
        };
        let showing = Showing {
            text: asked("encoding") != Some("base64"),
            truncate: query.number("truncate")?,
        };
        for _ in 0..STEPS_MAX {
            let browsed = self.look(browse.clone()).await?;
            match browsed.next {
                Some(next) if browsed.found.is_empty() => browse.after = Some(next),
                _ => return Ok(Answer::Json(show::browsed(&browsed, showing))),
            }
        }
        let nothing = Browsed { found: Vec::new(), next: browse.after, ready: 0 };
        Ok(Answer::Json(show::browsed(&nothing, showing)))
    }

    /// All steps of it; what was put back before an error stays so.
    pub(super) async fn rewind_queue(&self) -> Answered {
        let object = self.object()?;
        let fields = Self::fields(&object);
        let number = |name: &str, otherwise: u64| match fields.whole(name)? {
            None => Ok(otherwise),
            Some(number) => u64::try_from(number)
                .map_err(|_| Fault::bad_request(format!("'{name}' is negative"))),
        };
        let selector = fields.text("where")?.map(Selector::parse).transpose();
        let mut rewind = Rewind {
            mailbox: self.name("name")?,
            from: Time(number("from_ms", 0)?),
            to: Time(number("to_ms", u64::MAX)?),
            first: Seq(number("from_position", 0)?),
            end: Seq(number("to_position", u64::MAX)?),
            selector: selector.map_err(|it| Fault::bad_request(it.to_string()))?.map(Arc::new),
        };
        let mut moved = 0;
        loop {
            let Reply::Rewound(step) = self.ask_here(Request::Rewind(rewind.clone())).await? else {
                return Err(Fault::unavailable("the broker answers something else"));
            };
            moved += step.moved;
            let Some((first, end)) = step.rest else { break };
            (rewind.first, rewind.end) = (first, end);
        }
        Ok(Answer::Json(json!({"moved": moved})))
    }

    /// Each is taken, and at the end given its outcome; without one it is settled as it is taken.
    async fn take_messages(
        &self,
        count: usize,
        showing: Showing,
        outcome: Option<Outcome>,
    ) -> Answered {
        let mut rows: Vec<Value> = Vec::new();
        let mut runs = Vec::new();
        let mut bytes = 0;
        let mut fault = None;
        while rows.len() < count && bytes < BROWSE_BYTES_MAX {
            let mailbox = self.name("name")?;
            let got = self.ask_here(Request::Get { mailbox, no_ack: outcome.is_none() }).await;
            let (delivery, left): (Delivery, u64) = match got {
                Ok(Reply::Got(Some(got))) => *got,
                Ok(_) => break,
                Err(refused) => {
                    fault = Some(refused);
                    break;
                }
            };
            bytes += delivery.message.body().len() as u64;
            runs.push(Run { mailbox: delivery.mailbox, first: delivery.seq, count: 1 });
            rows.push(show::delivered(&delivery, left, showing));
        }
        if let Some(outcome) = outcome.filter(|_| !runs.is_empty()) {
            let deliveries = runs.into_iter().collect();
            self.estate.desk.settle(Settle { channel: CHANNEL, deliveries, outcome }).await;
        }
        match fault {
            Some(fault) if rows.is_empty() => Err(fault),
            _ => Ok(Answer::Json(Value::Array(rows))),
        }
    }
}
