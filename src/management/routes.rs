//! Every path with its methods, and who may call it.

use super::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Put,
    Post,
    Delete,
}

impl Method {
    /// HEAD is a GET whose body is not sent. Others are never allowed.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "GET" | "HEAD" => Self::Get,
            "PUT" => Self::Put,
            "POST" => Self::Post,
            "DELETE" => Self::Delete,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// What a user must be. Each includes those before it, but policymakers see no more than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nobody has to log in.
    Nothing,
    /// Any of the tags.
    Management,
    Policymaker,
    Monitoring,
    Administrator,
}

/// A user's tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    pub management: bool,
    pub policymaker: bool,
    pub monitoring: bool,
    pub administrator: bool,
}

impl Tags {
    pub fn of(tags: &[String]) -> Self {
        let has = |tag: &str| tags.iter().any(|it| it == tag);
        Self {
            management: has("management"),
            policymaker: has("policymaker"),
            monitoring: has("monitoring"),
            administrator: has("administrator"),
        }
    }

    /// Sees every virtual host, and everybody's connections.
    pub fn sees_all(self) -> bool {
        self.monitoring || self.administrator
    }

    pub fn check(self, needs: Needs) -> Result<(), Fault> {
        let any = self.management || self.policymaker || self.sees_all();
        let (may, who) = match needs {
            Needs::Nothing => (true, ""),
            Needs::Management => (any, "management"),
            Needs::Policymaker => (self.policymaker || self.administrator, "policymaker"),
            Needs::Monitoring => (self.sees_all(), "monitor"),
            Needs::Administrator => (self.administrator, "administrator"),
        };
        if may { Ok(()) } else { Err(Fault::not_authorised(format!("Not {who} user"))) }
    }
}

/// One thing that can be asked for.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub method: Method,
    /// `{name}` stands for one segment; names are percent-coded.
    pub path: &'static str,
    pub needs: Needs,
    pub call: Call,
    pub about: &'static str,
}

macro_rules! routes {
    ($( $method:ident $path:literal $needs:ident $call:ident $about:literal )*) => {
        /// What a route does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Call { $( #[doc = $about] $call, )* }

        pub const ROUTES: &[Route] = &[ $( Route {
            method: Method::$method,
            path: $path,
            needs: Needs::$needs,
            call: Call::$call,
            about: $about,
        } ),* ];
    };
}

