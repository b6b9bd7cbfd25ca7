//! Where a job's CPU time and bytes go, on the submitter and on the worker: `cargo bench --bench job`.
//!
//! Starts a cluster on this machine (a scheduler, a submitter that compiles nothing, a worker) and
//! compiles a project in C and one in C++ with debug information, one file after the other, each
//! also by the plain compiler just before: a machine's speed drifts, and both see the same drift.
//! The first round is a first build (toolchain included), the second is warm. Every object is
//! compared with the plain compiler's.
//!
//! All figures are per job: microseconds of CPU, and bytes. "rest" is what the daemon spent beside
//! its named phases. "compile/plain" is the compiler alone, "all/plain" the worker as a whole.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

const ICE: &str = env!("CARGO_BIN_EXE_ice");

/// Whom the daemons are started as, when it is root who measures: he would get several processes
/// instead of one.
const USER: u32 = 1000;

/// A project: its package, where in it, the compiler with its flags, and which files.
const PROJECTS: [(&str, &str, &str, &str); 2] = [
    ("lua-src", "lua-5.4.7", "gcc -g -O2 -DLUA_USE_POSIX", ".c"),
    (
        "leveldb-sys",
        "deps/leveldb-1.22",
        "g++ -std=c++11 -g -O2 -I. -Iinclude -DLEVELDB_PLATFORM_POSIX=1 -DLEVELDB_IS_BIG_ENDIAN=0",
        ".cc",
    ),
];

fn main() {
    let directory = tempfile::tempdir().expect("make a directory");
    let cluster = Cluster::start(directory.path());
    for (package_name, below, command, suffix) in PROJECTS {
        let root = directory.path().join(package_name);
        copy_tree(&package(package_name).join(below), &root);
        let units = units(&root, suffix);
        println!("\n{package_name}: {} files, {command}", units.len());
        let mut table: Vec<(String, Vec<String>)> = Vec::new();
        for round in ["first", "warm", "warm again"] {
            let figures = cluster.round(&root, command, &units);
            for (index, (name, figure)) in figures.into_iter().enumerate() {
                if table.len() == index {
                    table.push((name, Vec::new()));
                }
                table[index].1.push(format!("{figure:>12}"));
            }
            eprintln!("{package_name}: the {round} build is done");
        }
        println!(
            "{:34} {:>12} {:>12} {:>12}",
            "per job", "first", "warm", "warm again"
        );
        for (name, figures) in table {
            println!("{name:34} {}", figures.join(" "));
        }
    }
}

struct Cluster {
    ice: PathBuf,
    directory: PathBuf,
    processes: Vec<Child>,
}

/// What a daemon has consumed so far.
#[derive(Default)]
struct Consumed {
    /// By itself.
    own_us: f64,
    /// By the processes that start its jobs.
    zygotes_us: f64,
    /// By phase, as it says itself.
    phases: BTreeMap<String, f64>,
}

