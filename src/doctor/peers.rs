//! Looks at key, daemon, scheduler and nodes, as any other of them would.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use smol::future::FutureExt;

use super::facts::{
    DaemonFacts, DaemonState, KeyFacts, KeyState, NodeFacts, Reach, SchedulerFacts, SchedulerState,
};
use crate::client::Variables;
use crate::client::socket::{self, SubmitterError};
use crate::clock;
use crate::config::DaemonConfig;
use crate::connection::{Connection, ConnectionError};
use crate::discover::{self, Seal};
use crate::executor;
use crate::key::{ClusterKey, Credentials, KeyError};
use crate::message::{Answer, Call, CallKind, PROTOCOL};
use crate::reactor::{Async, Timer};
use crate::sight;
use crate::status;
use crate::whereabouts::{self, SCHEDULER_PORT};

/// A daemon answers a client within this time, or the client compiles by itself.
const DAEMON_PATIENCE: Duration = Duration::from_secs(1);
/// How long broadcasts are listened for.
const DISCOVERY: Duration = Duration::from_millis(1500);
/// How long a port may take: a lost packet is repeated within it.
const KNOCK: Duration = Duration::from_secs(3);
/// How long a daemon that runs may need to be let in by the scheduler: it listens for broadcasts, and it tries again.
const JOINING: Duration = Duration::from_secs(8);
/// Between two looks whether it has been let in.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// The key, and what it is good for.
pub(super) fn key(config: &DaemonConfig) -> (KeyFacts, Option<Credentials>) {
    let cluster = &config.cluster;
    let mut facts = KeyFacts {
        is_open: cluster.open,
        file: cluster.key_file.clone(),
        state: KeyState::Missing,
        mode: 0o600,
    };
    if cluster.open {
        return (facts, Some(Credentials::Open));
    }
    if let Ok(metadata) = std::fs::metadata(&cluster.key_file) {
        facts.mode = metadata.mode() & 0o7777;
        if metadata.uid() == 0 && metadata.gid() != 0 {
            // It is meant so: a package's scheduler is not root, and has a group that may read root's key.
            facts.mode &= !0o040;
        }
    }
    match ClusterKey::read(&cluster.key_file) {
        Ok(key) => {
            facts.state = KeyState::Read(key.fingerprint().to_string());
            (facts, Some(Credentials::Key(key.into())))
        }
        Err(error) => {
            facts.state = match error {
                KeyError::None(_) => KeyState::Missing,
                KeyError::File { source, .. } => KeyState::Unreadable(source.to_string()),
                KeyError::Malformed(_) => KeyState::Malformed,
            };
            (facts, None)
        }
    }
}

/// The daemon, as a client finds it. Blocks, for two seconds at most.
pub(super) fn daemon(variables: &Variables) -> DaemonFacts {
    let places = socket::places(variables);
    let mut state = DaemonState::Absent;
    for place in &places {
        let deadline = Instant::now() + DAEMON_PATIENCE;
        match socket::reach(std::slice::from_ref(place), deadline) {
            Ok(submitter) => {
                state = talk(submitter, place);
                break;
            }
            Err(SubmitterError::Silent) => {
                state = DaemonState::Silent(place.clone());
                break;
            }
            Err(_) => {
                let refusal = UnixStream::connect(place).map(drop);
                let is_forbidden =
                    |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
                if refusal.as_ref().is_err_and(is_forbidden) && state == DaemonState::Absent {
                    // Another may be usable.
                    state = DaemonState::Forbidden(place.clone());
                }
            }
        }
    }
    DaemonFacts {
        places,
        state,
        user: 0,
    }
}

