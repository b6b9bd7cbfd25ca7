//! A cluster of one machine, and the directory of one user who builds on it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::role::{Role, wait_until};
use crate::user;

/// The directory, the programs in it, and the running cluster.
pub struct World {
    // Dropped in this order.
    _roles: Vec<Role>,
    directory: tempfile::TempDir,
    root: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

/// One cluster at a time: its nodes and a parallel build are as much as two processors can bear
/// without missing the deadlines by which nodes notice each other's death.
static TURN: Mutex<()> = Mutex::new(());

impl World {
    /// A cluster whose only node works for itself as for others.
    pub fn start() -> Self {
        Self::with_workers(&[])
    }

    /// A cluster of nodes with these names and of one more, where clients connect, and which works for
    /// itself as for others.
    pub fn with_workers(names: &[&str]) -> Self {
        // A test that failed has left nothing behind that another could find.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().expect("make a directory");
        let root = fs::canonicalize(directory.path()).expect("it is there");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).expect("it is ours");
        for name in ["bin", "home", "tmp", "work"] {
            fs::create_dir(root.join(name)).expect("make a directory");
            user::give(&root.join(name));
        }
        user::give(&root);
        // Cargo's own copy may lie where the user can't go.
        let ice = root.join("bin/ice");
        // By another process: a descriptor of ours could be inherited by what another test is just
        // starting, and then the program would be busy.
        let copied = Command::new("cp")
            .args([Path::new(env!("CARGO_BIN_EXE_ice")), &ice])
            .status();
        assert!(copied.expect("run cp").success());
        let mut world = Self {
            _roles: Vec::new(),
            directory,
            root,
            _turn: turn,
        };
        world.ice(&["key", "create", "--key-file", &world.text("key")]);
        world.ice(&["symlinks", &world.text("links")]);
        world.start_roles(names);
        world
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        let path = self.path(name);
        path.to_str().expect("a plain path").to_owned()
    }

    /// Makes another link to ice in `bin`.
    pub fn link(&self, target: &str, name: &str) {
        symlink(target, self.path("bin").join(name)).expect("make a link");
    }

    /// A shell of the user in `work`, with nothing of ice in its environment but the programs.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .arg("-ec")
            .arg(format!("umask 022\n{script}"))
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.text("bin")))
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("LC_ALL", "C")
            .current_dir(self.path("work"))
            .stdin(Stdio::null());
        user::become_user(&mut command);
        command
    }

    /// The same with the cluster.
    pub fn shell_with_ice(&self, script: &str) -> Command {
        let mut command = self.shell(script);
        command
            .env("ICE_SOCKET", self.path("sock"))
            .env("ICE_JOB_LOG", self.path("jobs"));
        command
    }

    fn ice(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new(self.path("bin/ice"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"));
        user::become_user(&mut command);
        let output = command.output().expect("run ice");
        output.stdout
    }

    fn start_roles(&mut self, names: &[&str]) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let netname = format!("company-{}-{count}", std::process::id());
        let key = self.text("key");
        let [port, first] = [free_port(), free_port()].map(|port| port.to_string());
        let address = format!("127.0.0.1:{port}");
        let within = |options: &[&str]| -> Vec<String> {
            let whole = [options, &["--netname", &netname, "--key-file", &key]].concat();
            whole.into_iter().map(str::to_owned).collect()
        };
        let scheduler = within(&["scheduler", "--alone", "--port", &port]);
        self.start_role("scheduler", &scheduler);
        wait_until("the scheduler listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse().expect("a number"))).is_ok()
        });
        let socket = self.text("sock");
        let cache = self.text("cache");
        let node = ["daemon", "--scheduler", &address, "--interface", "lo", "-v"];
        let here = [
            "--port",
            &first,
            "--loopback",
            "--max-jobs",
            "4",
            "--socket",
            &socket,
            "--cache-dir",
            &cache,
        ];
        self.start_role("daemon", &within(&[&node[..], &here].concat()));
        for name in names {
            let port = free_port().to_string();
            let socket = self.text(&format!("{name}-sock"));
            let cache = self.text(&format!("{name}-cache"));
            let there = [
                "--port",
                &port,
                "--name",
                name,
                "--max-jobs",
                "2",
                "--socket",
                &socket,
                "--cache-dir",
                &cache,
            ];
            self.start_role(name, &within(&[&node[..], &there].concat()));
        }
        let status = within(&["status", "--json", "--scheduler", &address]);
        let status: Vec<&str> = status.iter().map(String::as_str).collect();
        wait_until("the nodes are known", || {
            let said: serde_json::Value =
                serde_json::from_slice(&self.ice(&status)).unwrap_or_default();
            let nodes = said["nodes"].as_array().map_or(0, Vec::len);
            nodes == 1 + names.len() && self.path("sock").exists()
        });
    }

    fn start_role(&mut self, name: &str, arguments: &[String]) {
        let log = File::create(self.path(&format!("{name}.log"))).expect("make a log");
        let mut command = Command::new(self.path("bin/ice"));
        command
            .args(arguments)
            .args(["--with-parent", &std::process::id().to_string()]);
        let role = Role::start(command, &self.path("home"), &self.path("tmp"), log);
        self._roles.push(role);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["scheduler", "daemon", "w1", "w2"] {
                let log = fs::read_to_string(self.path(&format!("{name}.log")));
                let log = log.unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                let end = lines.len().saturating_sub(40);
                eprintln!("{name}:\n{}", lines[end..].join("\n"));
            }
            if std::env::var_os("ICE_COMPANY_KEEP").is_some() {
                self.directory.disable_cleanup(true);
                eprintln!("kept: {}", self.root.display());
            }
        }
    }
}

/// A port that nobody has, with the next one free too.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let next = port.checked_add(1);
        if next.is_some_and(|next| TcpListener::bind((Ipv4Addr::UNSPECIFIED, next)).is_ok()) {
            return port;
        }
    }
}

/// Copies a tree for the user, times included.
pub fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-rp").args([from, to]).status();
    assert!(status.expect("run cp").success());
    give_tree(to);
}

/// Gives a tree to the user.
pub fn give_tree(path: &Path) {
    user::give(path);
    let metadata = fs::symlink_metadata(path).expect("it is there");
    if metadata.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            give_tree(&entry.expect("an entry").path());
        }
    } else if metadata.is_file() && user::is_root() {
        let mode = metadata.permissions().mode() | 0o600;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }
}
