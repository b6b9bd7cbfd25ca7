//! The manuals are well-formed, and the messages that they explain are the ones that ice says: each is
//! provoked, word for word.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

mod support;
use support::skipped;

/// How long a message may take that takes two seconds on an idle machine.
const BOUND: Duration = Duration::from_secs(60);

#[test]
fn mandoc_finds_nothing_to_complain_of() {
    let pages = fs::read_dir("man").unwrap();
    let pages: Vec<_> = pages.map(|page| page.unwrap().path()).collect();
    let own: BTreeSet<String> = (pages.iter())
        .map(|page| {
            let name = page.file_name().unwrap().to_str().unwrap();
            let (name, section) = name.rsplit_once('.').unwrap();
            format!("{name} {section}")
        })
        .collect();
    assert!(own.len() >= 9, "{own:?}");
    let output = match Command::new("mandoc").arg("-Tlint").args(&pages).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return skipped("there is no mandoc here");
        }
        output => output.unwrap(),
    };
    // It looks for a page that is referred to among those that are installed, and there ours are not.
    let is_own_page = |line: &&str| {
        let page = line.split_once("referenced manual not found: Xr ");
        page.is_some_and(|(_, page)| {
            let mut words = page.split(' ');
            let page = [words.next(), words.next()].map(Option::unwrap_or_default);
            own.contains(&page.join(" ")) || page == ["icecc-create-env", "1"]
        })
    };
    let said = String::from_utf8(output.stdout).unwrap();
    let complaints: Vec<&str> = said.lines().filter(|line| !is_own_page(line)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Each message with its page, as the manual has it, and a script that provokes it. `$PORT` is a port
/// where nobody listens, `$TAKEN` one where somebody else does.
const MESSAGES: &[(&str, &str, &str)] = &[
    (
        "ice.1",
        "there is no cluster key in FILE",
        "ice status --key-file none",
    ),
    (
        "ice.1",
        "no scheduler of NAME answers on UDP port PORT",
        "ice status --key-file key -s :$PORT",
    ),
    (
        "ice.1",
        "connect to the scheduler at ADDRESS: Connection refused",
        "ice status --key-file key -s 127.0.0.1:$PORT",
    ),
    (
        "ice.1",
        "connect to the scheduler at ADDRESS: the other end has the cluster key ...",
        "ice key create --key-file other && \
         ice scheduler -i lo -p $PORT --memory - --key-file other & \
         exec ice daemon -m 0 --socket sock --key-file key -s 127.0.0.1:$PORT",
    ),
    (
        "ice.1",
        "can't write the job log FILE",
        "ICE_JOB_LOG=none/jobs ice gcc -c a.c",
    ),
    (
        "ice.1",
        "no place for the cluster key: HOME is not set",
        "env -u HOME ice status",
    ),
    (
        "ice.1",
        "ice has called itself",
        "printf '#!/bin/sh\\nexec ice gcc \"$@\"\\n' >gcc && chmod +x gcc && \
         ICECC_CC=$PWD/gcc ice gcc -c a.c",
    ),
    (
        "ice-daemon.8",
        "a daemon already listens at SOCKET",
        "for one in 1 2; do \
             ice daemon -m 0 --socket sock --key-file key --cache-dir c$one -s 127.0.0.1:$PORT & \
         done; wait",
    ),
    (
        "ice-daemon.8",
        "listen at port PORT: Address already in use",
        "exec ice daemon -m 1 --socket sock -p $TAKEN --key-file key -s 127.0.0.1:$PORT",
    ),
    (
        "ice-daemon.8",
        "listen at SOCKET: ...",
        "exec ice daemon -m 0 --socket /usr/ice.sock --key-file key -s 127.0.0.1:$PORT",
    ),
    (
        "ice-daemon.8",
        "make the cache directory DIRECTORY: ...",
        "exec ice daemon -m 1 --socket sock --cache-dir /usr/none -p $PORT --key-file key \
         -s 127.0.0.1:$PORT",
    ),
    (
        "ice-daemon.8",
        "no sandbox can be built here",
        "exec unshare --user --map-root-user sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && \
         exec ice daemon -m 1 --socket sock --cache-dir cache -p $PORT --key-file key \
         -s 127.0.0.1:$PORT'",
    ),
    (
        "ice-daemon.8",
        "no scheduler: ...",
        "exec ice daemon -m 0 --socket sock --key-file key -s 127.0.0.1:$PORT",
    ),
    (
        "ice-scheduler.8",
        "listen at ADDRESS: Address already in use",
        "exec ice scheduler -d -p $TAKEN --memory - --key-file key",
    ),
    (
        "ice-scheduler.8",
        "interface NAME: ...",
        "exec ice scheduler -p $PORT -i none0 --memory - --key-file key",
    ),
    (
        "ice-scheduler.8",
        "VALUE is no HOST and no HOST:PORT",
        "exec ice scheduler -p $PORT -s alpha:none --memory - --key-file key",
    ),
];

#[test]
fn every_message_that_a_manual_explains_is_said_as_it_stands_there() {
    let mut explained = BTreeSet::new();
    for page in fs::read_dir("man").unwrap() {
        let page = page.unwrap().path();
        let text = fs::read_to_string(&page).unwrap();
        let name = page.file_name().unwrap().to_str().unwrap().to_owned();
        let section = text.split_once("\n.Sh DIAGNOSTICS\n");
        let section = section.map_or("", |(_, rest)| rest.split("\n.Sh ").next().unwrap());
        for message in section.lines().filter_map(|line| line.strip_prefix(".It ")) {
            explained.insert((name.clone(), message.to_owned()));
        }
    }
    let provoked = MESSAGES
        .iter()
        .map(|(page, message, _)| ((*page).into(), (*message).into()));
    assert_eq!(explained, provoked.collect());

    for (page, message, script) in MESSAGES {
        let said = Scene::new().hear(script, message);
        if let Err(said) = said {
            panic!("{page}: {message:?} is not what is said:\n{said}");
        }
    }
}

/// A directory of an ordinary user who has ice, a key and something to compile.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let mode = |name: &str| {
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o777)).unwrap();
        };
        fs::create_dir(path("bin")).unwrap();
        let mut copy = Command::new("cp");
        copy.arg(env!("CARGO_BIN_EXE_ice")).arg(path("bin"));
        assert!(copy.status().unwrap().success());
        fs::write(path("a.c"), "int a;\n").unwrap();
        mode("");
        let scene = Self(place);
        let mut key = scene.command("ice key create --key-file key");
        assert!(key.stdout(Stdio::null()).status().unwrap().success());
        scene
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .env_clear()
            .env(
                "PATH",
                format!("{}/bin:/usr/sbin:/usr/bin:/bin", self.0.path().display()),
            )
            .env("HOME", self.0.path())
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .process_group(0);
        if nix::unistd::geteuid().is_root() {
            command.uid(54321).gid(54321);
        }
        command
    }

    /// Runs a script until it says the message; what it said when it does not.
    fn hear(&self, script: &str, message: &str) -> Result<(), String> {
        let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let taken = listen();
        // Nobody else takes it at once: the kernel gives them out in turn.
        let free = listen().local_addr().unwrap().port();
        let mut command = self.command(script);
        command
            .env("PORT", free.to_string())
            .env("TAKEN", taken.local_addr().unwrap().port().to_string());
        let mut running = Running(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let stderr = BufReader::new(running.0.stderr.take().unwrap());
        let (say, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines() {
                let _ = say.send(line);
            }
        });
        let (began, mut said) = (Instant::now(), String::new());
        while let Ok(line) = lines.recv_timeout(BOUND.saturating_sub(began.elapsed())) {
            let line = line.unwrap();
            if is_said(message, &line) {
                return Ok(());
            }
            said += &line;
            said.push('\n');
        }
        Err(said)
    }
}

