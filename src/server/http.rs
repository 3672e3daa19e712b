//! The HTTP listener: RabbitMQ's API, a console, an example page, and websockets that speak STOMP.

mod api;
mod desk;
mod estate;
mod heads;
mod scroll;

mod envelope;
pub(super) mod mailbox;
mod msgpack;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub(super) use self::desk::Desk;
pub(super) use self::estate::{Estate, Parts};
use self::heads::Heads;
use super::listener::{Door, Ends, Sessions};
use super::websocket::Websocket;
use crate::config::WebsocketFrame;
use crate::sessions::Session;
use crate::sessions::stomp::{self, StompSession};

/// A larger head of a request is refused.
const HEAD_SIZE_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 100;
/// Longer values of `Authorization` are no login.
const LOGIN_MAX: usize = 4096;

/// The versions in the order in which they are chosen.
const SUBPROTOCOLS: [&str; 3] = ["v12.stomp", "v11.stomp", "v10.stomp"];

/// Nothing but what this listener serves itself.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Who may come, and how large their messages may be.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Origins of other hosts' pages, in lower case.
    pub(super) origins: Vec<String>,
    /// Names of this host besides `localhost`, in lower case.
    pub(super) hosts: Vec<String>,
    pub(super) head_timeout: Duration,
    /// A message of a websocket.
    pub(super) message_size_max: usize,
    /// How a websocket's client is written to.
    pub(super) frame: WebsocketFrame,
    /// Who a websocket's client is, is said by its request.
    pub(super) login: bool,
    /// The body of a request.
    pub(super) body_size_max: usize,
}

/// What a request is told of its connection.
#[derive(Clone)]
struct Visit {
    ends: Ends,
    door: Door,
    /// The connection's place among all; a websocket takes it over.
    permit: Arc<OwnedSemaphorePermit>,
    admission: Admission,
}

/// Who is let in, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Users.
    Login,
    /// Everybody, to metrics and nothing else.
    Metrics,
    /// This process, which may do everything.
    Inside,
}