impl Cluster {
    fn start(directory: &Path) -> Self {
        let ice = directory.join("ice");
        fs::copy(ICE, &ice).expect("copy ice");
        fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).expect("open it");
        own(directory);
        let mut cluster = Self {
            ice,
            directory: directory.to_owned(),
            processes: Vec::new(),
        };
        let (scheduler, node) = (free_port(), free_port().to_string());
        let address = format!("127.0.0.1:{scheduler}");
        let place = |name: &str| directory.join(name).display().to_string();
        let key = place("key");
        cluster.spawn(
            &format!("scheduler --port {scheduler} --key-file {key}"),
            "scheduler",
        );
        wait_until("a key", || Path::new(&key).exists());
        let common = format!("--scheduler {address} --key-file {key}");
        let (cache, socket) = (place("w"), place("w.sock"));
        cluster.spawn(
            &format!(
                "daemon -m 2 -N worker --port {node} --cache-dir {cache} --socket {socket} {common}"
            ),
            "worker",
        );
        let (cache, socket) = (place("s"), place("sock"));
        cluster.spawn(
            &format!("daemon -m 0 -N submitter --cache-dir {cache} --socket {socket} {common}"),
            "submitter",
        );
        wait_until("the cluster", || {
            let mut status = cluster.command(&cluster.ice);
            let status = status.arg("status").args(common.split(' '));
            let output = status.stderr(Stdio::null()).output().expect("run ice");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.contains("workers: 1") && text.contains("submitter")
        });
        cluster
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C");
        command.env("HOME", &self.directory);
        command.env("ICE_SOCKET", self.directory.join("sock"));
        command.stdin(Stdio::null());
        if nix::unistd::geteuid().is_root() {
            command.uid(USER).gid(USER);
        }
        command
    }

    fn spawn(&mut self, words: &str, name: &str) {
        let log = fs::File::create(self.log(name)).expect("make a log");
        let mut command = self.command(&self.ice);
        command
            .args(words.split(' '))
            .arg("-v")
            .env("ICE_ACCOUNT", "1");
        command.stdout(Stdio::null()).stderr(log);
        self.processes.push(command.spawn().expect("start ice"));
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// Compiles all units and says what each cost on average.
    fn round(&self, root: &Path, command: &str, units: &[String]) -> Vec<(String, String)> {
        let before = ["submitter", "worker"].map(|name| self.consumed(name));
        let (mut plain_us, mut client_us, mut source_bytes) = (0, 0, 0);
        for unit in units {
            let (plain, ours) = (root.join("plain.o"), root.join("unit.o"));
            let mut objects = Vec::new();
            for is_ours in [false, true] {
                let mut words = command.split(' ');
                let compiler = words.next().expect("a compiler");
                let mut call = self.command(if is_ours {
                    &self.ice
                } else {
                    Path::new(compiler)
                });
                call.args(is_ours.then_some(compiler)).args(words);
                call.args(["-c", unit, "-o", "unit.o"]).current_dir(root);
                call.env("ICE_JOB_LOG", self.directory.join("jobs"));
                let start = children_us();
                assert!(call.status().expect("run a compiler").success(), "{unit}");
                *(if is_ours {
                    &mut client_us
                } else {
                    &mut plain_us
                }) += children_us() - start;
                objects.push(fs::read(&ours).expect("an object"));
                fs::rename(&ours, &plain).expect("put it away");
            }
            assert!(objects[0] == objects[1], "{unit}: another object");
            source_bytes += fs::metadata(root.join(unit)).expect("a source").len();
        }
        let jobs = fs::read_to_string(self.directory.join("jobs")).expect("a job log");
        let remote = jobs.matches("\"place\":\"remote\"").count();
        assert_eq!(remote, jobs.lines().count(), "a job stayed here: {jobs}");
        // The last trees are cleaned after the results are out.
        thread::sleep(Duration::from_millis(200));
        let after = ["submitter", "worker"].map(|name| self.consumed(name));
        let count = units.len() as f64;
        let [submitter, worker] = [0, 1].map(|side: usize| {
            let (old, new) = (&before[side], &after[side]);
            let phase = |name: &str| {
                let at = |consumed: &Consumed| consumed.phases.get(name).copied().unwrap_or(0.0);
                (at(new) - at(old)) / count
            };
            let own = (new.own_us - old.own_us) / count;
            (own, (new.zygotes_us - old.zygotes_us) / count, phase)
        });
        let (own, _, phase) = submitter;
        let (plain, client) = (plain_us as f64 / count, client_us as f64 / count);
        let named = ["scan", "hashing", "wire", "commit"];
        let rest = own - named.iter().map(|name| phase(name)).sum::<f64>();
        let mut rows = vec![("submitter: client".to_owned(), whole(client))];
        rows.extend(named.map(|name| (format!("submitter: {name}"), whole(phase(name)))));
        rows.push(("submitter: rest".to_owned(), whole(rest)));
        rows.push(("submitter: all".to_owned(), whole(client + own)));
        let sources = source_bytes as f64 / count;
        rows.push(("bytes out".to_owned(), whole(phase("out"))));
        rows.push(("  the main file has".to_owned(), whole(sources)));
        rows.push(("bytes in".to_owned(), whole(phase("in"))));
        let (own, zygotes, phase) = worker;
        let mine = ["tree", "collect", "wire"];
        let launch = phase("sandbox") + zygotes;
        // What is charged for the sandbox is spent in other processes, but for the launch.
        let rest = own - mine.iter().map(|name| phase(name)).sum::<f64>();
        rows.push(("worker: tree".to_owned(), whole(phase("tree"))));
        rows.push(("worker: sandbox".to_owned(), whole(launch)));
        rows.push(("worker: compile".to_owned(), whole(phase("compile"))));
        rows.push(("worker: collect".to_owned(), whole(phase("collect"))));
        rows.push(("worker: wire".to_owned(), whole(phase("wire"))));
        rows.push(("worker: rest".to_owned(), whole(rest)));
        let all = own + launch + phase("compile");
        rows.push(("worker: all".to_owned(), whole(all)));
        rows.push(("the plain compiler".to_owned(), whole(plain)));
        let ratio = |of: f64| format!("{:.3}", of / plain);
        rows.push(("compile/plain".to_owned(), ratio(phase("compile"))));
        rows.push(("all/plain".to_owned(), ratio(all)));
        rows
    }

    fn consumed(&self, name: &str) -> Consumed {
        let index = ["scheduler", "worker", "submitter"]
            .iter()
            .position(|n| *n == name);
        let pid = self.processes[index.expect("a daemon")].id();
        let mut consumed = Consumed {
            own_us: cpu_us(pid),
            ..Consumed::default()
        };
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children = children
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok());
            consumed.zygotes_us += children.map(cpu_us).sum::<f64>();
        }
        let log = fs::read_to_string(self.log(name)).expect("its log");
        let line = log
            .lines()
            .rev()
            .find_map(|line| line.split_once("account: "));
        for word in line.map_or("", |line| line.1).split(' ') {
            if let Some((name, number)) = word.split_once('=') {
                let number = number.parse().expect("a number");
                consumed.phases.insert(name.to_owned(), number);
            }
        }
        consumed
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let pid = nix::unistd::Pid::from_raw(process.id() as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = process.wait();
        }
    }
}