/// Makes a call that asks for nothing but a local slot, and gives that back.
fn talk(mut submitter: socket::Submitter, place: &Path) -> DaemonState {
    let deadline = Instant::now() + DAEMON_PATIENCE;
    let call = Call {
        protocol: PROTOCOL,
        kind: CallKind::Local,
        compiler: "/bin/true".into(),
        argv: vec!["true".into()],
        cwd: "/".into(),
        env: Vec::new(),
        umask: 0o022,
        terminal: None,
        niceness: 0,
        sight: sight::look(Path::new("/"), Path::new("/bin/true")),
    };
    let place = place.to_owned();
    let sent = submitter.send(&call, deadline);
    match sent.and_then(|()| submitter.answer(Some(deadline))) {
        Ok(Answer::Accepted) => {}
        Err(SubmitterError::Silent) => return DaemonState::Silent(place),
        Ok(_) => return DaemonState::OtherVersion(place, "it answers something else".into()),
        Err(error) => return DaemonState::OtherVersion(place, error.to_string()),
    }
    // All slots may be taken; then there is no second answer in time, and that is fine.
    if let Ok(Answer::Local { report }) = submitter.answer(Some(deadline))
        && let Some((word, sentence)) = report.reason
    {
        match &word[..] {
            "other-version" => return DaemonState::OtherVersion(place, sentence),
            "other-files" => return DaemonState::OtherFiles(place),
            _ => {}
        }
    }
    let owner = UnixStream::connect(&place)
        .and_then(|stream| Ok(getsockopt(&stream, sockopt::PeerCredentials)?.uid()));
    DaemonState::Answers(place, owner.unwrap_or_default())
}

/// What is said of the scheduler before anybody is asked.
pub(super) fn named(config: &DaemonConfig) -> SchedulerFacts {
    let names = &config.schedulers;
    let port = names
        .first()
        .and_then(|name| whereabouts::host_and_port(name))
        .map_or(SCHEDULER_PORT, |(_, port)| port);
    let host = || nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    SchedulerFacts {
        named: names.clone(),
        port,
        netname: config.cluster.netname.clone(),
        name: (config.name.clone()).unwrap_or_else(|| host().unwrap_or_default()),
        ..SchedulerFacts::default()
    }
}

/// The scheduler: by name, by broadcast, and what it says.
pub(super) async fn scheduler(config: &DaemonConfig, credentials: &Credentials) -> SchedulerFacts {
    let mut facts = named(config);
    let seal = Seal::new(credentials.datagram_key(), &facts.netname);
    let port = facts.port;
    let asking = executor::spawn(async move { discover::find(&seal, port, DISCOVERY).await });
    let is_named = |name: &String| !name.starts_with(':');
    let found = match facts.named.iter().any(is_named) {
        true => whereabouts::locate(&facts.named, credentials, &facts.netname, DISCOVERY).await,
        false => Ok(Vec::new()),
    };
    let discovered = asking.await;
    match &discovered {
        Ok(found) => {
            let addresses = found.iter().map(|found| plain(found.address).to_string());
            facts.discovered = addresses.collect();
        }
        Err(error) => facts.unasked = Some(error.to_string()),
    }
    let addresses = match found {
        Err(why) => {
            facts.state = SchedulerState::NotFound(why);
            return facts;
        }
        Ok(found) if !found.is_empty() => found,
        Ok(_) => (discovered.into_iter().flatten())
            .map(|found| found.address)
            .collect(),
    };
    if addresses.is_empty() {
        facts.state = nowhere(&facts, credentials).await;
        return facts;
    }
    let addresses: Vec<SocketAddr> = addresses.into_iter().map(plain).collect();
    facts.state = best(&addresses, credentials).await;
    ask(&mut facts, &addresses, credentials).await;
    facts
}

/// Asks the scheduler that answers what it knows.
async fn ask(facts: &mut SchedulerFacts, addresses: &[SocketAddr], credentials: &Credentials) {
    if !matches!(facts.state, SchedulerState::Answers(_)) {
        return;
    }
    let began = Instant::now();
    match status::fetch(addresses, credentials).await {
        Ok(status) => {
            facts.clock = (clock::now_ms(), began.elapsed().as_millis() as u64);
            facts.own_nodes = own_nodes(facts, &status);
            facts.status = Some(status);
        }
        Err(error) => {
            let address = addresses[0].to_string();
            facts.state = SchedulerState::Unreached(address, Reach::Other(error.to_string()));
        }
    }
}

/// Asks the scheduler again until it has a node of this machine, or has had the time to get it: a daemon that has just
/// been started serves its clients before it has found the scheduler, and nothing is wrong with that.
pub(super) async fn await_joining(facts: &mut SchedulerFacts, credentials: &Credentials) {
    let SchedulerState::Answers(address) = &facts.state else {
        return;
    };
    let Ok(address) = address.parse::<SocketAddr>() else {
        return;
    };
    let began = Instant::now();
    while facts.own_nodes.is_empty() && began.elapsed() < JOINING {
        Timer::after(BETWEEN_LOOKS).await;
        ask(facts, &[address], credentials).await;
    }
}

