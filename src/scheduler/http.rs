//! The scheduler's page for browsers, its metrics for Prometheus, and whether it is alive, over HTTP.
//!
//! It has no key, so it listens on loopback unless it is told otherwise, and nothing can be changed here. What a
//! browser is talked into by another page must not get at it either: a request must name this place as its host,
//! and no other page may read an answer. Connections, heads and times have bounds; only a stream of events
//! lasts, and only as long as it is read.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use http_body_util::{Either, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use smol::channel::{self, Receiver, Sender};
use smol::future::FutureExt;
use smol::stream::StreamExt;
use smol_hyper::rt::FuturesIo;

use crate::executor;
use crate::key::ClusterKey;
use crate::names;
use crate::reactor::{Async, Timer};
use crate::scheduler::audience::{self, Guest};
use crate::scheduler::election::Role;
use crate::scheduler::metrics;

/// Connections, at most; one more is closed at once.
const CONNECTIONS_MAX: usize = 128;
/// How long a connection may last that is no stream of events.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// The head of a request, at most, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Lines in the head of a request, at most.
const HEADERS_MAX: usize = 64;
/// A dispatcher that does not answer within this time hangs.
const ALIVE_TIME: Duration = Duration::from_secs(2);

/// The page. Its script and style are allowed by a word that is new in each answer, written in this place.
const PAGE: &str = include_str!("page.html");
const NONCE: &str = "@NONCE@";

/// Where the page is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// What this place may be called in a request, beside numeric addresses and `localhost`.
    pub names: Vec<String>,
}

/// The port of the page, unless another is given: the next after the text control's.
const PORT: u16 = 8767;

impl HttpConfig {
    /// The place that a person means by `HOST:PORT`, `[ADDRESS]:PORT`, `HOST` or `:PORT`. Looks the host up.
    ///
    /// # Errors
    /// A sentence.
    pub fn at(text: &str) -> Result<Self, String> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                let port = port.parse();
                (host, port.map_err(|_| format!("{text:?} is no HOST:PORT"))?)
            }
            _ => (text, PORT),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Ok(Self {
                address: (Ipv4Addr::LOCALHOST, port).into(),
                names: Vec::new(),
            });
        }
        let addresses =
            names::host(host, port).map_err(|error| format!("look up {host}: {error}"))?;
        let address = addresses.first().copied();
        Ok(Self {
            address: address.ok_or_else(|| format!("{host} has no address"))?,
            names: vec![host.to_owned()],
        })
    }
}

type Body = Either<Full<Bytes>, StreamBody<smol::stream::Boxed<Result<Frame<Bytes>, Infallible>>>>;

/// What a request needs.
#[derive(Clone, Debug)]
pub struct Desk {
    /// How this place may be called.
    pub names: Vec<String>,
    /// The way to the audience.
    pub guests: Sender<Guest>,
    /// The way to the dispatcher.
    pub requests: Sender<audience::Request>,
}

/// Serves for ever on `listener`.
pub async fn serve(listener: Async<TcpListener>, desk: Desk) {
    // Holds as many as there are connections.
    let (seats, seated) = channel::bounded::<()>(CONNECTIONS_MAX);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if seats.try_send(()).is_err() {
                    log::warn!(
                        "{from} is refused: there are {CONNECTIONS_MAX} readers of the page"
                    );
                    continue;
                }
                let (desk, seated) = (desk.clone(), seated.clone());
                executor::spawn(async move {
                    converse(stream, from, desk).await;
                    let _ = seated.try_recv();
                })
                .detach();
            }
            Err(error) => {
                log::warn!("accept a reader of the page: {error}");
                Timer::after(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: Async<TcpStream>, from: SocketAddr, desk: Desk) {
    let (streaming, streams) = channel::bounded::<Receiver<()>>(1);
    let service = service_fn(|request| answer(request, &desk, &streaming));
    let connection = http1::Builder::new()
        // There is no clock in it: the whole connection has a time instead.
        .keep_alive(false)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(FuturesIo::new(stream), service);
    let served = async {
        if let Err(error) = connection.await {
            log::debug!("{from} at the page: {error}");
        }
    };
    let overdue = async {
        Timer::after(CONNECTION_TIME).await;
        if let Ok(held) = streams.try_recv() {
            // A stream that was let go may be stuck in a write.
            let _ = held.recv().await;
        }
    };
    served.or(overdue).await;
}

async fn answer(
    request: Request<Incoming>,
    desk: &Desk,
    streaming: &Sender<Receiver<()>>,
) -> Result<Response<Body>, Infallible> {
    let mut response = match refusal(&request, desk) {
        Some((status, why)) => text(status, why.to_owned()),
        None => match request.uri().path() {
            "/" => page(),
            "/events" => events(request.method(), desk, streaming).await,
            "/metrics" => metrics(desk).await,
            "/healthz" => health(desk).await,
            _ => text(StatusCode::NOT_FOUND, "there is no such page\n".to_owned()),
        },
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let methods = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, methods);
    }
    Ok(response)
}

/// Why a request gets no answer, if so.
fn refusal(request: &Request<Incoming>, desk: &Desk) -> Option<(StatusCode, &'static str)> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some((
            StatusCode::METHOD_NOT_ALLOWED,
            "there is nothing to be changed here\n",
        ));
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    };
    match host {
        Some(host) if is_here(host, &desk.names) => None,
        Some(_) => Some((
            StatusCode::MISDIRECTED_REQUEST,
            "this host has another name; say --http NAME:PORT if it is to be called so\n",
        )),
        None => Some((StatusCode::BAD_REQUEST, "which host is meant?\n")),
    }
}