/// The CPU time of all threads of a process, those that have ended included.
fn cpu_us(pid: u32) -> f64 {
    let clock = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let nanoseconds = |path: PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let first = text
            .split(' ')
            .next()
            .and_then(|word| word.parse::<f64>().ok());
        first.unwrap_or(0.0)
    };
    let living: f64 = threads
        .into_iter()
        .flatten()
        .flatten()
        .map(|thread| nanoseconds(thread.path()) / 1000.0)
        .sum();
    // In ticks of 10 ms, but with those that are gone.
    let words = clock.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = words.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.filter_map(|word| word.parse::<f64>().ok()).sum();
    living.max(ticks * 10_000.0)
}

fn whole(number: f64) -> String {
    format!("{number:.0}")
}

fn own(path: &Path) {
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).expect("give it away");
    }
}

fn units(root: &Path, suffix: &str) -> Vec<String> {
    let except = [
        "_test.",
        "_bench.",
        "windows",
        "testharness",
        "testutil",
        "leveldbutil",
    ];
    let mut units = Vec::new();
    for directory in ["", "db/", "table/", "util/"] {
        for entry in fs::read_dir(root.join(directory))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = format!("{directory}{}", entry.file_name().to_string_lossy());
            if name.ends_with(suffix) && !except.iter().any(|part| name.contains(part)) {
                units.push(name);
            }
        }
    }
    units.sort();
    units
}

fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status();
    assert!(status.expect("run cp").success());
    own(to);
}

/// Where cargo has put a package of `tests/projects`.
fn package(name: &str) -> PathBuf {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/projects/Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--locked",
            "--format-version=1",
            "--manifest-path",
            manifest,
        ])
        .output()
        .expect("run cargo");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages.iter().find(|package| package["name"] == name);
    let manifest = package.expect("the package")["manifest_path"]
        .as_str()
        .expect("a path");
    Path::new(manifest)
        .parent()
        .expect("a directory")
        .to_owned()
}

fn children_us() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("own usage");
    (usage.user_time() + usage.system_time()).num_microseconds()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("find a port");
    listener.local_addr().expect("its address").port()
}

fn wait_until(what: &str, mut is_ready: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_ready() {
        assert!(Instant::now() < end, "waiting for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
