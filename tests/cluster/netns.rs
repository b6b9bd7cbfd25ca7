//! A network of simulated machines: one network namespace for each, joined by a bridge in a namespace of
//! its own, so that nothing touches the real network of the machine.
//!
//! Knows nothing of ice. Names carry the number of this process, so that tests can run side by side and
//! what a killed run left behind is recognised and removed by the next one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::tree;

/// What the names of all namespaces of these tests begin with.
const PREFIX: &str = "icetest";

/// Where `ip` keeps named namespaces.
const NAMED: &str = "/run/netns";

/// One machine's network.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    namespace: String,
    switch: String,
    port: String,
    address: String,
}

/// Machines that reach each other and nothing else. Everything goes when it is dropped.
#[derive(Debug)]
pub struct Network {
    switch: String,
    hosts: Vec<Host>,
}

impl Network {
    /// Machines with these names.
    pub fn new(names: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_leftovers);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}-{}-{count}", std::process::id());
        let switch = format!("{prefix}-switch");
        let hosts = names.iter().enumerate().map(|(index, name)| Host {
            name: (*name).to_owned(),
            namespace: format!("{prefix}-{name}"),
            switch: switch.clone(),
            port: format!("p{index}"),
            address: format!("10.78.{}.{}", count % 250, index + 2),
        });
        // Made before anything exists, so that a failure half-way is cleaned up, too.
        let network = Self {
            switch: switch.clone(),
            hosts: hosts.collect(),
        };
        network.build();
        network
    }

    fn build(&self) {
        let mut names = format!("netns add {}\n", self.switch);
        let mut links = "link add br0 type bridge\nlink set br0 up\nlink set lo up\n".to_owned();
        for host in &self.hosts {
            let Host {
                namespace, port, ..
            } = host;
            names += &format!("netns add {namespace}\n");
            links += &format!("link add {port} type veth peer name eth0 netns {namespace}\n");
            links += &format!("link set {port} master br0\nlink set {port} up\n");
        }
        ip_batch(&[], &names);
        ip_batch(&["-n", &self.switch], &links);
        for host in &self.hosts {
            let address = &host.address;
            let network = address.rsplit_once('.').expect("four numbers").0;
            let commands = format!(
                "link set lo up\n\
                 addr add {address}/24 broadcast {network}.255 dev eth0\n\
                 link set eth0 up\n"
            );
            ip_batch(&["-n", &host.namespace], &commands);
        }
    }

    /// The machine with this name.
    pub fn host(&self, name: &str) -> &Host {
        let host = self.hosts.iter().find(|host| host.name == name);
        host.unwrap_or_else(|| panic!("no machine is called {name}"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &self.hosts {
            remove(&host.namespace);
        }
        remove(&self.switch);
    }
}

impl Host {
    /// Its IPv4 address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Does something on this machine: sockets that are opened and processes that are started
    /// meanwhile are in its network.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        // A network belongs to a thread, and a thread of our own needs no way back.
        let entered = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(self.path()).expect("open the namespace");
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
                action()
            });
            thread.join()
        });
        entered.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Pulls the cable: whatever is sent is lost and nobody is told.
    pub fn unplug(&self) {
        ip(&["-n", &self.switch, "link", "set", &self.port, "down"]);
    }

    fn path(&self) -> PathBuf {
        Path::new(NAMED).join(&self.namespace)
    }
}

/// Whether namespaces can be made here. If not, it says so aloud; with `CI` set that is a failure.
pub fn possible() -> bool {
    static PROBE: std::sync::OnceLock<Result<(), String>> = std::sync::OnceLock::new();
    let probe = PROBE.get_or_init(|| {
        if !nix::unistd::Uid::effective().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        let name = format!("{PREFIX}-{}-probe", std::process::id());
        let output = Command::new("ip").args(["netns", "add", &name]).output();
        let output = output.map_err(|error| format!("run ip: {error}"))?;
        remove(&name);
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    });
    if let Err(why) = probe {
        crate::support::skipped(why);
    }
    probe.is_ok()
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("run ip");
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn ip_batch(options: &[&str], commands: &str) {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run ip");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(commands.as_bytes()).expect("tell ip");
    drop(stdin);
    let output = child.wait_with_output().expect("wait for ip");
    assert!(
        output.status.success(),
        "ip {options:?}: {}\n{commands}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Removes a namespace and kills whatever lives in it; it need not exist.
fn remove(namespace: &str) {
    if !Path::new(NAMED).join(namespace).exists() {
        return;
    }
    let pids = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output();
    let pids = pids.map(|output| output.stdout).unwrap_or_default();
    for pid in String::from_utf8_lossy(&pids).split_whitespace() {
        tree::kill(pid.parse().expect("ip prints numbers"));
    }
    let _ = Command::new("ip")
        .args(["netns", "del", namespace])
        .stderr(Stdio::null())
        .status();
}

/// Removes what runs that are no more have left.
fn remove_leftovers() {
    let names = match fs::read_dir(NAMED) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => panic!("{NAMED}: {error}"),
    };
    for name in names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let owner = rest.trim_start_matches('-').split('-').next();
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}