/// A shell and everything below it, killed when it goes.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// What stands for something else in the messages of the manuals.
const PLACEHOLDERS: &[&str] = &[
    "FILE",
    "NAME",
    "PORT",
    "ADDRESS",
    "SOCKET",
    "DIRECTORY",
    "VALUE",
    "...",
];

/// Whether a line has a message of the manual.
fn is_said(message: &str, line: &str) -> bool {
    let mut pattern = message.to_owned();
    for placeholder in PLACEHOLDERS {
        pattern = pattern.replace(placeholder, "\0");
    }
    let mut rest = line;
    pattern.split('\0').all(|part| match rest.split_once(part) {
        Some((_, behind)) => {
            rest = behind;
            true
        }
        None => false,
    })
}

#[test]
fn a_message_is_recognised_by_its_fixed_words() {
    for (message, line, expect) in [
        (
            "listen at port PORT: Address",
            "ice: listen at port 80: Address already",
            true,
        ),
        (
            "listen at port PORT: Address",
            "ice: listen at port 80 Address already",
            false,
        ),
        ("no scheduler: ...", "warn: no scheduler: why", true),
        ("no scheduler: ...", "warn: no scheduler", false),
        ("key: HOME is not set", "no key: PATH is not set", false),
        (
            "VALUE is no HOST and no HOST:PORT",
            "\"a\" is no HOST and no HOST:PORT",
            true,
        ),
    ] {
        assert_eq!(is_said(message, line), expect, "{message} {line}");
    }
}