/// Answers the requests of one connection until it ends or becomes a websocket.
pub(super) async fn serve<I>(
    socket: I,
    ends: Ends,
    permit: OwnedSemaphorePermit,
    door: Door,
    admission: Admission,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = ends.peer;
    let closed = door.closed.clone();
    let timeout = door.http.head_timeout;
    let visit = Visit { ends, door, permit: Arc::new(permit), admission };
    let routes = match admission {
        Admission::Login => routes(),
        Admission::Metrics | Admission::Inside => Router::new().fallback(api::answer),
    };
    let router = routes.layer(axum::middleware::from_fn(check_host)).layer(Extension(visit));
    let (socket, ambiguous) = Heads::new(socket);
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (router, ambiguous) = (router.clone(), ambiguous.clone());
        async move {
            if ambiguous.is_set() {
                let text = "a length beside chunks: where does the request end?\n";
                let close = [(header::CONNECTION, "close")];
                return Ok((StatusCode::BAD_REQUEST, close, text).into_response());
            }
            let response = tower_call(router, request.map(Body::new)).await;
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(HEAD_SIZE_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "HTTP connection ended");
            }
            return;
        }
        () = closed.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn tower_call(router: Router, request: Request) -> Response {
    use hyper::service::Service;
    let service = hyper_util::service::TowerToHyperService::new(router);
    match service.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn routes() -> Router {
    Router::new()
        .route("/ws", any(websocket))
        .route("/stomp/websocket", any(websocket))
        .route("/examples/stomp", get(page))
        .route("/examples/stomp/chat.js", get(script))
        .route("/examples/stomp/chat.css", get(style))
        .merge(mailbox::routes())
        .route("/", get(console))
        .route("/console.js", get(console_script))
        .route("/console.css", get(console_style))
        .fallback(api::answer)
}

/// A listener that is meant for this machine answers to this machine's names only: pages of other hosts
/// cannot reach it by pointing their own name at it.
async fn check_host(
    Extension(visit): Extension<Visit>,
    request: Request,
    next: axum::middleware::Next,
) -> Response {
    let local = visit.ends.local.ip().to_canonical();
    let mut hosts = request.headers().get_all(header::HOST).into_iter();
    let (host, more) = (hosts.next().and_then(|it| it.to_str().ok()), hosts.next());
    if more.is_some() || (host.is_none() && request.version() == Version::HTTP_11) {
        return (StatusCode::BAD_REQUEST, "no host, or several\n").into_response();
    }
    let known = |host: &str| {
        let name = host_name(host).to_ascii_lowercase();
        is_loopback(&name) || visit.door.http.hosts.contains(&name)
    };
    if local.is_loopback() && !host.is_some_and(known) {
        return (StatusCode::MISDIRECTED_REQUEST, "unknown host\n").into_response();
    }
    next.run(request).await
}

async fn websocket(Extension(visit): Extension<Visit>, mut request: Request) -> Response {
    let upgrade = match check_upgrade(request.method(), request.headers(), &visit.door.http) {
        Ok(upgrade) => upgrade,
        Err(status) => {
            let mut response = status.into_response();
            if status == StatusCode::UPGRADE_REQUIRED {
                let version = HeaderValue::from_static("13");
                response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
            }
            return response;
        }
    };
    let Ok(settings) = stomp_settings(&visit.door, request.headers()) else {
        let wanted = [(header::WWW_AUTHENTICATE, "Basic realm=\"Pillarbox\"")];
        return (StatusCode::UNAUTHORIZED, wanted).into_response();
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let tasks = visit.door.tasks.clone();
    tasks.spawn(async move {
        match upgraded.await {
            Ok(upgraded) => {
                let Settings { message_size_max, frame, .. } = *visit.door.http;
                let io = Websocket::new(TokioIo::new(upgraded), message_size_max, frame).await;
                let session = |facts, _: &Sessions| -> Box<dyn Session> {
                    Box::new(StompSession::new(facts, settings))
                };
                visit.door.converse_as(io, visit.ends, "stomp-websocket", session).await;
            }
            Err(error) => {
                tracing::debug!(peer = %visit.ends.peer, %error, "no websocket after all")
            }
        }
        drop(visit.permit);
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, upgrade.accept);
    if let Some(subprotocol) = upgrade.subprotocol {
        let subprotocol = HeaderValue::from_static(subprotocol);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    response
}

/// Those of a websocket's session. Where its request says who comes, CONNECT does not.
fn stomp_settings(door: &Door, headers: &HeaderMap) -> Result<Arc<stomp::Settings>, NoLogin> {
    let usual = &door.sessions.stomp;
    if !door.http.login {
        return Ok(usual.clone());
    }
    let mut settings = stomp::Settings { forced_login: true, ..stomp::Settings::clone(usual) };
    let mut given = headers.get_all(header::AUTHORIZATION).into_iter();
    if let Some(login) = given.next() {
        let (user, password) = basic(login).ok_or(NoLogin)?;
        (settings.default_login, settings.default_passcode) = (user, password);
    }
    if given.next().is_some() {
        return Err(NoLogin);
    }
    Ok(Arc::new(settings))
}

/// What stands where a login should be is none.
struct NoLogin;

/// User and password of `Authorization: Basic`.
fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let decoded = credentials(value, "basic")?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The secret of a run, in base64.
fn bearer(value: &HeaderValue) -> Option<Vec<u8>> {
    credentials(value, "bearer")
}

fn credentials(value: &HeaderValue, wanted: &str) -> Option<Vec<u8>> {
    if value.len() > LOGIN_MAX {
        return None;
    }
    let (scheme, coded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case(wanted) {
        return None;
    }
    STANDARD.decode(coded.trim()).ok()
}

/// What the answer to a good handshake says.
#[derive(Debug, PartialEq, Eq)]
struct Upgrade {
    accept: HeaderValue,
    subprotocol: Option<&'static str>,
}

/// The rules of a handshake (RFC 6455, 4.2.1), and whose pages may come.
fn check_upgrade(
    method: &Method,
    headers: &HeaderMap,
    settings: &Settings,
) -> Result<Upgrade, StatusCode> {
    if method != Method::GET {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if !may_come(headers, settings) {
        return Err(StatusCode::FORBIDDEN);
    }
    let has = |name, token: &str| tokens(headers, name).any(|it| it.eq_ignore_ascii_case(token));
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err(StatusCode::BAD_REQUEST);
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|it| it != "13") {
        return Err(StatusCode::UPGRADE_REQUIRED);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(StatusCode::BAD_REQUEST)?;
    if !is_key(key.as_bytes()) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| StatusCode::BAD_REQUEST)?;
    let offered = || tokens(headers, header::SEC_WEBSOCKET_PROTOCOL);
    let subprotocol = SUBPROTOCOLS.into_iter().find(|ours| offered().any(|it| it == *ours));
    if subprotocol.is_none() && offered().next().is_some() {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(Upgrade { accept, subprotocol })
}

/// 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let decoded = STANDARD.decode(key);
    decoded.is_ok_and(|bytes| bytes.len() == 16)
}

fn tokens(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Browsers say which page asks; other programs have no page and say nothing.
fn may_come(headers: &HeaderMap, settings: &Settings) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).into_iter();
    let (origin, more) = (origins.next(), origins.next());
    let Some(origin) = origin else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let origin = origin.to_ascii_lowercase();
    if more.is_some() {
        return false;
    }
    if settings.origins.contains(&origin) {
        return true;
    }
    let Some((_, place)) = origin.split_once("://") else { return false };
    let host = headers.get(header::HOST).and_then(|it| it.to_str().ok()).unwrap_or_default();
    place.eq_ignore_ascii_case(host) || is_loopback(host_name(place))
}

/// `[::1]:80` and `localhost:80` without their ports and brackets.
fn host_name(place: &str) -> &str {
    match place.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => place.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|it| it.to_canonical().is_loopback())
}

async fn console() -> Response {
    asset("text/html; charset=utf-8", include_str!("../../assets/console/index.html"))
}

async fn console_script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("../../assets/console/console.js"))
}

async fn console_style() -> Response {
    asset("text/css; charset=utf-8", include_str!("../../assets/console/console.css"))
}

async fn page() -> Response {
    asset("text/html; charset=utf-8", include_str!("../../assets/examples/stomp/index.html"))
}

async fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("../../assets/examples/stomp/chat.js"))
}

