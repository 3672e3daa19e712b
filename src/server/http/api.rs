//! RabbitMQ's HTTP API: who asks, whether they may, and what is asked of the broker.

mod connections;
mod definitions;
mod health;
mod lists;
mod metrics;
mod objects;
mod people;
mod topology;
mod whole;

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Extension, Request};
use axum::http::{HeaderMap, HeaderValue, Method as HttpMethod, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use super::estate::Estate;
use super::scroll::Scroll;
use super::{Admission, Visit, basic, bearer, may_come};
use crate::broker::{Credential, Definition, DefinitionKind, Name, Reply, Request as Ask};
use crate::management::definitions::{Fields, name};
use crate::management::routes::{Captures, Found, ROUTES, Tags, find};
use crate::management::{Call, Fault, Method, Needs, Query, openapi, strict};
use crate::server::throttle::Origin;
use crate::sessions::Verify;

/// Longer addresses are refused.
const ADDRESS_MAX: usize = 4096;

/// What is said to who asked.
pub(super) enum Answer {
    Json(Value),
    Text(&'static str, String),
    /// A long text.
    Scroll(&'static str, Scroll),
    /// 201, and where it is.
    Created(Option<String>),
    NoContent,
    /// A check that failed: 503.
    Failed(Value),
}

type Answered = Result<Answer, Fault>;

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) user: Name,
    pub(super) tags: Tags,
    pub(super) credential: Credential,
}

/// A request that may be answered.
pub(super) struct Question<'a> {
    estate: &'a Arc<Estate>,
    guest: Guest,
    captures: Captures,
    query: Query,
    headers: HeaderMap,
    body: Bytes,
}

