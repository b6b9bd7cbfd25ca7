//! What the sandbox costs: CPU and wall time per job for a program that does nothing.
//!
//! `cargo bench --bench sandbox` prints a table; the toolchain has as many files as gcc's. The
//! CPU time of a job's sandbox is counted where it is spent: in the init (mounts, hardening,
//! leaving), in the zygote (the clone) and in the daemon (launching and waiting).

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use ice::executor::block_on;
use ice::id::{AbsPath, Bytes, Digest};
use ice::message::{Entry, EntryKind, Mtime};
use ice::sandbox::{Ended, Launch, Limits, Rung, Starter, Zygote, ZygoteSpec};
use nix::fcntl::{OFlag, openat};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::time::TimeValLike;

const JOBS: u32 = 300;

fn main() {
    let directory = tempfile::tempdir().expect("make a directory");
    let nothing = directory.path().join("nothing");
    let source = directory.path().join("nothing.c");
    fs::write(&source, "int main(void) { return 0; }\n").expect("write a source");
    let gcc = Command::new("gcc")
        .args(["-static", "-O1", "-o"])
        .args([&nothing, &source])
        .status()
        .expect("run gcc");
    assert!(gcc.success());

    let start = Instant::now();
    let before = getrusage(UsageWho::RUSAGE_CHILDREN).expect("own usage");
    for _ in 0..JOBS {
        assert!(Command::new(&nothing).status().expect("run").success());
    }
    let after = getrusage(UsageWho::RUSAGE_CHILDREN).expect("own usage");
    let cpu =
        (after.user_time() + after.system_time()) - (before.user_time() + before.system_time());
    println!(
        "plain                    program {:4} us                                           wall {:5} us",
        cpu.num_microseconds() / i64::from(JOBS),
        start.elapsed().as_micros() / u128::from(JOBS),
    );
    for files in [1, 25, 60] {
        measure(&directory, files);
    }
}

fn measure(directory: &tempfile::TempDir, files: usize) {
    let mut entries = vec![entry("/nothing")];
    for number in 1..files {
        let name = format!("/file{number}");
        fs::write(directory.path().join(&name[1..]), "").expect("write a file");
        entries.push(entry(&name));
    }
    let spec = ZygoteSpec {
        toolchain_root: Bytes::from(directory.path()),
        toolchain: entries.clone(),
        tree_bytes: 16 << 20,
        tree_inodes: 1000,
        rung: Rung::UserNamespaces,
    };
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_ice"));
    let start = Instant::now();
    let zygote =
        block_on(Zygote::start(&Starter::Here(binary.clone()), &spec)).expect("start a zygote");
    let zygote_us = start.elapsed().as_micros();
    let mode = Mode::from_bits_truncate(0o755);
    for name in ["tree0", "tree0/work"] {
        mkdirat(zygote.tree_root(), name, mode).expect("make a tree");
    }
    for entry in &entries {
        let path = PathBuf::from("tree0").join(entry.path.relative());
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        openat(zygote.tree_root(), &path, flags, mode).expect("make a placeholder");
    }
    let work = AbsPath::parse("/work").expect("plain");
    let launch = Launch {
        tree: 0,
        program: entries[0].path.clone(),
        argv: vec![Bytes::from("nothing")],
        env: Vec::new(),
        cwd: work.clone(),
        umask: 0o022,
        writable: vec![work],
        limits: Limits::default(),
    };

    let mut programs = Vec::new();
    let mut sandboxes = Vec::new();
    let mut walls = Vec::new();
    let own = own_cpu();
    let clones = zygote_cpu();
    for _ in 0..JOBS {
        let start = Instant::now();
        let null = || OwnedFd::from(fs::File::create("/dev/null").expect("open /dev/null"));
        let (ended, consumed) = block_on(async {
            let mut running = zygote.launch(&launch, null(), null()).await?;
            running.wait().await
        })
        .expect("run a job");
        assert_eq!(ended, Ended::Exited(0));
        walls.push(start.elapsed().as_micros() as u64);
        programs.push(consumed.cpu_us);
        sandboxes.push(consumed.sandbox_us);
    }
    println!(
        "{files:2} files in a toolchain  program {:4} us  init {:4} us  zygote {:4} us  daemon {:4} us  wall {:5} us  (start {zygote_us} us)",
        median(&mut programs),
        median(&mut sandboxes),
        (zygote_cpu() - clones).as_micros() / u128::from(JOBS),
        (own_cpu() - own).as_micros() / u128::from(JOBS),
        median(&mut walls),
    );
}

/// The CPU time of this process.
fn own_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("own usage");
    Duration::from_micros((usage.user_time() + usage.system_time()).num_microseconds() as u64)
}

/// The CPU time of our only child, the zygote.
fn zygote_cpu() -> Duration {
    let threads = fs::read_dir("/proc/self/task").expect("own threads");
    let child = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .find_map(|children| children.split_whitespace().next().map(str::to_owned))
        .expect("a zygote");
    let schedule = fs::read_to_string(format!("/proc/{child}/schedstat")).expect("its CPU time");
    let nanoseconds = schedule
        .split(' ')
        .next()
        .and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn entry(path: &str) -> Entry {
    Entry {
        path: AbsPath::parse(path).expect("plain"),
        kind: EntryKind::File {
            digest: Digest([0; 32]),
            size: 0,
            executable: true,
            mtime: Mtime::default(),
        },
    }
}
