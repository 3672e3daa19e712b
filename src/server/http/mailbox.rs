//! Vega's HTTP interface: mailboxes and their messages, for programs that speak nothing but HTTP.
//!
//! ```text
//! POST   /mailbox/NAME   declare          PUT /mailbox/NAME   push
//! DELETE /mailbox/NAME   abandon          GET /mailbox/NAME   poll: ?wait=10s&lease=5m
//! DELETE /message/ID     ack              PUT /message/ID     nack: ?delay=30s
//!                                         POST /message/ID    extend: ?lease=5m
//! ```
//!
//! Each request is a native session of its own inside the process, so who may do what is decided where it is for everybody.
//! A message that was polled keeps its session until it is settled, or its lease ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, Path};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use pillarbox_native::Code;
use tokio::time::Instant;

use super::super::listener::native_session;
use super::envelope::{self, Envelope, Form};
use super::{Visit, basic, may_come};
use crate::broker::TIME_SPAN_MAX_MS;
use crate::client::{Client, Connect, Delivery, Error, Mailbox, Outcome, Proof, topic_binding};

/// Without `lease` a message is the poller's for so long.
const LEASE: Duration = Duration::from_secs(300);
const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
const DELAY_MAX: Duration = Duration::from_millis(TIME_SPAN_MAX_MS);
/// Messages that pollers hold at the same time; further polls are refused.
const LEASES_MAX: usize = 4096;
/// In base64, and with what goes around it.
const BODY_SIZE_MAX: usize = 64 << 20;

/// Mailboxes that mean something.
const PUBLISH: &str = ":publish";
const SUBSCRIBE: &str = ":subscribe";

/// Messages that were polled and not yet settled.
#[derive(Default)]
pub(crate) struct Leases {
    held: Mutex<HashMap<u128, Lease>>,
}

struct Lease {
    /// Its session: while it lives, nobody else gets the message.
    client: Client,
    delivery: Delivery,
    user: String,
    ends: Instant,
}

pub(super) fn routes() -> Router {
    Router::new()
        .route("/mailbox/{*name}", post(declare).delete(abandon).put(push).get(poll))
        .route("/message/{*id}", delete(ack).put(nack).post(extend))
        .layer(DefaultBodyLimit::max(BODY_SIZE_MAX))
}

/// Why a request is not done.
struct Problem(StatusCode, String);