/// Whether the header `Host` means this place. A page of a foreign host whose name was made to lead here is
/// told by that name; a numeric address has no name that could be made to lead anywhere.
fn is_here(host: &str, names: &[String]) -> bool {
    let without_port = |host: &str| match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
        _ => host.to_owned(),
    };
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        let is_port = port.is_empty()
            || port
                .strip_prefix(':')
                .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        return is_port && matches!(address.parse(), Ok(IpAddr::V6(_)));
    }
    let name = without_port(host);
    let name = name.strip_suffix('.').unwrap_or(&name);
    matches!(name.parse(), Ok(IpAddr::V4(_)))
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|of| of.eq_ignore_ascii_case(name))
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", text)
}

fn with_type(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn page() -> Response<Body> {
    let nonce = match ClusterKey::random() {
        // Half of it is as hard to guess.
        Ok(random) => random.bytes()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>(),
        Err(error) => {
            log::warn!("random bytes for the page: {error}");
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "there is no randomness\n".to_owned(),
            );
        }
    };
    let html = PAGE.replace(NONCE, &nonce);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = with_type(StatusCode::OK, "text/html; charset=utf-8", html);
    let policy = HeaderValue::try_from(policy).expect("words of ASCII");
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

async fn events(method: &Method, desk: &Desk, streaming: &Sender<Receiver<()>>) -> Response<Body> {
    let content_type = HeaderValue::from_static("text/event-stream");
    let body: Body = match *method {
        Method::HEAD => Either::Left(Full::default()),
        _ => {
            let (seat, ticket) = audience::seat();
            if desk.guests.send(Guest::Events(seat)).await.is_err() {
                return ending();
            }
            // There is one request on each connection, so there is room for it.
            let _ = streaming.try_send(ticket.held);
            let first = Bytes::from_static(b"retry: 1000\n\n");
            let pieces = smol::stream::once(first).chain(ticket.pieces);
            let frames = pieces.map(|piece| Ok(Frame::data(piece)));
            Either::Right(StreamBody::new(frames.boxed()))
        }
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

async fn metrics(desk: &Desk) -> Response<Body> {
    let (reply, rendered) = channel::bounded(1);
    if desk.guests.send(Guest::Metrics(reply)).await.is_err() {
        return ending();
    }
    match rendered.recv().await {
        Ok(text) => with_type(StatusCode::OK, metrics::CONTENT_TYPE, text),
        Err(_) => ending(),
    }
}

async fn health(desk: &Desk) -> Response<Body> {
    let (reply, role) = channel::bounded(1);
    let role = async {
        desk.requests
            .send(audience::Request::Role(reply))
            .await
            .ok()?;
        role.recv().await.ok()
    };
    let late = async {
        Timer::after(ALIVE_TIME).await;
        None
    };
    match role.or(late).await {
        Some(Role::Master(_)) => text(StatusCode::OK, "master\n".to_owned()),
        Some(Role::Standby(at)) => text(StatusCode::OK, format!("standby of {at}\n")),
        Some(Role::Undecided) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "looks for the master\n".to_owned(),
        ),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "hangs\n".to_owned()),
    }
}

fn ending() -> Response<Body> {
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "the scheduler is about to end\n".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_calls_this_place_by_a_name_of_its_own_is_answered() {
        let names = vec!["anvil".to_owned(), "anvil.example.org".to_owned()];
        for (host, is) in [
            ("127.0.0.1:8767", true),
            ("127.0.0.1", true),
            ("10.0.0.9:8767", true),
            ("[::1]:8767", true),
            ("[::1]", true),
            ("localhost:8767", true),
            ("LOCALHOST.", true),
            ("Anvil:8767", true),
            ("anvil.example.org", true),
            ("example.org", false),
            ("127.0.0.1.example.org:8767", false),
            ("localhost.example.org", false),
            ("[::1].example.org", false),
            ("[example.org]", false),
            ("[::1", false),
            ("", false),
            (":8767", false),
        ] {
            assert_eq!(is_here(host, &names), is, "{host}");
        }
    }

    #[test]
    fn a_place_is_a_host_or_a_port_or_both() {
        for (text, address) in [
            ("127.0.0.1:8767", "127.0.0.1:8767"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            (":9000", "127.0.0.1:9000"),
            ("10.0.0.1", "10.0.0.1:8767"),
            ("::1", "[::1]:8767"),
            ("[::1]", "[::1]:8767"),
            ("[::]:9000", "[::]:9000"),
        ] {
            let config = HttpConfig::at(text).expect(text);
            assert_eq!(config.address.to_string(), address, "{text}");
        }
        for text in ["127.0.0.1:", "127.0.0.1:99999", ":x"] {
            HttpConfig::at(text).expect_err(text);
        }
    }

    #[test]
    fn the_page_is_whole_and_loads_nothing_from_elsewhere() {
        for foreign in [
            "http://",
            "https://",
            "//cdn",
            "@import",
            "src=",
            "innerHTML",
            "eval(",
        ] {
            let found = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!found.contains(foreign), "{foreign}");
        }
        assert_eq!(PAGE.matches("<script").count(), 1);
        assert_eq!(PAGE.matches("<style").count(), 1);
        assert_eq!(PAGE.matches(NONCE).count(), 2);
        assert_eq!(PAGE.matches(" style=").count(), 0);
        assert_eq!(PAGE.matches(" onclick=").count(), 0);
    }
}
