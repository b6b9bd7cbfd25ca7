//! The scheduler's ports, and the tasks behind them.
//!
//! One task owns the core (`dispatcher`). Connections become peers only after handshake and first
//! message (`door`). The others, each a task of its own and each known to the dispatcher by a channel only: the
//! herald, who takes part in elections; the text port; the page and its audience.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;

use smol::channel;

use crate::discover::{Seal, Sockets};
use crate::executor;
use crate::key::Credentials;
use crate::reactor::Async;
use crate::scheduler::audience;
use crate::scheduler::dispatcher::{Callers, Dispatcher};
use crate::scheduler::door::admit;
use crate::scheduler::herald::{self, HeraldConfig};
use crate::scheduler::http::{self, Desk, HttpConfig};
use crate::scheduler::memory::Keeper;
use crate::scheduler::peers::Peers;
use crate::scheduler::policy::Algorithm;
use crate::scheduler::text_port;

/// Events that wait for the core, at most; then the readers wait.
const INPUTS_MAX: usize = 1024;
/// Words between the dispatcher and each of the others, at most.
const WISHES_MAX: usize = 64;

/// What a scheduler is told at its start.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// TCP and UDP port; 0 for any, which only tests want.
    pub port: u16,
    /// The cluster's name.
    pub netname: String,
    /// Who may connect.
    pub credentials: Credentials,
    /// The address to listen on; unspecified for all.
    pub bind: IpAddr,
    /// How nodes are chosen.
    pub algorithm: Algorithm,
    /// Where what was learned is kept; none to forget it.
    pub memory: Option<PathBuf>,
    /// Other schedulers of the cluster that may be out of a broadcast's reach: host and port.
    pub others: Vec<(String, u16)>,
    /// Whether it serves whoever connects, even when another scheduler is the master.
    pub is_persistent: bool,
    /// Where the text port listens, on the port after `port`; none for nowhere.
    pub control: Option<IpAddr>,
    /// Whether there are no other schedulers and nobody has to find this one.
    pub alone: bool,
    /// Where the page is served; none for nowhere.
    pub http: Option<HttpConfig>,
    /// Whether monitors of icecream may look on, at `port`.
    pub icecream_monitors: bool,
}

/// A scheduler that listens.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    listener: Async<TcpListener>,
    discovery: Option<Sockets>,
    control: Option<Async<TcpListener>>,
    http: Option<Async<TcpListener>>,
    address: SocketAddr,
}

/// Runs a scheduler until `stop` is ready. Errors: a port can't be had, and which.
pub async fn serve(config: ServerConfig, stop: impl Future<Output = ()>) -> io::Result<()> {
    let server = Server::bind(config)?;
    crate::background::serves()?;
    server.run(stop).await;
    Ok(())
}

impl Server {
    /// Takes the ports. Without the UDP port the scheduler works, and is not found by itself.
    pub fn bind(config: ServerConfig) -> io::Result<Self> {
        let listen = |at: SocketAddr| {
            let listener = Async::<TcpListener>::bind(at);
            listener
                .map_err(|error| io::Error::new(error.kind(), format!("listen at {at}: {error}")))
        };
        let listener = listen((config.bind, config.port).into())?;
        let http = config.http.as_ref();
        let http = http.map(|http| listen(http.address)).transpose()?;
        let address = listener.get_ref().local_addr()?;
        let discovery = match config.alone {
            true => None,
            false => Sockets::listen(address.port())
                .inspect_err(|error| {
                    log::warn!(
                        "listen on UDP port {}: {error}; nodes must be told where this scheduler is, \
                         and there must be no other",
                        address.port()
                    );
                })
                .ok(),
        };
        let control = config.control.and_then(|ip| {
            let at = SocketAddr::new(ip, address.port().checked_add(1)?);
            Async::<TcpListener>::bind(at)
                .inspect_err(|error| log::warn!("no text port: listen at {at}: {error}"))
                .ok()
        });
        Ok(Self {
            config,
            listener,
            discovery,
            control,
            http,
            address,
        })
    }

    /// Where the page is served, if it is.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref()?.get_ref().local_addr().ok()
    }

    /// Who may connect.
    pub fn credentials(&self) -> &Credentials {
        &self.config.credentials
    }

    /// Whether the text port could be had.
    pub fn has_text_port(&self) -> bool {
        self.control.is_some()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready; then every connection ends.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            config,
            listener,
            discovery,
            control,
            http,
            address,
        } = self;
        log::info!("scheduler of {:?} listens on {address}", config.netname);
        let (wishes, wished) = channel::bounded(WISHES_MAX);
        let (telling, news) = channel::bounded(WISHES_MAX);
        let herald = match discovery {
            Some(sockets) => {
                let config = HeraldConfig {
                    seal: Seal::new(config.credentials.datagram_key(), &config.netname),
                    port: address.port(),
                    is_persistent: config.is_persistent,
                    others: config.others,
                };
                executor::spawn(async move {
                    if let Err(error) = herald::run(config, sockets, wished, telling).await {
                        log::error!("take part in the election of a scheduler: {error}");
                    }
                })
            }
            None => executor::spawn(herald::run_alone(wished, telling)),
        };
        // The dispatcher ends with the first caller that is gone, so of those that need not be there one end
        // is held here.
        let (asking, requests) = channel::bounded(WISHES_MAX);
        let text_port =
            control.map(|listener| executor::spawn(text_port::serve(listener, asking.clone())));
        let (wanting, wants) = channel::bounded(WISHES_MAX);
        let (guests, coming) = audience::door();
        let has_audience = http.is_some() || config.icecream_monitors;
        let page = http.map(|listener| {
            let desk = Desk {
                names: config.http.map(|http| http.names).unwrap_or_default(),
                guests: guests.clone(),
                requests: wanting.clone(),
            };
            executor::spawn(http::serve(listener, desk))
        });
        let (shown, audience) = match has_audience {
            true => {
                let (shown, seen) = channel::bounded(WISHES_MAX);
                let audience = audience::run(seen, wanting.clone(), coming);
                (Some(shown), Some(executor::spawn(audience)))
            }
            false => (None, None),
        };
        let (heard, inputs) = channel::bounded(INPUTS_MAX);
        let guests = config.icecream_monitors.then_some(guests);
        let door = executor::spawn(admit(listener, config.credentials, heard.clone(), guests));
        let dispatcher = Dispatcher::new(
            config.netname,
            config.algorithm,
            Keeper::new(config.memory),
            Peers::new(heard),
            wishes,
            shown,
        );
        let callers = Callers {
            inputs,
            news,
            requests,
            wants,
        };
        dispatcher.run(callers, stop).await;
        drop((door, herald, text_port, asking, page, audience, wanting));
    }
}