pub(super) async fn answer(Extension(visit): Extension<Visit>, request: Request) -> Response {
    let head = request.method() == HttpMethod::HEAD;
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = match respond(&visit, request).await {
        Ok(answer) => answer.into_response(),
        Err(Refused::Fault(fault)) => fault_response(&fault),
        Err(Refused::Methods(allowed)) => {
            let mut response = fault_response(&Fault::method_not_allowed());
            if let Ok(allowed) = HeaderValue::from_str(&allowed) {
                response.headers_mut().insert(header::ALLOW, allowed);
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::VARY, HeaderValue::from_static("authorization"));
    if chunked {
        // A length may have stood beside it: what follows could be what somebody else sees as part of this one.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if head {
        *response.body_mut() = Body::empty();
    }
    response
}

enum Refused {
    Fault(Fault),
    Methods(String),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

async fn respond(visit: &Visit, request: Request) -> Result<Answer, Refused> {
    let (parts, body) = request.into_parts();
    if parts.uri.path_and_query().is_some_and(|it| it.as_str().len() > ADDRESS_MAX) {
        return Err(Fault::new(414, "URI Too Long", "URI Too Long").into());
    }
    let method = Method::parse(parts.method.as_str());
    let (route, captures) = match find(method, parts.uri.path())? {
        Found::Route(at, captures) => (&ROUTES[at], captures),
        Found::OtherMethods(allowed) => return Err(Refused::Methods(allowed)),
        Found::Nothing => return Err(Fault::not_found().into()),
    };
    // Another host's page must not use what a browser remembers of this one.
    if route.method != Method::Get && !may_come(&parts.headers, &visit.door.http) {
        return Err(Fault::new(403, "forbidden", "another host's page asks").into());
    }
    if visit.admission == Admission::Metrics && !route.path.starts_with("/metrics") {
        return Err(Fault::not_found().into());
    }
    let guest = match visit.admission {
        Admission::Inside => owner(),
        Admission::Login if route.needs != Needs::Nothing => {
            let guest = log_in(visit, &parts.headers).await?;
            guest.tags.check(route.needs)?;
            guest
        }
        Admission::Login | Admission::Metrics => nobody(),
    };
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let body = if route.method == Method::Get {
        Bytes::new()
    } else {
        check_content_type(&parts.headers, route.call)?;
        read_body(&parts.headers, body, visit.door.http.body_size_max).await?
    };
    let estate = visit.door.estate.clone();
    let headers = parts.headers;
    // On a task of its own: a client that goes away must not leave work half done.
    let work = async move {
        let question = Question { estate: &estate, guest, captures, query, headers, body };
        question.check_vhost(route.method).await?;
        question.call(route.call).await
    };
    match tokio::spawn(work).await {
        Ok(answered) => Ok(answered?),
        Err(_) => Err(Fault::new(500, "internal", "this is a bug").into()),
    }
}

fn nobody() -> Guest {
    Guest { user: "".into(), tags: Tags::default(), credential: Credential::default() }
}

/// Who may read the data directory may do everything.
fn owner() -> Guest {
    Guest { tags: Tags { administrator: true, ..Tags::default() }, ..nobody() }
}

/// Basic authentication, checked as every other login is.
async fn log_in(visit: &Visit, headers: &HeaderMap) -> Result<Guest, Fault> {
    let mut given = headers.get_all(header::AUTHORIZATION).into_iter();
    let (Some(given), None) = (given.next(), given.next()) else { return Err(Fault::no_login()) };
    if let Some(token) = bearer(given) {
        return if is_owner(visit, &token) { Ok(owner()) } else { Err(failed_login()) };
    }
    let (user, password) = basic(given).ok_or_else(Fault::no_login)?;
    if user.len() > Name::SIZE_MAX {
        return Err(failed_login());
    }
    let user = Name::from(user.as_str());
    let credential = match visit.door.estate.desk.ask(Ask::Credential(user.clone())).await? {
        Reply::Credential(credential) => credential.map(|it| *it),
        _ => None,
    };
    let verify = Verify {
        user: user.to_string(),
        password: password.into_bytes(),
        credential: credential.clone(),
    };
    let origin = Origin { peer: visit.ends.peer, local: visit.ends.local };
    let verifier = &visit.door.house.verifier;
    let accepted = verifier.check(verify, origin).await;
    let Some(credential) = credential.filter(|_| accepted) else { return Err(failed_login()) };
    if credential.loopback_only && !visit.ends.peer.ip().to_canonical().is_loopback() {
        return Err(Fault::not_authorised("User can only log in via localhost"));
    }
    if let Some(newcomer) = &visit.ends.newcomer {
        newcomer.settle();
    }
    Ok(Guest { user, tags: Tags::of(&credential.tags), credential })
}

fn failed_login() -> Fault {
    Fault::not_authorised("Login failed")
}

/// Whoever shows the secret of this run may read the data directory. As over the native protocol, from this machine only.
fn is_owner(visit: &Visit, token: &[u8]) -> bool {
    let right = visit.door.sessions.local.token.as_ref();
    let right = right.is_some_and(|it| it.0.ct_eq(token).into());
    let here = visit.ends.peer.ip().to_canonical().is_loopback();
    if right
        && here
        && let Some(newcomer) = &visit.ends.newcomer
    {
        newcomer.settle();
    }
    right && here
}

/// JSON, whatever name a tool gives it, but not what a page's form may send to another host unasked.
fn check_content_type(headers: &HeaderMap, call: Call) -> Result<(), Fault> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let given = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    let given = given.trim().to_ascii_lowercase();
    let imports = matches!(call, Call::ImportAll | Call::ImportVhost);
    let known = given.is_empty()
        || given == "application/json"
        || given.ends_with("+json")
        || given == "application/x-www-form-urlencoded"
        || given == "application/octet-stream"
        || (imports && given == "multipart/form-data");
    if known {
        return Ok(());
    }
    Err(Fault::new(415, "unsupported_media_type", format!("not JSON: '{given}'")))
}

async fn read_body(headers: &HeaderMap, body: Body, size_max: usize) -> Result<Bytes, Fault> {
    let too_large =
        || Fault::new(413, "payload_too_large", format!("a body has at most {size_max} bytes"));
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok());
    if declared.is_some_and(|it| it.parse::<u64>().is_ok_and(|size| size > size_max as u64)) {
        return Err(too_large());
    }
    to_bytes(body, size_max).await.map_err(|error| {
        use std::error::Error;
        let limit = error.source().is_some_and(|it| it.to_string().contains("length limit"));
        if limit || error.to_string().contains("length limit") {
            too_large()
        } else {
            Fault::bad_request("the body did not come whole")
        }
    })
}

fn fault_response(fault: &Fault) -> Response {
    let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, json_body(&fault.body())).into_response();
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        let realm = HeaderValue::from_static("Basic realm=\"RabbitMQ Management\"");
        headers.insert(header::WWW_AUTHENTICATE, realm);
    }
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        // What is not read would be taken for the next request.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn json_body(value: &Value) -> ([(header::HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string())
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Json(value) => json_body(&value).into_response(),
            Self::Text(kind, text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
            Self::Scroll(kind, scroll) => {
                ([(header::CONTENT_TYPE, kind)], scroll.into_body()).into_response()
            }
            Self::Created(place) => {
                let mut response = StatusCode::CREATED.into_response();
                let place = place.and_then(|it| HeaderValue::from_str(&it).ok());
                if let Some(place) = place {
                    response.headers_mut().insert(header::LOCATION, place);
                }
                response
            }
            Self::NoContent => StatusCode::NO_CONTENT.into_response(),
            Self::Failed(value) => {
                (StatusCode::SERVICE_UNAVAILABLE, json_body(&value)).into_response()
            }
        }
    }
}

