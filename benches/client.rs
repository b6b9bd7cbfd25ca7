//! What a compiler call costs under ice, beside the same call of the plain compiler.
//!
//! `cargo bench --bench client` starts a cluster of its own on this machine (a scheduler, a worker,
//! a submitter without slots) and prints a table: CPU time of the called process with its
//! children, and wall time, medians over many runs that alternate with the plain compiler's. The
//! ratio is what to look at: a machine's speed drifts, and both see the same drift.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

const ICE: &str = env!("CARGO_BIN_EXE_ice");
const RUNS: usize = 60;

fn main() {
    let directory = tempfile::tempdir().expect("make a directory");
    // A daemon that root starts serves as another user, who has to get in here.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory.path(), open).expect("open the directory");
    fs::write(directory.path().join("empty.c"), "int nothing;\n").expect("write a source");
    let cluster = Cluster::start(directory.path());
    println!(
        "{:34} {:>12} {:>12} {:>8} {:>12} {:>12} {:>9}",
        "call", "plain CPU us", "ice CPU us", "ratio", "plain us", "ice us", "more us"
    );
    cluster.measure("gcc --version (no daemon asked)", &["--version"], &[]);
    cluster.measure(
        "gcc -c, local slot",
        &["-c", "empty.c", "-o", "a.o"],
        &[("ICECC", "no")],
    );
    cluster.measure(
        "gcc -c, no daemon",
        &["-c", "empty.c", "-o", "a.o"],
        &[("ICE_SOCKET", "/nowhere")],
    );
    cluster.measure("gcc -c, remote", &["-c", "empty.c", "-o", "a.o"], &[]);
}

struct Cluster {
    directory: PathBuf,
    socket: PathBuf,
    processes: Vec<Child>,
}

impl Cluster {
    fn start(directory: &Path) -> Self {
        let (scheduler, node) = (free_port(), free_port());
        let address = format!("127.0.0.1:{scheduler}");
        let key = directory.join("key").display().to_string();
        let socket = directory.join("sub.sock");
        let mut cluster = Self {
            directory: directory.to_owned(),
            socket: socket.clone(),
            processes: Vec::new(),
        };
        let place = |name: &str| directory.join(name).display().to_string();
        cluster.spawn(
            "scheduler",
            &["--port", &scheduler.to_string(), "--key-file", &key],
        );
        wait_until(|| Path::new(&key).exists());
        let common = ["--scheduler", &address, "--key-file", &key];
        let (worker_cache, worker_socket) = (place("w"), place("w.sock"));
        let port = node.to_string();
        let worker = [
            "-m",
            "2",
            "-N",
            "worker",
            "--port",
            &port,
            "--cache-dir",
            &worker_cache,
            "--socket",
            &worker_socket,
        ];
        cluster.spawn("daemon", &[&worker[..], &common].concat());
        let (cache, own) = (place("s"), socket.display().to_string());
        let submitter = [
            "-m",
            "0",
            "-N",
            "submitter",
            "--no-remote",
            "--cache-dir",
            &cache,
            "--socket",
            &own,
        ];
        cluster.spawn("daemon", &[&submitter[..], &common].concat());
        wait_until(|| {
            let status = Command::new(ICE)
                .arg("status")
                .args(common)
                .stderr(Stdio::null())
                .output()
                .expect("run ice");
            let text = String::from_utf8_lossy(&status.stdout).into_owned();
            text.contains("workers: 1") && text.contains("submitter")
        });
        cluster
    }

    fn spawn(&mut self, word: &str, options: &[&str]) {
        let mut command = Command::new(ICE);
        command.arg(word).args(options).stdin(Stdio::null());
        self.processes.push(command.spawn().expect("start ice"));
    }

    fn measure(&self, name: &str, arguments: &[&str], variables: &[(&str, &str)]) {
        let call = |program: &str, ice: bool| {
            let mut command = Command::new(program);
            command
                .args(ice.then_some("gcc"))
                .args(arguments)
                .current_dir(&self.directory);
            command
                .env("ICE_SOCKET", &self.socket)
                .envs(variables.iter().copied());
            command.stdout(Stdio::null());
            let (start, before) = (Instant::now(), children_us());
            assert!(
                command.status().expect("run a compiler").success(),
                "{name}"
            );
            (children_us() - before, start.elapsed().as_micros() as i64)
        };
        for _ in 0..3 {
            call("gcc", false);
            call(ICE, true);
        }
        let (mut plain, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            plain.push(call("gcc", false));
            ours.push(call(ICE, true));
        }
        let cpu = |runs: &[(i64, i64)]| median(runs.iter().map(|run| run.0).collect());
        let wall = |runs: &[(i64, i64)]| median(runs.iter().map(|run| run.1).collect());
        println!(
            "{name:34} {:12} {:12} {:8.2} {:12} {:12} {:9}",
            cpu(&plain),
            cpu(&ours),
            cpu(&ours) as f64 / cpu(&plain) as f64,
            wall(&plain),
            wall(&ours),
            wall(&ours) - wall(&plain),
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(process.id() as i32),
                nix::sys::signal::Signal::SIGTERM,
            );
            let _ = process.wait();
        }
    }
}

fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn children_us() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("own usage");
    (usage.user_time() + usage.system_time()).num_microseconds()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("find a port");
    listener.local_addr().expect("its address").port()
}

fn wait_until(mut is_ready: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_ready() {
        assert!(
            Instant::now() < end,
            "the cluster does not start; is there room in {}?",
            env::temp_dir().display()
        );
        thread::sleep(Duration::from_millis(20));
    }
}