impl Problem {
    fn wrong(text: impl ToString) -> Self {
        Self(StatusCode::BAD_REQUEST, text.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(status, text) = self;
        let body = serde_json::json!({ "error": text }).to_string();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let basic = HeaderValue::from_static("Basic realm=\"Pillarbox\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match error.code() {
            Some(Code::Invalid) => StatusCode::BAD_REQUEST,
            Some(Code::LoginFailed) => StatusCode::UNAUTHORIZED,
            Some(Code::Forbidden) => StatusCode::FORBIDDEN,
            Some(Code::NotFound) => StatusCode::NOT_FOUND,
            Some(Code::NotAllowed) => StatusCode::METHOD_NOT_ALLOWED,
            Some(Code::InUse) => StatusCode::CONFLICT,
            Some(Code::Precondition) => StatusCode::PRECONDITION_FAILED,
            Some(Code::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Some(Code::Full) => StatusCode::INSUFFICIENT_STORAGE,
            Some(Code::Limit) => StatusCode::TOO_MANY_REQUESTS,
            Some(Code::NotImplemented) => StatusCode::NOT_IMPLEMENTED,
            _ if matches!(error, Error::Topic(_)) => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

async fn declare(
    Extension(visit): Extension<Visit>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (client, _) = session(&visit, &headers).await?;
    if name == PUBLISH || name == SUBSCRIBE {
        return Ok(StatusCode::OK.into_response());
    }
    let declared = client.declare(&Mailbox::durable(&name)).await?;
    Ok(json(serde_json::json!({ "name": declared.name, "ready": declared.ready })))
}

async fn abandon(
    Extension(visit): Extension<Visit>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (client, _) = session(&visit, &headers).await?;
    let messages = client.delete(&name, false, false).await?;
    Ok(json(serde_json::json!({ "name": name, "messages": messages })))
}

async fn push(
    Extension(visit): Extension<Visit>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let (client, _) = session(&visit, &headers).await?;
    let envelope = Envelope::read(content_type(&headers), &body).map_err(Problem::wrong)?;
    let asked = &envelope.0.properties;
    let asked = asked.as_deref().cloned().unwrap_or_default();
    let text = |bytes: Option<Bytes>| String::from_utf8(bytes.unwrap_or_default().into());
    match &*name {
        PUBLISH => {
            let topic = text(asked.correlation_id).map_err(Problem::wrong)?;
            client.publish_topic(&topic, envelope.0).await?;
        }
        SUBSCRIBE => {
            let pattern = text(asked.correlation_id).map_err(Problem::wrong)?;
            let mailbox = text(asked.reply_to).map_err(Problem::wrong)?;
            client.bind(&topic_binding(&pattern, &mailbox)?).await?;
        }
        mailbox => client.push(mailbox, envelope.0).await?,
    }
    Ok(json(serde_json::json!({ "pushed": 1 })))
}

/// The times of a request's query, of which it knows some.
fn times<const COUNT: usize>(
    uri: &Uri,
    known: [&str; COUNT],
) -> Result<[Option<Duration>; COUNT], Problem> {
    let mut times = [None; COUNT];
    let fields = envelope::form(uri.query().unwrap_or_default().as_bytes());
    for (name, value) in fields.map_err(Problem::wrong)?.iter() {
        let Some(at) = known.iter().position(|it| it.as_bytes() == &name[..]) else {
            let (known, name) = (known.join("' and '"), String::from_utf8_lossy(name));
            return Err(Problem::wrong(format!("this takes '{known}', not '{name}'")));
        };
        times[at] = Some(period(value.as_str().unwrap_or_default())?);
    }
    Ok(times)
}

fn lease_time(asked: Option<Duration>) -> Duration {
    asked.unwrap_or(LEASE).min(LEASE_MAX)
}

async fn poll(
    Extension(visit): Extension<Visit>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let [wait, lease] = times(&uri, ["wait", "lease"])?;
    let wait = wait.unwrap_or_default().min(WAIT_MAX);
    let (client, user) = session(&visit, &headers).await?;
    let leases = visit.door.leases.clone();
    if leases.lock().len() >= LEASES_MAX {
        let text = format!("{LEASES_MAX} messages wait for their acks already");
        return Err(Problem(StatusCode::TOO_MANY_REQUESTS, text));
    }
    // A client that goes while it waits drops this, and the session with it: then the message is somebody else's.
    let pulled = client.pull(&name, 1, wait).await?;
    let Some(delivery) = pulled.deliveries.into_iter().next() else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let form = Form::accepted(headers.get(header::ACCEPT).and_then(|it| it.to_str().ok()));
    let mut key = [0; 16];
    getrandom::fill(&mut key)
        .map_err(|error| Problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let key = u128::from_le_bytes(key);
    let (bytes, id) = envelope::write(&delivery, key, form);
    let ends = Instant::now() + lease_time(lease);
    leases.keep(key, Lease { client, delivery, user, ends });
    let kind = HeaderValue::from_static(form.content_type());
    let mut response = ([(header::CONTENT_TYPE, kind)], bytes).into_response();
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("message-id", id);
    }
    Ok(response)
}

async fn ack(
    visit: Extension<Visit>,
    id: Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    settle(visit, id, headers, Outcome::Accepted).await
}

async fn nack(
    visit: Extension<Visit>,
    id: Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let [delay] = times(&uri, ["delay"])?;
    let outcome = match delay {
        Some(delay) => Outcome::Failed { delay: delay.min(DELAY_MAX) },
        None => Outcome::Released,
    };
    settle(visit, id, headers, outcome).await
}

/// The lease begins anew; where the mailbox bounds the time to settle, that does too.
async fn extend(
    Extension(visit): Extension<Visit>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let [lease] = times(&uri, ["lease"])?;
    let (_, user) = session(&visit, &headers).await?;
    let key = key_of(&id).ok_or_else(not_held)?;
    let held = visit.door.leases.extend(key, &user, lease_time(lease)).ok_or_else(not_held)?;
    let (client, delivery) = held;
    client.extend([&delivery]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The last part of an id is the lease's key.
fn key_of(id: &str) -> Option<u128> {
    id.rsplit(':').next().and_then(|it| u128::from_str_radix(it, 16).ok())
}

fn not_held() -> Problem {
    let text = "no such message is held: it was settled, or its lease has ended";
    Problem(StatusCode::NOT_FOUND, text.into())
}

async fn settle(
    Extension(visit): Extension<Visit>,
    Path(id): Path<String>,
    headers: HeaderMap,
    outcome: Outcome,
) -> Result<Response, Problem> {
    let (_, user) = session(&visit, &headers).await?;
    let lease = key_of(&id).and_then(|key| visit.door.leases.take(key, Some(&user)));
    let lease = lease.ok_or_else(not_held)?;
    lease.client.settle([&lease.delivery], outcome).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Lease>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(self: &Arc<Self>, key: u128, lease: Lease) {
        let mut end = lease.ends;
        self.lock().insert(key, lease);
        let leases = Arc::downgrade(self);
        tokio::spawn(async move {
            let lease = loop {
                tokio::time::sleep_until(end).await;
                let Some(leases) = leases.upgrade() else { return };
                let ends = leases.lock().get(&key).map(|lease| lease.ends);
                match ends {
                    Some(later) if later > end => end = later,
                    _ => break leases.take(key, None),
                }
            };
            if let Some(Lease { client, delivery, .. }) = lease {
                // An attempt that came to nothing.
                let failed = Outcome::Failed { delay: Duration::ZERO };
                let _ = client.settle([&delivery], failed).await;
            }
        });
    }

    /// Only by who holds it.
    fn extend(&self, key: u128, user: &str, time: Duration) -> Option<(Client, Delivery)> {
        let mut held = self.lock();
        let lease = held.get_mut(&key).filter(|lease| lease.user == user)?;
        lease.ends = Instant::now() + time;
        Some((lease.client.clone(), lease.delivery.clone()))
    }

    /// Only once, and only by who holds it, or by time.
    fn take(&self, key: u128, user: Option<&str>) -> Option<Lease> {
        let mut held = self.lock();
        let own = held.get(&key).is_some_and(|lease| user.is_none_or(|user| user == lease.user));
        if own { held.remove(&key) } else { None }
    }
}

/// A native session of whoever asks; `guest` where nobody is named.
async fn session(visit: &Visit, headers: &HeaderMap) -> Result<(Client, String), Problem> {
    if !may_come(headers, &visit.door.http) {
        return Err(Problem(StatusCode::FORBIDDEN, "pages of other hosts may not come".into()));
    }
    let (user, password) = match headers.get(header::AUTHORIZATION) {
        None => ("guest".to_owned(), "guest".to_owned()),
        Some(value) => basic(value).ok_or_else(|| {
            Problem(StatusCode::UNAUTHORIZED, "name a user with Basic authorization".into())
        })?,
    };
    let (near, far) = tokio::io::duplex(64 << 10);
    let (door, ends) = (visit.door.clone(), visit.ends.clone());
    visit.door.tasks.spawn(async move { door.converse(far, ends, "http", native_session).await });
    let connect = Connect {
        user: user.clone(),
        proof: Proof::Password(password),
        name: "HTTP".into(),
        ..Connect::default()
    };
    Ok((Client::over(near, &connect).await?, user))
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default()
}

fn json(value: serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// Go's words for a time, as Vega's clients write it: `10s`, `1m30s`, `250ms`; a number alone is seconds.
fn period(text: &str) -> Result<Duration, Problem> {
    let wrong = || Problem::wrong(format!("'{text}' is no time: write 10s, 1m30s or 250ms"));
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|it: char| !it.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|it: char| it.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let part = Duration::from_millis(number.checked_mul(ms).ok_or_else(wrong)?);
        sum = sum.checked_add(part).ok_or_else(wrong)?;
        rest = behind;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("10s", Some(10_000))]
    #[case("1m30s", Some(90_000))]
    #[case("250ms", Some(250))]
    #[case("2h", Some(7_200_000))]
    #[case("7", Some(7000))]
    #[case("s", None)]
    #[case("10x", None)]
    #[case("-1s", None)]
    #[case("99999999999999999999s", None)]
    fn times_are_read_as_go_writes_them(#[case] text: &str, #[case] ms: Option<u64>) {
        let found = period(text).map(|it| it.as_millis() as u64);
        assert_eq!(found.ok(), ms);
    }
}
