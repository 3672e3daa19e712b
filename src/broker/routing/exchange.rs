//! An exchange: what was declared, its bindings, and the router of its kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::consistent_hash::ConsistentHash;
use super::delayed::inner_kind;
use super::direct::Direct;
use super::fanout::Fanout;
use super::headers::Headers;
use super::modulus_hash::ModulusHash;
use super::random::{Dice, Random};
use super::recent_history::RecentHistory;
use super::target::TargetId;
use super::topic::Topic;
use super::{ALTERNATE, DELAYED};
use crate::broker::{
    BindingDefinition, Destination, ExchangeDefinition, Message, Name, Passage, Refusal, Table,
    TableKey, Value,
};

#[derive(Debug)]
pub struct Exchange {
    definition: ExchangeDefinition,
    /// From the argument, else from a policy. It need not exist.
    alternate: Option<Name>,
    alternate_by_policy: Option<Name>,
    delayed: bool,
    pub(super) router: Router,
    /// Bindings of other hosts, which lead to what waits for them.
    pub(super) beyond: Option<Router>,
    /// By destination and key: the arguments of each, in order of time.
    bindings: BTreeMap<(Destination, TableKey), Vec<Table>>,
    /// The last round of routing that came here.
    pub(super) seen: u64,
    pub(super) passage: Passage,
}

impl Exchange {
    /// Checks the kind and its arguments.
    pub(super) fn new(definition: ExchangeDefinition, seed: u64) -> Result<Self, Refusal> {
        let router = Router::new(&definition.kind, &definition.arguments, seed)?;
        let alternate = alternate_argument(&definition)?;
        let delayed = definition.kind == DELAYED
            || definition.arguments.get("x-delayed-exchange").and_then(Value::as_bool)
                == Some(true);
        Ok(Self {
            definition,
            alternate,
            alternate_by_policy: None,
            delayed,
            router,
            beyond: None,
            bindings: BTreeMap::new(),
            seen: 0,
            passage: Passage::default(),
        })
    }

    /// Every kind that can be declared.
    pub const KINDS: [&'static str; 10] = [
        "direct",
        "fanout",
        "headers",
        "topic",
        "x-consistent-hash",
        DELAYED,
        "x-local-random",
        "x-modulus-hash",
        "x-random",
        "x-recent-history",
    ];

    pub(super) fn is_kind(name: &str) -> bool {
        Self::KINDS.contains(&name)
    }

    pub fn definition(&self) -> &ExchangeDefinition {
        &self.definition
    }

    pub fn name(&self) -> &Name {
        &self.definition.name
    }

    /// What publishers sent here, and what became of it.
    pub fn passage(&self) -> Passage {
        self.passage
    }

    pub fn internal(&self) -> bool {
        self.definition.internal
    }

    /// Whether keys are topics, so that topic permissions apply.
    pub fn is_topic(&self) -> bool {
        self.definition.kind == "topic"
    }

    /// Whether messages may ask this exchange to wait: see `delay_ms`.
    pub fn delayed(&self) -> bool {
        self.delayed
    }

    /// Where messages go that no binding of this exchange takes. The argument wins over a policy.
    pub fn alternate(&self) -> Option<&Name> {
        self.alternate.as_ref().or(self.alternate_by_policy.as_ref())
    }

    /// Whether this changes anything.
    pub(super) fn set_alternate_by_policy(&mut self, alternate: Option<Name>) -> bool {
        let changed = self.alternate_by_policy != alternate;
        self.alternate_by_policy = alternate;
        changed && self.alternate.is_none()
    }

    pub(super) fn has_bindings(&self) -> bool {
        !self.bindings.is_empty()
    }

    pub(super) fn has_binding(&self, binding: &BindingDefinition) -> bool {
        // The tuple of the map cannot be borrowed in parts; both halves are cheap to clone.
        let at = (binding.destination.clone(), binding.key.clone());
        self.bindings.get(&at).is_some_and(|all| all.contains(&binding.arguments))
    }

    pub(super) fn add_binding(&mut self, binding: &BindingDefinition, target: TargetId) {
        let BindingDefinition { destination, key, arguments, .. } = binding;
        self.router.bind(target, destination, &key.0, arguments);
        // Not a slice of what a socket read: a binding lives long.
        let key = TableKey(Bytes::copy_from_slice(&key.0));
        self.bindings.entry((destination.clone(), key)).or_default().push(arguments.clone());
    }

    /// The binding as it was made, if there was such a one: the widths of its numbers may be others.
    pub(super) fn remove_binding(
        &mut self,
        mut binding: BindingDefinition,
        target: TargetId,
    ) -> Option<BindingDefinition> {
        let at = (binding.destination.clone(), binding.key.clone());
        let all = self.bindings.get_mut(&at)?;
        let index = all.iter().position(|it| *it == binding.arguments)?;
        binding.arguments = all.remove(index);
        if all.is_empty() {
            self.bindings.remove(&at);
        }
        self.router.unbind(target, &binding.destination, &binding.key.0, &binding.arguments);
        Some(binding)
    }

    /// In order of destination and key.
    pub fn bindings(&self) -> impl Iterator<Item = BindingDefinition> {
        self.bindings.iter().flat_map(|(at, all)| self.definitions(at, all))
    }

    pub fn bindings_to(
        &self,
        destination: &Destination,
    ) -> impl Iterator<Item = BindingDefinition> {
        let from = (destination.clone(), TableKey(Bytes::new()));
        self.bindings
            .range(from..)
            .take_while(move |((it, _), _)| it == destination)
            .flat_map(|(at, all)| self.definitions(at, all))
    }