/// Why a broadcast brought nothing: one with another key does not answer it, but says so over TCP. Only this machine
/// can be asked so.
async fn nowhere(facts: &SchedulerFacts, credentials: &Credentials) -> SchedulerState {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, facts.port));
    match knock(&here.to_string(), credentials).await {
        reach @ Reach::OtherKey(_) => SchedulerState::Unreached(here.to_string(), reach),
        _ => SchedulerState::NotFound(format!(
            "no scheduler of {:?} with this key answers a broadcast to UDP port {}",
            facts.netname, facts.port
        )),
    }
}

/// The first that answers, or what is wrong with the one that can be said most of.
async fn best(addresses: &[SocketAddr], credentials: &Credentials) -> SchedulerState {
    let tries: Vec<_> = addresses
        .iter()
        .map(|address| {
            let (address, credentials) = (address.to_string(), credentials.clone());
            executor::spawn(async move {
                let reach = knock(&address, &credentials).await;
                (address, reach)
            })
        })
        .collect();
    let mut worst: Option<(u8, String, Reach)> = None;
    for tried in tries {
        let (address, reach) = tried.await;
        let telling = match &reach {
            Reach::Reached => return SchedulerState::Answers(address),
            Reach::OtherKey(_) => 4,
            Reach::Other(_) => 3,
            Reach::Refused => 2,
            Reach::Silent => 1,
            Reach::NoRoute(_) => 0,
        };
        if worst.as_ref().is_none_or(|(most, ..)| telling > *most) {
            worst = Some((telling, address, reach));
        }
    }
    match worst {
        Some((_, address, reach)) => SchedulerState::Unreached(address, reach),
        None => SchedulerState::NotFound("there is no address to try".into()),
    }
}

/// What comes of knocking at an address: first as anybody, then with the key.
pub(super) async fn knock(address: &str, credentials: &Credentials) -> Reach {
    let Ok(address) = address.parse::<SocketAddr>() else {
        return Reach::NoRoute(format!("{address:?} is no address"));
    };
    let late = async {
        Timer::after(KNOCK).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let connected: io::Result<Async<TcpStream>> =
        Async::<TcpStream>::connect(address).or(late).await;
    // What has only knocked must not stand in the way of what wants to come in.
    if let Err(error) = connected.map(drop) {
        return unreached(&error);
    }
    match Connection::connect(address, credentials, KNOCK).await {
        Ok(_) => Reach::Reached,
        Err(error) => unwelcome(error),
    }
}

fn unreached(error: &io::Error) -> Reach {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Reach::Refused,
        io::ErrorKind::TimedOut => Reach::Silent,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Reach::NoRoute(error.to_string())
        }
        _ => Reach::Other(error.to_string()),
    }
}

fn unwelcome(error: ConnectionError) -> Reach {
    match error {
        ConnectionError::OtherKey { .. } | ConnectionError::OpenMismatch(_) => {
            Reach::OtherKey(error.to_string())
        }
        ConnectionError::Timeout(_) => Reach::Other(format!(
            "it takes connections and says nothing within {KNOCK:?}"
        )),
        error => Reach::Other(error.to_string()),
    }
}

/// The names in the scheduler's list that are on this machine.
fn own_nodes(facts: &SchedulerFacts, status: &crate::message::Status) -> Vec<String> {
    let SchedulerState::Answers(scheduler) = &facts.state else {
        return Vec::new();
    };
    let own = own_addresses();
    let is_own = |address: &str| {
        let ip = address.parse::<SocketAddr>().ok()?.ip().to_canonical();
        match ip.is_loopback() {
            // It is where the scheduler is.
            true => {
                let scheduler = scheduler.parse::<SocketAddr>().ok()?.ip().to_canonical();
                Some(scheduler.is_loopback() || own.contains(&scheduler))
            }
            false => Some(own.contains(&ip)),
        }
    };
    let mut names: Vec<String> = (status.nodes.iter())
        .filter(|node| is_own(&node.address) == Some(true))
        .map(|node| node.name.clone())
        .collect();
    // Behind an address translation the scheduler sees another address.
    if names.is_empty() && status.nodes.iter().any(|node| node.name == facts.name) {
        names.push(facts.name.clone());
    }
    names
}