routes! {
    Get "/api/openapi.json" Nothing OpenApi "This description"
    Get "/api/health/live" Nothing HealthLive "The process answers"
    Get "/api/health/ready" Nothing HealthReady "The broker answers, and publishers are not stopped"
    Get "/api/overview" Management Overview "The broker as a whole"
    Get "/api/version" Management Version "The version, as RabbitMQ's clients understand it"
    Get "/api/whoami" Management Whoami "The user of this request"
    Get "/api/auth" Management AuthKind "How users log in"
    Get "/api/auth/hash_password/{password}" Management HashPassword "A password's hash as RabbitMQ stores it"
    Get "/api/auth/attempts/{node}" Monitoring AuthAttempts "Logins by protocol: not counted here"
    Delete "/api/auth/attempts/{node}" Administrator ForgetAuthAttempts "Nothing to forget"
    Get "/api/auth/attempts/{node}/source" Monitoring AuthAttemptsBySource "Logins by source: not counted here"
    Delete "/api/auth/attempts/{node}/source" Administrator ForgetAuthAttemptsBySource "Nothing to forget"
    Get "/api/extensions" Management Extensions "Extensions of the management pages: none"
    Get "/api/cluster-name" Management ClusterName "The broker's name"
    Put "/api/cluster-name" Administrator SetClusterName "Names the broker"
    Get "/api/peers" Monitoring Peers "Other hosts, the links to them, and what waits for them"
    Delete "/api/peers/{name}" Administrator ForgetPeer "Forgets a host that is gone; ?messages=drop: also what waits for it"
    Post "/api/peers/{name}/redirect" Administrator RedirectPeer "Forgets a host that is gone, and sends what waits for it to the host `to`, or to where its queues live now"
    Get "/api/drain" Monitoring DrainState "How far this host is drained"
    Post "/api/drain" Administrator Drain "Takes this host out of service until it starts again; with `leave`, other hosts are told that nothing lives here"
    Get "/api/nodes" Monitoring Nodes "This host, as a list of one"
    Get "/api/nodes/{node}" Monitoring Node "This host"
    Get "/api/nodes/{node}/memory" Monitoring NodeMemory "Memory in use"
    Get "/api/nodes/{node}/memory/relative" Monitoring NodeMemoryRelative "The same in percent of all"
    Get "/api/definitions" Administrator ExportAll "Everything that is declared"
    Post "/api/definitions" Administrator ImportAll "Adds what is not there yet, and changes users, policies and parameters"
    Get "/api/definitions/{vhost}" Policymaker ExportVhost "Everything that is declared in a virtual host"
    Post "/api/definitions/{vhost}" Policymaker ImportVhost "Adds to one virtual host"
    Get "/api/all-configuration" Administrator ExportAllOld "The same as definitions"
    Get "/api/connections" Management Connections "Open connections"
    Get "/api/connections/{name}" Management Connection "One connection"
    Delete "/api/connections/{name}" Management CloseConnection "Ends a connection, for the reason in X-Reason"
    Get "/api/connections/{name}/channels" Management ConnectionChannels "Channels of a connection"
    Get "/api/connections/username/{user}" Management UserConnections "Connections of a user"
    Delete "/api/connections/username/{user}" Administrator CloseUserConnections "Ends all connections of a user"
    Get "/api/channels" Management Channels "Channels that were used"
    Get "/api/channels/{name}" Management Channel "One channel"
    Get "/api/consumers" Management Consumers "Consumers"
    Get "/api/consumers/{vhost}" Management VhostConsumers "Consumers of a virtual host"
    Get "/api/exchanges" Management Exchanges "Exchanges"
    Get "/api/exchanges/{vhost}" Management VhostExchanges "Exchanges of a virtual host"
    Get "/api/exchanges/{vhost}/{name}" Management Exchange "One exchange"
    Put "/api/exchanges/{vhost}/{name}" Management DeclareExchange "Declares an exchange"
    Delete "/api/exchanges/{vhost}/{name}" Management DeleteExchange "Deletes an exchange"
    Get "/api/exchanges/{vhost}/{name}/bindings/source" Management ExchangeSources "Bindings that start at an exchange"
    Get "/api/exchanges/{vhost}/{name}/bindings/destination" Management ExchangeDestinations "Bindings that lead to an exchange"
    Post "/api/exchanges/{vhost}/{name}/publish" Management Publish "Publishes one message"
    Get "/api/queues" Management Queues "Mailboxes"
    Get "/api/queues/detailed" Management QueuesDetailed "The same"
    Get "/api/queues/{vhost}" Management VhostQueues "Mailboxes of a virtual host"
    Get "/api/queues/{vhost}/{name}" Management Queue "One mailbox"
    Put "/api/queues/{vhost}/{name}" Management DeclareQueue "Declares a mailbox"
    Delete "/api/queues/{vhost}/{name}" Management DeleteQueue "Deletes a mailbox with its messages"
    Get "/api/queues/{vhost}/{name}/bindings" Management QueueBindings "Bindings that lead to a mailbox"
    Delete "/api/queues/{vhost}/{name}/contents" Management PurgeQueue "Removes all ready messages"
    Get "/api/queues/{vhost}/{name}/messages" Management BrowseMessages "Shows messages in any state and takes none"
    Post "/api/queues/{vhost}/{name}/rewind" Management RewindQueue "Puts messages back that were settled, by time, position and condition"
    Post "/api/queues/{vhost}/{name}/move" Administrator MoveQueue "Lets the host `to` have a mailbox, and says how many messages are still here; asked again, how many there are now"
    Post "/api/queues/{vhost}/{name}/get" Management GetMessages "Shows or takes the first messages"
    Get "/api/queues/quorum/{vhost}/{name}/status" Management QuorumStatus "Where a mailbox has its replicas: here"
    Post "/api/queues/quorum/{vhost}/{name}/replicas/add" Administrator AddReplica "Refused: a mailbox has one home"
    Delete "/api/queues/quorum/{vhost}/{name}/replicas/delete" Administrator RemoveReplica "Refused: a mailbox has one home"
    Post "/api/queues/quorum/replicas/on/{node}/grow" Administrator GrowReplicas "Refused: a mailbox has one home"
    Delete "/api/queues/quorum/replicas/on/{node}/shrink" Administrator ShrinkReplicas "Refused: a mailbox has one home"
    Post "/api/queues/{vhost}/{name}/actions" Management QueueAction "RabbitMQ's sync and cancel_sync, which need do nothing here"
    Get "/api/bindings" Management Bindings "Bindings"
    Get "/api/bindings/{vhost}" Management VhostBindings "Bindings of a virtual host"
    Get "/api/bindings/{vhost}/e/{source}/q/{queue}" Management QueueBindingsFrom "Bindings between an exchange and a mailbox"
    Post "/api/bindings/{vhost}/e/{source}/q/{queue}" Management BindQueue "Binds a mailbox"
    Get "/api/bindings/{vhost}/e/{source}/q/{queue}/{props}" Management QueueBinding "One binding of a mailbox"
    Delete "/api/bindings/{vhost}/e/{source}/q/{queue}/{props}" Management UnbindQueue "Undoes a binding of a mailbox"
    Get "/api/bindings/{vhost}/e/{source}/e/{destination}" Management ExchangeBindingsFrom "Bindings between two exchanges"
    Post "/api/bindings/{vhost}/e/{source}/e/{destination}" Management BindExchange "Binds an exchange to an exchange"
    Get "/api/bindings/{vhost}/e/{source}/e/{destination}/{props}" Management ExchangeBinding "One binding of an exchange"
    Delete "/api/bindings/{vhost}/e/{source}/e/{destination}/{props}" Management UnbindExchange "Undoes a binding of an exchange"
    Get "/api/vhosts" Management Vhosts "Virtual hosts"
    Get "/api/vhosts/{vhost}" Management Vhost "One virtual host"
    Put "/api/vhosts/{vhost}" Administrator DefineVhost "Creates or changes a virtual host"
    Delete "/api/vhosts/{vhost}" Administrator DeleteVhost "Deletes a virtual host with all that is in it"
    Get "/api/vhosts/{vhost}/permissions" Administrator VhostPermissions "Permissions in a virtual host"
    Get "/api/vhosts/{vhost}/topic-permissions" Administrator VhostTopicPermissions "Topic permissions in a virtual host"
    Get "/api/vhosts/{vhost}/connections" Management VhostConnections "Connections to a virtual host"
    Get "/api/vhosts/{vhost}/channels" Management VhostChannels "Channels in a virtual host"
    Post "/api/vhosts/{vhost}/deletion/protection" Administrator ProtectVhost "Lets nobody delete a virtual host"
    Delete "/api/vhosts/{vhost}/deletion/protection" Administrator UnprotectVhost "Lets administrators delete a virtual host again"
    Post "/api/vhosts/{vhost}/start/{node}" Administrator StartVhost "Virtual hosts always run here"
    Get "/api/users" Administrator Users "Users"
    Get "/api/users/without-permissions" Administrator UsersWithoutPermissions "Users that may enter no virtual host"
    Post "/api/users/bulk-delete" Administrator DeleteUsers "Deletes several users"
    Get "/api/users/{user}" Administrator User "One user"
    Put "/api/users/{user}" Administrator DefineUser "Creates or changes a user"
    Delete "/api/users/{user}" Administrator DeleteUser "Deletes a user with all permissions"
    Get "/api/users/{user}/permissions" Administrator UserPermissions "Permissions of a user"
    Get "/api/users/{user}/topic-permissions" Administrator UserTopicPermissions "Topic permissions of a user"
    Get "/api/permissions" Administrator Permissions "Permissions"
    Get "/api/permissions/{vhost}/{user}" Administrator Permission "What a user may do in a virtual host"
    Put "/api/permissions/{vhost}/{user}" Administrator DefinePermission "Says what a user may do in a virtual host"
    Delete "/api/permissions/{vhost}/{user}" Administrator DeletePermission "Takes everything from a user in a virtual host"
    Get "/api/topic-permissions" Administrator TopicPermissions "Topic permissions"
    Get "/api/topic-permissions/{vhost}/{user}" Administrator TopicPermission "Topic permissions of a user in a virtual host"
    Put "/api/topic-permissions/{vhost}/{user}" Administrator DefineTopicPermission "Says which topics a user may write and read"
    Delete "/api/topic-permissions/{vhost}/{user}" Administrator DeleteTopicPermission "Takes the topic permissions of a user in a virtual host"
    Get "/api/topic-permissions/{vhost}/{user}/{exchange}" Administrator TopicPermissionAt "The topic permission of a user on an exchange"
    Delete "/api/topic-permissions/{vhost}/{user}/{exchange}" Administrator DeleteTopicPermissionAt "Takes the topic permission of a user on an exchange"
    Get "/api/parameters" Policymaker Parameters "Parameters"
    Get "/api/parameters/{component}" Policymaker ComponentParameters "Parameters of a component"
    Get "/api/parameters/{component}/{vhost}" Policymaker VhostParameters "Parameters of a component in a virtual host"
    Get "/api/parameters/{component}/{vhost}/{name}" Policymaker Parameter "One parameter"
    Put "/api/parameters/{component}/{vhost}/{name}" Policymaker DefineParameter "Sets a parameter"
    Delete "/api/parameters/{component}/{vhost}/{name}" Policymaker DeleteParameter "Clears a parameter"
    Get "/api/global-parameters" Policymaker GlobalParameters "Global parameters"
    Get "/api/global-parameters/{name}" Policymaker GlobalParameter "One global parameter"
    Put "/api/global-parameters/{name}" Administrator DefineGlobalParameter "Sets a global parameter"
    Delete "/api/global-parameters/{name}" Administrator DeleteGlobalParameter "Clears a global parameter"
    Get "/api/policies" Management Policies "Policies"
    Get "/api/policies/{vhost}" Management VhostPolicies "Policies of a virtual host"
    Get "/api/policies/{vhost}/{name}" Management Policy "One policy"
    Put "/api/policies/{vhost}/{name}" Policymaker DefinePolicy "Sets a policy"
    Delete "/api/policies/{vhost}/{name}" Policymaker DeletePolicy "Clears a policy"
    Get "/api/operator-policies" Management OperatorPolicies "Operator policies"
    Get "/api/operator-policies/{vhost}" Management VhostOperatorPolicies "Operator policies of a virtual host"
    Get "/api/operator-policies/{vhost}/{name}" Management OperatorPolicy "One operator policy"
    Put "/api/operator-policies/{vhost}/{name}" Administrator DefineOperatorPolicy "Sets an operator policy"
    Delete "/api/operator-policies/{vhost}/{name}" Administrator DeleteOperatorPolicy "Clears an operator policy"
    Get "/api/vhost-limits" Management VhostLimits "Limits of virtual hosts"
    Get "/api/vhost-limits/{vhost}" Management LimitsOfVhost "Limits of a virtual host"
    Put "/api/vhost-limits/{vhost}/{limit}" Administrator SetVhostLimit "Sets max-connections or max-queues"
    Delete "/api/vhost-limits/{vhost}/{limit}" Administrator ClearVhostLimit "Clears a limit"
    Get "/api/user-limits" Administrator UserLimits "Limits of users"
    Get "/api/user-limits/{user}" Administrator LimitsOfUser "Limits of a user"
    Put "/api/user-limits/{user}/{limit}" Administrator SetUserLimit "Sets max-connections or max-channels"
    Delete "/api/user-limits/{user}/{limit}" Administrator ClearUserLimit "Clears a limit"
    Get "/api/feature-flags" Monitoring FeatureFlags "Feature flags: all of them are on"
    Put "/api/feature-flags/{flag}/enable" Administrator EnableFeatureFlag "Feature flags are always on here"
    Get "/api/deprecated-features" Monitoring DeprecatedFeatures "Deprecated features: none"
    Get "/api/deprecated-features/used" Monitoring UsedDeprecatedFeatures "Deprecated features in use: none"
    Get "/api/aliveness-test/{vhost}" Management AlivenessTest "Declares a mailbox, publishes to it and reads from it"
    Get "/api/healthchecks/node" Monitoring HealthNode "The broker answers"
    Get "/api/healthchecks/node/{node}" Monitoring HealthNodeNamed "The broker answers"
    Get "/api/health/checks/alarms" Management HealthAlarms "No resource runs low"
    Get "/api/health/checks/local-alarms" Management HealthLocalAlarms "No resource runs low"
    Get "/api/health/checks/certificate-expiration/{within}/{unit}" Management HealthCertificates "No certificate expires within that time"
    Get "/api/health/checks/port-listener/{port}" Management HealthPort "A listener has this port"
    Get "/api/health/checks/protocol-listener/{protocol}" Management HealthProtocol "A listener speaks this protocol"
    Get "/api/health/checks/virtual-hosts" Management HealthVhosts "All virtual hosts run"
    Get "/api/health/checks/node-is-quorum-critical" Management HealthQuorum "No other host depends on this one"
    Get "/api/health/checks/node-is-mirror-sync-critical" Management HealthMirror "No other host depends on this one"
    Get "/api/health/checks/is-in-service" Management HealthService "The broker serves clients"
    Get "/api/health/checks/ready-to-serve-clients" Management HealthServes "The broker serves clients"
    Get "/api/health/checks/below-node-connection-limit" Management HealthConnections "There is room for another connection"
    Get "/api/health/checks/reached-target-cluster-size" Management HealthClusterSize "No number of hosts is wanted here"
    Get "/api/health/checks/metadata-store/initialized" Management HealthMetadata "The definitions are loaded"
    Get "/api/health/checks/metadata-store/initialized/with-data" Management HealthMetadataHasData "The definitions are loaded"
    Get "/api/health/checks/quorum-queues-without-elected-leaders/all-vhosts" Management HealthLeaders "Queues need no leader here"
    Get "/api/health/checks/quorum-queues-without-elected-leaders/all-vhosts/pattern/{pattern}" Management HealthLeadersOfPattern "Queues need no leader here"
    Get "/api/health/checks/quorum-queues-without-elected-leaders/vhost/{vhost}" Management HealthLeadersOfVhost "Queues need no leader here"
    Get "/api/health/checks/quorum-queues-without-elected-leaders/vhost/{vhost}/pattern/{pattern}" Management HealthLeadersOfVhostPattern "Queues need no leader here"
    Delete "/api/reset" Administrator Reset "RabbitMQ forgets the statistics it gathered; here counters begin with the broker and stay"
    Delete "/api/reset/{node}" Administrator ResetNode "The same"
    Post "/api/rebalance/queues" Administrator Rebalance "Nothing to rebalance on one host"
    Get "/api/shovels" Monitoring Shovels "Shovels: none run here"
    Get "/api/shovels/{vhost}" Monitoring VhostShovels "Shovels of a virtual host: none run here"
    Get "/api/federation-links" Monitoring FederationLinks "Federation links: there are none here"
    Get "/api/federation-links/{vhost}" Monitoring VhostFederationLinks "Federation links of a virtual host: there are none here"
    Get "/metrics" Monitoring Metrics "Prometheus metrics, sums over all mailboxes"
    Get "/metrics/per-object" Monitoring MetricsPerObject "Prometheus metrics of each mailbox"
    Get "/metrics/detailed" Monitoring MetricsDetailed "Prometheus metrics of chosen families, of each object"
}

