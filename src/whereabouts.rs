//! From what a user says of a scheduler, or does not say, to a connection.
//!
//! Names are looked up, or the network is asked; several addresses are tried side by side, since one that is
//! switched off answers nothing at all. Which of the schedulers is the master is theirs to say.

use std::net::SocketAddr;
use std::time::Duration;

use crate::reactor::Timer;
use smol::channel;
use smol::future::FutureExt;

use crate::connection::Connection;
use crate::discover::{self, Seal};
use crate::executor;
use crate::key::Credentials;
use crate::names;
use crate::threads;

/// Where a scheduler listens, TCP and UDP, unless it is told otherwise; icecream's port.
pub const SCHEDULER_PORT: u16 = 8765;

/// The next address gets its chance after so long.
const STAGGER: Duration = Duration::from_millis(150);
/// Addresses that are tried, at most.
const ADDRESSES_MAX: usize = 32;

/// Where the schedulers of a cluster may be: those of these names, or with none (or only a port: `:PORT`) those that
/// answer in the network within `wait`, the master first. The error is a sentence.
pub async fn locate(
    names: &[String],
    credentials: &Credentials,
    netname: &str,
    wait: Duration,
) -> Result<Vec<SocketAddr>, String> {
    let seal = Seal::new(credentials.datagram_key(), netname);
    let nothing = [String::new()];
    let names = if names.is_empty() { &nothing } else { names };
    let mut found = Vec::new();
    let mut why = String::new();
    for name in names {
        let (host, port) =
            host_and_port(name).ok_or_else(|| format!("{name:?} is not HOST or HOST:PORT"))?;
        let addresses = match host {
            "" => ask(&seal, netname, port, wait).await,
            host => look_up(host, port).await,
        };
        match addresses {
            Ok(addresses) => found.extend(addresses),
            Err(error) => why = error,
        }
    }
    match found.is_empty() {
        true => Err(why),
        false => Ok(found),
    }
}

async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let name = host.to_owned();
    let found = threads::unblock(move || names::host(&name, port)).await;
    match found {
        Ok(addresses) if addresses.is_empty() => Err(format!("{host} has no address")),
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(format!("look up {host}: {error}")),
    }
}

async fn ask(
    seal: &Seal,
    netname: &str,
    port: u16,
    wait: Duration,
) -> Result<Vec<SocketAddr>, String> {
    match discover::find(seal, port, wait).await {
        Ok(found) if found.is_empty() => Err(format!(
            "no scheduler of {netname:?} answers on UDP port {port}"
        )),
        Ok(found) => Ok(found.into_iter().map(|found| found.address).collect()),
        Err(error) => Err(format!("ask for a scheduler: {error}")),
    }
}

/// A connection to the first of these that answers, each within `timeout`. The error is a sentence about the last one.
pub async fn reach(
    addresses: &[SocketAddr],
    credentials: &Credentials,
    timeout: Duration,
) -> Result<Connection, String> {
    let (sender, results) = channel::unbounded();
    let attempts = addresses.iter().take(ADDRESSES_MAX).enumerate();
    let _attempts: Vec<_> = attempts
        .map(|(number, &address)| {
            let (sender, credentials) = (sender.clone(), credentials.clone());
            executor::spawn(async move {
                Timer::after(STAGGER * number as u32).await;
                let connected = Connection::connect(address, &credentials, timeout).await;
                let _ = sender.try_send((address, connected));
            })
        })
        .collect();
    drop(sender);
    let mut why = "there is no address to connect to".to_owned();
    while let Ok((address, connected)) = results.recv().await {
        match connected {
            Ok(connection) => return Ok(connection),
            Err(error) => why = format!("connect to the scheduler at {address}: {error}"),
        }
    }
    Err(why)
}

/// The same within `timeout` for all together.
pub async fn reach_within(
    addresses: &[SocketAddr],
    credentials: &Credentials,
    timeout: Duration,
) -> Result<Connection, String> {
    let late = async {
        Timer::after(timeout).await;
        Err(format!("no scheduler answers within {timeout:?}"))
    };
    reach(addresses, credentials, timeout).or(late).await
}

/// Splits `HOST`, `HOST:PORT`, `[V6]:PORT`, `[V6]`, a bare IPv6 address, or `:PORT` with its empty host; the
/// port is [`SCHEDULER_PORT`] where none is named.
pub fn host_and_port(text: &str) -> Option<(&str, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok()?)),
            None => rest.is_empty().then_some((host, SCHEDULER_PORT)),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Some((text, SCHEDULER_PORT)),
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((text, SCHEDULER_PORT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_is_named_with_or_without_port() {
        for (text, expect) in [
            ("build", Some(("build", 8765))),
            ("build:99", Some(("build", 99))),
            ("10.0.0.1:99", Some(("10.0.0.1", 99))),
            ("::1", Some(("::1", 8765))),
            ("[::1]", Some(("::1", 8765))),
            ("[::1]:99", Some(("::1", 99))),
            ("", Some(("", 8765))),
            (":99", Some(("", 99))),
            ("build:", None),
            ("build:port", None),
            ("build:65536", None),
            ("[::1", None),
            ("[::1]99", None),
        ] {
            assert_eq!(host_and_port(text), expect, "{text}");
        }
    }

    #[test]
    fn one_that_answers_is_reached_beside_some_that_do_not() {
        use crate::reactor::Async;
        use std::net::TcpListener;
        executor::block_on(async {
            let listen = || Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
            // One is closed, one accepts and says nothing, one is what is looked for.
            let closed = listen().get_ref().local_addr().unwrap();
            let (mute, good) = (listen(), listen());
            let addresses = [closed, mute.get_ref().local_addr().unwrap(), {
                good.get_ref().local_addr().unwrap()
            }];
            let limit = Duration::from_secs(20);
            let serve = async {
                let (stream, _) = good.accept().await.unwrap();
                Connection::accept(stream, &Credentials::Open, limit).await
            };
            let reach = reach(&addresses, &Credentials::Open, limit);
            let (reached, served) = smol::future::zip(reach, serve).await;
            assert_eq!(reached.unwrap().peer(), addresses[2]);
            assert!(served.is_ok());
        });
    }
}