fn own_addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address
            .as_sockaddr_in()
            .map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|address| IpAddr::V6(address.ip()))
        })
    });
    addresses.collect()
}

/// The nodes of the scheduler's list that are not on this machine, to be tried.
pub(super) fn others(facts: &SchedulerFacts) -> Vec<NodeFacts> {
    let SchedulerState::Answers(scheduler) = &facts.state else {
        return Vec::new();
    };
    let scheduler = scheduler.parse::<SocketAddr>().ok();
    let nodes = facts.status.iter().flat_map(|status| &status.nodes);
    nodes
        .filter(|node| !facts.own_nodes.contains(&node.name))
        .map(|node| {
            // A node on the scheduler's machine is known there by an address that means another machine here.
            let address = node.address.parse::<SocketAddr>().ok().map(plain);
            let address = match (address, scheduler) {
                (Some(address), Some(scheduler)) if address.ip().is_loopback() => {
                    SocketAddr::new(scheduler.ip(), address.port()).to_string()
                }
                (Some(address), _) => address.to_string(),
                (None, _) => node.address.clone(),
            };
            NodeFacts {
                name: node.name.clone(),
                address,
                reach: Reach::Reached,
                trial: None,
            }
        })
        .collect()
}

/// An IPv4 address as such, where a socket for both families has it as an IPv6 address.
fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        // With its interface.
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::facts::healthy;
    use super::*;
    use crate::message::{FromScheduler, NodeStatus, Status, ToScheduler};

    #[test]
    fn what_is_wrong_with_a_port_is_told_apart() {
        executor::block_on(async {
            let ours = Credentials::Key(ClusterKey::from_bytes([1; 32]).into());
            let theirs = Credentials::Key(ClusterKey::from_bytes([2; 32]).into());
            let listen = || Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
            let at = |listener: &Async<TcpListener>| {
                listener.get_ref().local_addr().unwrap().to_string()
            };
            // Nobody has this port any more.
            let closed = at(&listen());
            assert_eq!(knock(&closed, &ours).await, Reach::Refused);
            // The kernel takes connections for one that never looks at them.
            let frozen = listen();
            let reach = knock(&at(&frozen), &ours).await;
            assert!(
                matches!(&reach, Reach::Other(why) if why.contains("says nothing")),
                "{reach:?}"
            );
            for (credentials, expect) in [(ours.clone(), true), (theirs, false)] {
                let door = listen();
                let address = at(&door);
                let _host = executor::spawn(async move {
                    while let Ok((stream, _)) = door.accept().await {
                        // Most of them only knock.
                        let _ = Connection::accept(stream, &credentials, KNOCK).await;
                    }
                });
                let reach = knock(&address, &ours).await;
                match expect {
                    true => assert_eq!(reach, Reach::Reached),
                    false => assert!(matches!(reach, Reach::OtherKey(_)), "{reach:?}"),
                }
            }
        });
    }

    #[test]
    fn a_daemon_that_has_yet_to_be_let_in_is_waited_for() {
        executor::block_on(async {
            let credentials = Credentials::Key(ClusterKey::from_bytes([1; 32]).into());
            let door = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
            let address = door.get_ref().local_addr().unwrap();
            let theirs = credentials.clone();
            let known = healthy().scheduler.status.unwrap();
            let own = NodeStatus {
                address: "127.0.0.1:10245".into(),
                ..known.nodes[0].clone()
            };
            let name = own.name.clone();
            let _scheduler = executor::spawn(async move {
                // The node comes between the second look and the third.
                for look in 0.. {
                    let (stream, _) = door.accept().await.unwrap();
                    let connection = Connection::accept(stream, &theirs, KNOCK).await.unwrap();
                    let (mut sender, mut receiver) = connection.split();
                    let _: Option<ToScheduler> = receiver.receive().await.unwrap();
                    let mut status = Status::default();
                    if look >= 2 {
                        status.nodes.push(own.clone());
                    }
                    let answer = FromScheduler::Status(status);
                    sender.send(&answer).await.unwrap();
                }
            });
            let mut facts = SchedulerFacts {
                state: SchedulerState::Answers(address.to_string()),
                ..SchedulerFacts::default()
            };
            ask(&mut facts, &[address], &credentials).await;
            assert!(facts.own_nodes.is_empty());
            await_joining(&mut facts, &credentials).await;
            assert_eq!(facts.own_nodes, [name]);
        });
    }
}