impl Question<'_> {
    /// A segment of the address, as a name.
    fn name(&self, of: &str) -> Result<Name, Fault> {
        name(self.captures.get(of).unwrap_or_default())
    }

    fn text(&self, of: &str) -> &str {
        self.captures.get(of).unwrap_or_default()
    }

    fn object(&self) -> Result<Map<String, Value>, Fault> {
        strict::read_object(&self.body)
    }

    /// Whoever names a virtual host must be allowed to see it; what is done there is checked by the broker too.
    async fn check_vhost(&self, method: Method) -> Result<(), Fault> {
        let Some(vhost) = self.captures.get("vhost") else { return Ok(()) };
        if self.guest.tags.administrator || (self.guest.tags.monitoring && method == Method::Get) {
            return Ok(());
        }
        if self.may_enter(&name(vhost)?).await? {
            return Ok(());
        }
        Err(Fault::not_authorised("User not authorised to access virtual host"))
    }

    async fn may_enter(&self, vhost: &Name) -> Result<bool, Fault> {
        let all = self.estate.definitions(DefinitionKind::Permission, Some(vhost)).await?;
        Ok(all
            .iter()
            .any(|it| matches!(it, Definition::Permission(it) if it.user == self.guest.user)))
    }

    /// Names of the virtual hosts whose things are listed: all, or those that the guest may enter.
    async fn vhosts(&self) -> Result<Vec<Name>, Fault> {
        if let Some(vhost) = self.captures.get("vhost") {
            let vhost = name(vhost)?;
            self.find_vhost(&vhost).await?;
            return Ok(vec![vhost]);
        }
        let all = self.estate.definitions(DefinitionKind::Vhost, None).await?;
        let own = if self.guest.tags.sees_all() {
            None
        } else {
            Some(self.estate.definitions(DefinitionKind::Permission, None).await?)
        };
        let visible = |vhost: &Name| {
            own.as_ref().is_none_or(|own| {
                own.iter().any(|it| {
                    matches!(it, Definition::Permission(it)
                    if it.user == self.guest.user && it.vhost == *vhost)
                })
            })
        };
        let names = all.into_iter().filter_map(|it| match it {
            Definition::Vhost(it) => Some(it.name),
            _ => None,
        });
        Ok(names.filter(visible).collect())
    }

    async fn define(&self, definition: Definition) -> Result<(), Fault> {
        self.estate.desk.ask(Ask::Define(definition)).await.map(|_| ())
    }

    async fn undefine(&self, definition: &Definition) -> Answered {
        self.estate.desk.ask(Ask::Undefine(definition.key())).await?;
        Ok(Answer::NoContent)
    }

    /// 201 for what is new, 204 for what was there.
    fn put(was_there: bool) -> Answer {
        if was_there { Answer::NoContent } else { Answer::Created(None) }
    }

    fn fields<'o>(object: &'o Map<String, Value>) -> Fields<'o> {
        Fields::new(object, "the body")
    }

    #[expect(clippy::too_many_lines, reason = "one line for each route")]
    async fn call(&self, call: Call) -> Answered {
        use Call as C;
        match call {
            C::OpenApi => Ok(Answer::Json(openapi::describe())),
            C::HealthLive => Ok(health::ok()),
            C::HealthReady => self.health_alarms().await,
            C::Overview => self.overview().await,
            C::Version => Ok(Answer::Json(whole::version())),
            C::Whoami => Ok(self.whoami()),
            C::AuthKind => Ok(whole::auth_kind()),
            C::HashPassword => self.hash_password(),
            C::AuthAttempts
            | C::AuthAttemptsBySource
            | C::Extensions
            | C::Shovels
            | C::VhostShovels
            | C::FederationLinks
            | C::VhostFederationLinks => Ok(Answer::Json(Value::Array(Vec::new()))),
            C::ClusterName => self.cluster_name().await,
            C::SetClusterName => self.set_cluster_name().await,
            C::Nodes => self.nodes().await,
            C::Peers => self.peers().await,
            C::DrainState => self.drain_state().await,
            C::Drain => self.drain().await,
            C::ForgetPeer => self.forget_peer().await,
            C::RedirectPeer => self.redirect_peer().await,
            C::Node => self.node().await,
            C::NodeMemory => self.node_memory(false).await,
            C::NodeMemoryRelative => self.node_memory(true).await,
            C::ExportAll | C::ExportAllOld => self.export_all().await,
            C::ExportVhost => self.export_vhost().await,
            C::ImportAll | C::ImportVhost => self.import().await,
            C::Connections | C::UserConnections | C::VhostConnections => self.connections().await,
            C::Connection => self.connection().await,
            C::CloseConnection => self.close_connection().await,
            C::CloseUserConnections => self.close_user_connections().await,
            C::Channels | C::ConnectionChannels | C::VhostChannels => self.channels().await,
            C::Channel => self.channel().await,
            C::Consumers | C::VhostConsumers => self.consumers().await,
            C::Exchanges | C::VhostExchanges => self.exchanges().await,
            C::Exchange => self.exchange().await,
            C::DeclareExchange => self.declare_exchange().await,
            C::DeleteExchange => self.delete_exchange().await,
            C::ExchangeSources => self.bindings_of_exchange(true).await,
            C::ExchangeDestinations => self.bindings_of_exchange(false).await,
            C::Publish => self.publish().await,
            C::Queues | C::QueuesDetailed | C::VhostQueues => self.queues().await,
            C::Queue => self.queue().await,
            C::DeclareQueue => self.declare_queue().await,
            C::DeleteQueue => self.delete_queue().await,
            C::QueueBindings => self.bindings_of_queue().await,
            C::MoveQueue => self.move_queue().await,
            C::PurgeQueue => self.purge_queue().await,
            C::BrowseMessages => self.browse_messages().await,
            C::RewindQueue => self.rewind_queue().await,
            C::QuorumStatus => self.quorum_status().await,
            C::AddReplica | C::RemoveReplica => self.change_replicas().await,
            C::GrowReplicas | C::ShrinkReplicas => Err(Self::one_home()),
            C::GetMessages => self.get_messages().await,
            C::QueueAction => self.queue_action().await,
            C::Bindings | C::VhostBindings => self.bindings().await,
            C::QueueBindingsFrom | C::ExchangeBindingsFrom => self.bindings_between().await,
            C::BindQueue | C::BindExchange => self.bind().await,
            C::QueueBinding | C::ExchangeBinding => self.binding().await,
            C::UnbindQueue | C::UnbindExchange => self.unbind().await,
            C::Vhosts => self.vhost_list().await,
            C::Vhost => self.vhost().await,
            C::DefineVhost => self.define_vhost().await,
            C::DeleteVhost => self.delete_vhost().await,
            C::VhostPermissions | C::UserPermissions | C::Permissions => self.permissions().await,
            C::VhostTopicPermissions | C::UserTopicPermissions | C::TopicPermissions => {
                self.topic_permissions().await
            }
            C::ProtectVhost => self.protect_vhost(true).await,
            C::UnprotectVhost => self.protect_vhost(false).await,
            C::StartVhost => Ok(Answer::NoContent),
            C::Users => self.users().await,
            C::UsersWithoutPermissions => self.users_without_permissions().await,
            C::DeleteUsers => self.delete_users().await,
            C::User => self.user().await,
            C::DefineUser => self.define_user().await,
            C::DeleteUser => self.delete_user().await,
            C::Permission => self.permission().await,
            C::DefinePermission => self.define_permission().await,
            C::DeletePermission => self.delete_permission().await,
            C::TopicPermission | C::TopicPermissionAt => self.topic_permissions_of().await,
            C::DefineTopicPermission => self.define_topic_permission().await,
            C::DeleteTopicPermission | C::DeleteTopicPermissionAt => {
                self.delete_topic_permissions().await
            }
            C::Parameters | C::ComponentParameters | C::VhostParameters => self.parameters().await,
            C::Parameter | C::GlobalParameter => self.parameter().await,
            C::DefineParameter | C::DefineGlobalParameter => self.define_parameter().await,
            C::DeleteParameter | C::DeleteGlobalParameter => self.delete_parameter().await,
            C::GlobalParameters => self.global_parameters().await,
            C::Policies | C::VhostPolicies => self.policies(false).await,
            C::Policy => self.policy(false).await,
            C::DefinePolicy => self.define_policy(false).await,
            C::DeletePolicy => self.delete_policy(false).await,
            C::OperatorPolicies | C::VhostOperatorPolicies => self.policies(true).await,
            C::OperatorPolicy => self.policy(true).await,
            C::DefineOperatorPolicy => self.define_policy(true).await,
            C::DeleteOperatorPolicy => self.delete_policy(true).await,
            C::VhostLimits | C::LimitsOfVhost => self.vhost_limits().await,
            C::SetVhostLimit => self.set_vhost_limit(true).await,
            C::ClearVhostLimit => self.set_vhost_limit(false).await,
            C::UserLimits | C::LimitsOfUser => self.user_limits().await,
            C::SetUserLimit => self.set_user_limit(true).await,
            C::ClearUserLimit => self.set_user_limit(false).await,
            C::FeatureFlags => Ok(whole::feature_flags()),
            C::DeprecatedFeatures | C::UsedDeprecatedFeatures => {
                Ok(Answer::Json(Value::Array(Vec::new())))
            }
            C::AlivenessTest => self.aliveness_test().await,
            C::HealthNode | C::HealthNodeNamed => self.health_answers().await,
            C::HealthAlarms | C::HealthLocalAlarms => self.health_alarms().await,
            C::HealthCertificates => self.health_certificates(),
            C::HealthPort => self.health_port(),
            C::HealthProtocol => self.health_protocol(),
            C::HealthVhosts
            | C::HealthQuorum
            | C::HealthMirror
            | C::HealthService
            | C::HealthServes
            | C::HealthClusterSize
            | C::HealthMetadata
            | C::HealthMetadataHasData
            | C::HealthLeaders
            | C::HealthLeadersOfPattern
            | C::HealthLeadersOfVhost
            | C::HealthLeadersOfVhostPattern => self.health_answers().await,
            C::HealthConnections => self.health_connections().await,
            C::Rebalance
            | C::EnableFeatureFlag
            | C::Reset
            | C::ResetNode
            | C::ForgetAuthAttempts
            | C::ForgetAuthAttemptsBySource => Ok(Answer::NoContent),
            C::Metrics => self.metrics().await,
            C::MetricsPerObject => self.metrics_per_object().await,
            C::MetricsDetailed => self.metrics_detailed().await,
        }
    }
}