async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("../../assets/examples/stomp/chat.css"))
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const GOOD: [(&str, &str); 5] = [
        ("host", "broker.example:15672"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn settings() -> Settings {
        Settings {
            origins: vec!["https://shop.example".into()],
            hosts: Vec::new(),
            head_timeout: Duration::from_secs(1),
            message_size_max: 1,
            frame: WebsocketFrame::Text,
            login: false,
            body_size_max: 1,
        }
    }

    fn checked(changes: &[(&'static str, &'static str)]) -> Result<Upgrade, StatusCode> {
        let mut headers = HeaderMap::new();
        for (name, value) in GOOD.iter().chain(changes) {
            headers.remove(*name);
            if !value.is_empty() {
                headers.insert(*name, HeaderValue::from_static(value));
            }
        }
        check_upgrade(&Method::GET, &headers, &settings())
    }

    #[test]
    fn handshake_is_answered() {
        let upgrade = checked(&[]).expect("everything is there");
        assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(upgrade.subprotocol, None);
    }

    #[rstest]
    #[case("v10.stomp", Some("v10.stomp"))]
    #[case("v10.stomp, v12.stomp,v11.stomp", Some("v12.stomp"))]
    #[case("mqtt, v11.stomp", Some("v11.stomp"))]
    #[case("mqtt", None)]
    fn highest_version_is_chosen(
        #[case] offered: &'static str,
        #[case] chosen: Option<&'static str>,
    ) {
        let upgrade = checked(&[("sec-websocket-protocol", offered)]);
        assert_eq!(upgrade.ok().map(|it| it.subprotocol), chosen.map(Some));
    }

    #[rstest]
    #[case("connection", "", StatusCode::BAD_REQUEST)]
    #[case("upgrade", "h2c", StatusCode::BAD_REQUEST)]
    #[case("sec-websocket-version", "12", StatusCode::UPGRADE_REQUIRED)]
    #[case("sec-websocket-key", "", StatusCode::BAD_REQUEST)]
    #[case("sec-websocket-key", "short", StatusCode::BAD_REQUEST)]
    #[case("origin", "null", StatusCode::FORBIDDEN)]
    #[case("origin", "https://evil.example", StatusCode::FORBIDDEN)]
    #[case("origin", "http://localhost.evil.example", StatusCode::FORBIDDEN)]
    #[case("origin", "http://broker.example", StatusCode::FORBIDDEN)]
    fn bad_handshake_is_refused(
        #[case] name: &'static str,
        #[case] value: &'static str,
        #[case] status: StatusCode,
    ) {
        assert_eq!(checked(&[(name, value)]), Err(status));
    }

    #[rstest]
    #[case("http://broker.example:15672")]
    #[case("https://shop.example")]
    #[case("http://localhost:3000")]
    #[case("http://127.0.0.1")]
    #[case("http://[::1]:8080")]
    fn own_pages_and_listed_ones_may_come(#[case] origin: &'static str) {
        assert!(checked(&[("origin", origin)]).is_ok());
    }
}