    fn definitions<'a>(
        &'a self,
        (destination, key): &'a (Destination, TableKey),
        all: &'a [Table],
    ) -> impl Iterator<Item = BindingDefinition> {
        all.iter().map(|arguments| BindingDefinition {
            vhost: self.definition.vhost.clone(),
            source: self.definition.name.clone(),
            destination: destination.clone(),
            key: key.clone(),
            arguments: arguments.clone(),
        })
    }
}

fn alternate_argument(definition: &ExchangeDefinition) -> Result<Option<Name>, Refusal> {
    match definition.arguments.get(ALTERNATE) {
        None => Ok(None),
        Some(value) => match value.as_str() {
            Some(name) => Ok(Some(name.into())),
            None => Err(Refusal::Precondition(format!(
                "invalid type '{}' for arg '{ALTERNATE}' in exchange '{}' in vhost '{}'",
                super::equivalence::type_name(value),
                definition.name,
                definition.vhost
            ))),
        },
    }
}

/// What an exchange's kind makes of its bindings.
#[derive(Debug)]
pub(super) enum Router {
    Direct(Direct),
    Fanout(Fanout),
    Topic(Topic),
    Headers(Headers),
    ConsistentHash(ConsistentHash),
    ModulusHash(ModulusHash),
    Random(Random),
    RecentHistory(RecentHistory),
}

/// The keys that a message is routed by: one, seldom more.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub(super) first: &'a [u8],
    pub(super) more: &'a [Bytes],
}

impl<'a> Keys<'a> {
    pub(super) fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        std::iter::once(self.first).chain(self.more.iter().map(|key| &**key))
    }
}

impl Router {
    pub(super) fn new(kind: &str, arguments: &Table, seed: u64) -> Result<Self, Refusal> {
        Ok(match kind {
            "direct" => Self::Direct(Direct::new(seed)),
            "fanout" => Self::Fanout(Fanout::default()),
            "topic" => Self::Topic(Topic::new(seed)),
            "headers" => Self::Headers(Headers::default()),
            "x-consistent-hash" => Self::ConsistentHash(ConsistentHash::new(arguments)?),
            "x-modulus-hash" => Self::ModulusHash(ModulusHash::default()),
            "x-random" | "x-local-random" => Self::Random(Random::default()),
            "x-recent-history" => Self::RecentHistory(RecentHistory::new(arguments)?),
            DELAYED => Self::new(inner_kind(arguments)?, arguments, seed)?,
            unknown => return Err(Refusal::UnknownExchangeKind(unknown.into())),
        })
    }

    /// What is asked of a binding that is made now, beyond `check_binding`: a stored one came before the rule.
    pub(super) fn check_new_binding(&self, key: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::Topic(_) => Topic::check_key(key),
            _ => Ok(()),
        }
    }

    /// Whether the kind takes a binding with this key and these arguments.
    pub(super) fn check_binding(&self, key: &[u8], arguments: &Table) -> Result<(), Refusal> {
        match self {
            Self::Headers(_) => Headers::check_binding(arguments),
            Self::ConsistentHash(_) => ConsistentHash::check_binding(key),
            Self::Direct(_)
            | Self::Fanout(_)
            | Self::Topic(_)
            | Self::ModulusHash(_)
            | Self::Random(_)
            | Self::RecentHistory(_) => Ok(()),
        }
    }

    pub(super) fn bind(
        &mut self,
        target: TargetId,
        to: &Destination,
        key: &Bytes,
        arguments: &Table,
    ) {
        match self {
            Self::Direct(it) => it.bind(target, key),
            Self::Fanout(it) => it.bind(target),
            Self::Topic(it) => it.bind(target, key),
            Self::Headers(it) => it.bind(target, arguments),
            Self::ConsistentHash(it) => it.bind(target, to, key),
            Self::ModulusHash(it) => it.bind(target, to),
            Self::Random(it) => it.bind(target),
            Self::RecentHistory(it) => it.bind(target),
        }
    }

    pub(super) fn unbind(
        &mut self,
        target: TargetId,
        to: &Destination,
        key: &Bytes,
        arguments: &Table,
    ) {
        match self {
            Self::Direct(it) => it.unbind(target, key),
            Self::Fanout(it) => it.unbind(target),
            Self::Topic(it) => it.unbind(target, key),
            Self::Headers(it) => it.unbind(target, arguments),
            Self::ConsistentHash(it) => it.unbind(to, key),
            Self::ModulusHash(it) => it.unbind(to),
            Self::Random(it) => it.unbind(target),
            Self::RecentHistory(it) => it.unbind(target),
        }
    }

    /// May find a target more than once.
    pub(super) fn route(
        &mut self,
        keys: Keys<'_>,
        message: &Arc<Message>,
        dice: &mut Dice,
        found: &mut impl FnMut(TargetId),
    ) {
        match self {
            Self::Direct(it) => keys.iter().for_each(|key| it.route(key, found)),
            Self::Fanout(it) => it.route(found),
            Self::Topic(it) => keys.iter().for_each(|key| it.route(key, found)),
            Self::Headers(it) => it.route(message, found),
            Self::ConsistentHash(it) => it.route(keys.first, message, found),
            Self::ModulusHash(it) => it.route(keys.first, found),
            Self::Random(it) => it.route(dice, found),
            Self::RecentHistory(it) => it.route(message, found),
        }
    }

    /// Messages that a new binding is given.
    pub(super) fn recent(&self) -> Vec<Arc<Message>> {
        match self {
            Self::RecentHistory(it) => it.recent(),
            _ => Vec::new(),
        }
    }

    /// Whether the same key always goes the same way until a binding changes.
    pub(super) fn depends_on_key_only(&self) -> bool {
        matches!(self, Self::Direct(_) | Self::Fanout(_) | Self::Topic(_))
    }
}