/// The values of a path's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures(Vec<(&'static str, String)>);

impl Captures {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(it, _)| *it == name).map(|(_, value)| value.as_str())
    }
}

/// What a path and a method lead to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Route(usize, Captures),
    /// There are others: in the form of the `Allow` header.
    OtherMethods(String),
    Nothing,
}

/// Finds the route; where two fit, the one with more literal segments. The error says why a segment cannot be read.
pub fn find(method: Option<Method>, path: &str) -> Result<Found, Fault> {
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    let segments: Vec<String> =
        trimmed.split('/').skip(1).map(decode).collect::<Result<_, Fault>>()?;
    let mut fitting: Vec<(usize, usize, Captures)> = Vec::new();
    for (at, route) in ROUTES.iter().enumerate() {
        if let Some(captures) = fits(route.path, &segments) {
            fitting.push((captures.0.len(), at, captures));
        }
    }
    let Some(fewest) = fitting.iter().map(|(names, ..)| *names).min() else {
        return Ok(Found::Nothing);
    };
    fitting.retain(|(names, ..)| *names == fewest);
    let mut allowed = Vec::new();
    for (_, at, captures) in fitting {
        if Some(ROUTES[at].method) == method {
            return Ok(Found::Route(at, captures));
        }
        allowed.push(ROUTES[at].method.name());
        if ROUTES[at].method == Method::Get {
            allowed.push("HEAD");
        }
    }
    Ok(Found::OtherMethods(allowed.join(", ")))
}

fn fits(pattern: &'static str, segments: &[String]) -> Option<Captures> {
    let mut captures = Vec::new();
    let mut parts = pattern.split('/').skip(1);
    for segment in segments {
        let part = parts.next()?;
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) if !segment.is_empty() || name == "name" => {
                captures.push((name, segment.clone()));
            }
            Some(_) => return None,
            None if part != segment => return None,
            None => {}
        }
    }
    parts.next().is_none().then_some(Captures(captures))
}

/// Undoes percent-coding. Names are UTF-8 and hold no NUL.
pub fn decode(text: &str) -> Result<String, Fault> {
    let wrong = || Fault::bad_request("a name in the address is badly coded");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let digit = |at: usize| char::from(digits[at]).to_digit(16).ok_or_else(wrong);
        bytes.push((digit(0)? * 16 + digit(1)?) as u8);
        rest = after;
    }
    let decoded = String::from_utf8(bytes).map_err(|_| wrong())?;
    if decoded.contains('\0') { Err(wrong()) } else { Ok(decoded) }
}

/// Percent-codes everything but letters, digits and `-_.~`.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(byte.into());
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
