//! A cluster of one machine for all cases: a scheduler, and a daemon that sends its own compiles
//! to its own worker, sandbox, wire and all.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::role::{Role, wait_until};
use crate::user;

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Where its daemon listens.
    pub socket: PathBuf,
    // Dropped in this order.
    _daemon: Role,
    _scheduler: Role,
}

impl Cluster {
    /// Starts `ice` as a cluster with all its files in `directory`, which is the user's, and waits
    /// until its scheduler knows its node.
    pub fn start(ice: &Path, directory: &Path) -> Self {
        let key = directory.join("key");
        let mut create = Command::new(ice);
        create.args(["key", "create", "--key-file"]).arg(&key);
        create.env("HOME", directory).stdout(Stdio::null());
        user::become_user(&mut create);
        assert!(create.status().expect("run ice").success());

        let temporary = directory.join("tmp");
        fs::create_dir_all(&temporary).expect("make a directory");
        user::give(&temporary);
        let (port, node_port) = free_ports();
        let address = format!("127.0.0.1:{port}");
        let netname = format!("differential-{}", std::process::id());
        let start = |role: &str, options: &[&str]| {
            let mut command = Command::new(ice);
            command
                .arg(role)
                .args(options)
                .args(["--netname", &netname])
                .args(["--with-parent", &std::process::id().to_string()])
                .arg("--key-file")
                .arg(&key);
            let log = File::create(directory.join(format!("{role}.log")));
            Role::start(command, directory, &temporary, log.expect("make a log"))
        };
        let scheduler = start("scheduler", &["--port", &port.to_string(), "--memory", "-"]);
        wait_until("the scheduler listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        let socket = directory.join("sock");
        let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
        let daemon = start(
            "daemon",
            &[
                "--scheduler",
                &address,
                "--port",
                &node_port.to_string(),
                "--interface",
                "lo",
                "--loopback",
                "--max-jobs",
                "8",
                "--socket",
                &text(&socket),
                "--cache-dir",
                &text(&directory.join("cache")),
                "-v",
            ],
        );
        wait_until("the node is known", || {
            let mut status = Command::new(ice);
            status
                .args(["status", "--json", "--scheduler", &address])
                .args(["--netname", &netname, "--key-file"])
                .arg(&key);
            let output = status.output().expect("run ice");
            let said = serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null);
            said["nodes"]
                .as_array()
                .is_some_and(|nodes| nodes.len() == 1)
                && socket.exists()
        });
        Self {
            socket,
            _daemon: daemon,
            _scheduler: scheduler,
        }
    }
}

/// A port for a scheduler, with the next one free too, and a port for a daemon.
fn free_ports() -> (u16, u16) {
    let any = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    loop {
        let (first, second) = (any(), any());
        let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
        let next = port(&first).checked_add(1);
        if next.is_some_and(|next| TcpListener::bind((Ipv4Addr::UNSPECIFIED, next)).is_ok()) {
            return (port(&first), port(&second));
        }
    }
}
