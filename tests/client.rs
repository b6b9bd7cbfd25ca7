//! The client as a process, against a submitter that is played by the test.
//!
//! Compilers are shell scripts here: what matters is who runs them, when, and with what.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use ice::frame::{Decoder, encode};
use ice::message::{Answer, CALL_BYTES_MAX, Call, CallKind, Mode, Report};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::Backlog;
use nix::unistd::Pid;

const ICE: &str = env!("CARGO_BIN_EXE_ice");

/// What the script prints that plays the compiler.
const COMPILED: &str = "the compiler ran\n";

/// A directory with a masquerade, a compiler behind it, and room for a submitter's socket.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Self { directory };
        for name in ["links", "real"] {
            fs::create_dir(place.path(name)).unwrap();
        }
        symlink(ICE, place.path("links/gcc")).unwrap();
        place.script("real/gcc", "echo the compiler ran");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn script(&self, name: &str, body: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(self.path("ice.sock")).unwrap()
    }

    /// `gcc -c a.c` through the masquerade, with `directories` in PATH.
    fn client_with(&self, directories: &[&str]) -> Command {
        let mut path = directories
            .iter()
            .map(|directory| self.path(directory).into_os_string().into_string().unwrap())
            .collect::<Vec<_>>();
        path.push("/usr/bin:/bin".to_owned());
        let mut command = Command::new(self.path(directories[0]).join("gcc"));
        command
            .args(["-c", "a.c"])
            .env_clear()
            .env("PATH", path.join(":"))
            .env("HOME", self.directory.path())
            .env("ICE_SOCKET", self.path("ice.sock"))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn client(&self) -> Command {
        self.client_with(&["links", "real"])
    }

    fn log(&self) -> Vec<serde_json::Value> {
        let log = fs::read_to_string(self.path("log")).unwrap();
        log.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }
}

/// A client's connection, its call read and acknowledged or not.
struct Served {
    stream: UnixStream,
    call: Call,
}

fn accept(listener: &UnixListener) -> Served {
    let (mut stream, _) = listener.accept().unwrap();
    let mut piece = [0; 64 << 10];
    let mut decoder = Decoder::new(CALL_BYTES_MAX);
    let call = loop {
        if let Some(call) = decoder.take::<Call>().unwrap() {
            break call;
        }
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "the client went away in mid-call");
        decoder.push(&piece[..count]);
    };
    Served { stream, call }
}

impl Served {
    fn answer(&mut self, answer: &Answer) {
        let mut bytes = Vec::new();
        encode(answer, CALL_BYTES_MAX, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    /// Waits until the other end is closed.
    fn wait_for_close(&mut self) {
        match self.stream.read(&mut [0; 16]) {
            Ok(0) => {}
            // It ended before it had read all that we said.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("not closed: {other:?}"),
        }
    }

    fn is_open(&self) -> bool {
        let mut waiting = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        poll(&mut waiting, PollTimeout::ZERO).unwrap() == 0
    }
}

fn report(node: &str) -> Report {
    Report {
        mode: if node.is_empty() {
            Mode::Local
        } else {
            Mode::Source
        },
        node: node.to_owned(),
        reason: node
            .is_empty()
            .then(|| ("link".to_owned(), "it links".to_owned())),
        file: "a.c".into(),
        tries: 1,
        ..Report::default()
    }
}

fn printed(stream: u8, text: &str) -> Answer {
    Answer::Output {
        stream,
        data: text.into(),
    }
}

fn exit(status: u8) -> Answer {
    Answer::Exit {
        status,
        report: report("far"),
    }
}

fn local() -> Answer {
    Answer::Local { report: report("") }
}

/// Runs the client while `submitter` serves the one connection that it makes.
fn run_against(place: &Place, submitter: impl FnOnce(Served) + Send + 'static) -> Output {
    let listener = place.listen();
    let server = thread::spawn(move || submitter(accept(&listener)));
    let output = place.client().output().unwrap();
    server.join().unwrap();
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_compiled_here(output: &Output, what: &str) {
    assert_eq!(stdout(output), COMPILED, "{what}: {output:?}");
    assert_eq!(output.status.code(), Some(0), "{what}");
    assert!(output.stderr.is_empty(), "{what}: {output:?}");
}

#[test]
fn the_clients_status_and_output_are_the_submitters() {
    let place = Place::new();
    let listener = place.listen();
    let server = thread::spawn(move || {
        let mut served = accept(&listener);
        served.answer(&Answer::Accepted);
        for (stream, text) in [(1, "out"), (2, "e\0rr"), (1, "put")] {
            served.answer(&printed(stream, text));
        }
        served.answer(&exit(42));
        served.call
    });
    let output = place.client().env("X", "1").output().unwrap();
    let call = server.join().unwrap();
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"output"[..], &b"e\0rr"[..])
    );

    let real = place.path("real/gcc").into_os_string();
    assert_eq!(call.kind, CallKind::Compile);
    assert_eq!(call.compiler.as_os_str(), real);
    let argv = call.argv.iter().map(|a| a.as_os_str()).collect::<Vec<_>>();
    assert_eq!(argv, [real.as_os_str(), "-c".as_ref(), "a.c".as_ref()]);
    let cwd = fs::canonicalize(place.directory.path()).unwrap();
    assert_eq!(call.cwd.as_path(), cwd);
    let variable = |name: &str| {
        let found = call.env.iter().find(|(n, _)| n.0 == name.as_bytes());
        found.map(|(_, value)| value.to_string())
    };
    assert_eq!(variable("X").as_deref(), Some("1"));
    let path = variable("PATH").unwrap();
    assert!(!path.contains("links") && path.contains("real"), "{path}");
}

#[test]
fn a_slot_is_held_until_the_local_compiler_ends() {
    let place = Place::new();
    place.script("real/gcc", "echo started; read line; exit 7");
    let listener = place.listen();
    let mut client = place.client().stdin(Stdio::piped()).spawn().unwrap();
    let mut served = accept(&listener);
    served.answer(&Answer::Accepted);
    served.answer(&local());
    let mut started = [0; 8];
    let mut output = client.stdout.take().unwrap();
    output.read_exact(&mut started).unwrap();
    assert_eq!(&started, b"started\n");
    assert!(served.is_open(), "the slot is free while the compiler runs");
    // The compiler has taken the client's place: it is the same process.
    let command = fs::read(format!("/proc/{}/cmdline", client.id())).unwrap();
    assert!(
        command.starts_with(b"/bin/sh"),
        "{}",
        String::from_utf8_lossy(&command)
    );
    client.stdin.take().unwrap().write_all(b"\n").unwrap();
    served.wait_for_close();
    assert_eq!(client.wait().unwrap().code(), Some(7));
}

#[test]
fn a_silent_daemon_costs_the_build_nothing_but_time() {
    // Connected by the kernel and never accepted.
    let place = Place::new();
    let _listener = place.listen();
    assert_compiled_here(&place.client().output().unwrap(), "never accepted");

    // Accepted, read and not answered until the client has given up.
    let place = Place::new();
    let output = run_against(&place, |mut served| served.wait_for_close());
    assert_compiled_here(&output, "never answered");

    // A queue that is full.
    let place = Place::new();
    let listener = place.listen();
    nix::sys::socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let _first = UnixStream::connect(place.path("ice.sock")).unwrap();
    assert_compiled_here(&place.client().output().unwrap(), "never connected");
}

#[test]
fn without_a_daemon_the_compiler_runs() {
    let place = Place::new();
    assert_compiled_here(&place.client().output().unwrap(), "no socket");
    drop(place.listen());
    assert_compiled_here(&place.client().output().unwrap(), "a stale socket");
}

#[test]
fn a_daemon_that_ends_in_mid_job_costs_the_build_nothing() {
    for answers in [
        vec![],
        vec![Answer::Accepted],
        // What a lost compile printed is not the build's: the compiler prints it again.
        vec![Answer::Accepted, printed(1, "out"), printed(2, "err")],
    ] {
        let place = Place::new();
        let output = run_against(&place, move |mut served| {
            for answer in answers {
                served.answer(&answer);
            }
        });
        assert_compiled_here(&output, "ended");
    }
}

#[test]
fn garbage_from_the_daemon_costs_the_build_nothing() {
    let framed = |answers: &[Answer]| {
        let mut bytes = Vec::new();
        for answer in answers {
            encode(answer, CALL_BYTES_MAX, &mut bytes).unwrap();
        }
        bytes
    };
    let accepted = framed(&[Answer::Accepted]);
    for (what, bytes) in [
        ("text", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("zeros", vec![0; 100]),
        ("a huge length", vec![0xff; 4]),
        (
            "garbage after the acknowledgement",
            [&accepted[..], &[0xee; 50]].concat(),
        ),
        ("a status before the acknowledgement", framed(&[exit(0)])),
        (
            "two acknowledgements",
            framed(&[Answer::Accepted, Answer::Accepted]),
        ),
    ] {
        let place = Place::new();
        let output = run_against(&place, move |mut served| {
            served.stream.write_all(&bytes).unwrap();
            // Not our end of file is to be noticed, but the garbage.
            served.wait_for_close();
        });
        assert_compiled_here(&output, what);
    }
}

#[test]
fn every_second_masquerade_is_stepped_over() {
    let place = Place::new();
    place.script("tools/ccache", "echo ccache; exit 1");
    for (directory, target) in [
        ("icecream", "/usr/bin/icecc"),
        ("ccache", "../tools/ccache"),
        ("other", "../links/ice"),
    ] {
        fs::create_dir(place.path(directory)).unwrap();
        symlink(target, place.path(directory).join("gcc")).unwrap();
    }
    fs::create_dir(place.path("copy")).unwrap();
    fs::copy(ICE, place.path("copy/gcc")).unwrap();
    fs::create_dir(place.path("hard")).unwrap();
    if fs::hard_link(ICE, place.path("hard/gcc")).is_err() {
        // Another file system: a link serves as well.
        symlink(ICE, place.path("hard/gcc")).unwrap();
    }
    for directories in [
        &["links", "copy", "real"][..],
        &["copy", "links", "real"],
        &["links", "ccache", "real"],
        &[
            "hard", "other", "icecream", "ccache", "copy", "links", "real",
        ],
    ] {
        let output = place.client_with(directories).output().unwrap();
        assert_compiled_here(&output, &directories.join(" "));
    }
}

#[test]
fn a_compiler_that_leads_back_to_ice_is_reported_and_no_loop() {
    let place = Place::new();
    place.script("real/gcc", &format!("exec {ICE} gcc \"$@\""));
    let output = place.client().output().unwrap();
    assert_eq!(output.status.code(), Some(111), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("called itself"));
}

#[test]
fn a_masquerade_in_icecc_cc_is_stepped_over_and_a_compiler_is_used() {
    let place = Place::new();
    place.script("opt/my-compiler", "echo mine");
    for (variable, expect) in [("opt/my-compiler", "mine\n"), ("links/gcc", COMPILED)] {
        let mut client = place.client();
        client.env("ICECC_CC", place.path(variable));
        client.env("ICECC_CXX", "/nonexistent");
        assert_eq!(stdout(&client.output().unwrap()), expect);
    }
}

#[test]
fn the_job_log_has_a_whole_line_for_each_of_64_parallel_clients() {
    let place = Place::new();
    let listener = place.listen();
    let server = thread::spawn(move || {
        for number in 0..64 {
            let mut served = accept(&listener);
            served.answer(&Answer::Accepted);
            served.answer(&if number % 2 == 0 { exit(3) } else { local() });
        }
    });
    let clients = (0..64)
        .map(|_| {
            let mut client = place.client();
            client.env("ICE_JOB_LOG", place.path("log"));
            client.spawn().unwrap()
        })
        .collect::<Vec<_>>();
    let statuses = clients
        .into_iter()
        .map(|client| client.wait_with_output().unwrap().status.code())
        .collect::<Vec<_>>();
    server.join().unwrap();
    let log = place.log();
    let with = |place: &str, exit: i32, reason: serde_json::Value| {
        let lines = log
            .iter()
            .filter(|l| l["place"] == place && l["exit"] == exit && l["reason"] == reason);
        lines.count()
    };
    assert_eq!(log.len(), 64);
    assert_eq!(with("remote", 3, serde_json::Value::Null), 32);
    assert_eq!(with("local", 0, "link: it links".into()), 32);
    let remote = statuses.iter().filter(|&&status| status == Some(3));
    assert_eq!(remote.count(), 32);
    assert!(log.iter().all(|l| l["file"] == "a.c" && l["tries"] == 1));
}

#[test]
fn with_a_job_log_the_client_still_ends_as_the_compiler() {
    for (body, signal, status, logged) in [
        ("exit 9", None, Some(9), 9),
        ("kill -SEGV $$", Some(Signal::SIGSEGV), None, 139),
        ("kill -TERM $$", Some(Signal::SIGTERM), None, 143),
        ("kill -KILL $$", Some(Signal::SIGKILL), None, 137),
    ] {
        let place = Place::new();
        place.script("real/gcc", body);
        let mut client = place.client();
        client.env("ICE_JOB_LOG", place.path("log"));
        let ended = client.output().unwrap().status;
        assert_eq!(ended.signal(), signal.map(|s| s as i32), "{body}");
        assert_eq!(ended.code(), status, "{body}");
        let log = place.log();
        assert_eq!(log[0]["exit"], logged, "{body}");
        assert_eq!(
            log[0]["reason"],
            "no-daemon: no daemon listens on this machine"
        );
    }
}

#[test]
fn with_a_job_log_a_signal_goes_on_to_the_compiler() {
    let place = Place::new();
    // A shell looks at its traps between commands: it would not return from a `read` for a signal that came
    // just before.
    place.script(
        "real/gcc",
        "trap 'echo told; exit 5' TERM; echo started; while :; do /bin/sleep 0.02; done",
    );
    let mut command = place.client();
    let mut client = command
        .env("ICE_JOB_LOG", place.path("log"))
        .spawn()
        .unwrap();
    let mut output = client.stdout.take().unwrap();
    output.read_exact(&mut [0; 8]).unwrap();
    // The compiler runs, so signals are for it from now on.
    kill(Pid::from_raw(client.id() as i32), Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "told\n");
    assert_eq!(client.wait().unwrap().code(), Some(5));
    assert_eq!(place.log()[0]["exit"], 5);
}

#[test]
fn killing_the_client_closes_its_connection() {
    let place = Place::new();
    let listener = place.listen();
    let mut client = place.client().spawn().unwrap();
    let mut served = accept(&listener);
    served.answer(&Answer::Accepted);
    assert!(served.is_open());
    client.kill().unwrap();
    served.wait_for_close();
    client.wait().unwrap();
}

#[test]
fn icecc_disable_asks_nobody_and_icecc_no_asks_for_a_slot() {
    let place = Place::new();
    let listener = place.listen();
    let disabled = place.client().env("ICECC", "disable").output().unwrap();
    assert_compiled_here(&disabled, "disable");
    listener.set_nonblocking(true).unwrap();
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    listener.set_nonblocking(false).unwrap();
    let server = thread::spawn(move || {
        let mut served = accept(&listener);
        served.answer(&Answer::Accepted);
        served.answer(&local());
        served.call.kind
    });
    let no = place.client().env("ICECC", "no").output().unwrap();
    assert_compiled_here(&no, "no");
    assert_eq!(server.join().unwrap(), CallKind::Local);
}

#[test]
fn a_call_that_compiles_nothing_asks_nobody() {
    let place = Place::new();
    let listener = place.listen();
    let mut client = place.client();
    client.args(["--version"]);
    let mut version = Command::new(place.path("links/gcc"));
    version
        .arg("--version")
        .env_clear()
        .env("PATH", place.path("real"))
        .env("ICE_SOCKET", place.path("ice.sock"));
    assert_compiled_here(&version.output().unwrap(), "--version");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}

#[test]
fn a_command_that_is_no_compiler_gets_a_slot() {
    for words in [&["local", "tool"][..], &["tool"]] {
        let place = Place::new();
        place.script("real/tool", "echo tool \"$@\" $PATH");
        let listener = place.listen();
        let server = thread::spawn(move || {
            let mut served = accept(&listener);
            served.answer(&Answer::Accepted);
            served.answer(&local());
            served.call.kind
        });
        let mut client = Command::new(ICE);
        let path = format!(
            "{}/links:{}/real",
            place.path("").display(),
            place.path("").display()
        );
        client
            .args(words)
            .arg("-v")
            .env("PATH", &path)
            .env("ICE_SOCKET", place.path("ice.sock"))
            .env_remove("ICECC");
        // Its own compiles go through the masquerade, so PATH stays as it is.
        assert_eq!(
            stdout(&client.output().unwrap()),
            format!("tool -v {path}\n")
        );
        assert_eq!(server.join().unwrap(), CallKind::Local);
    }
}

#[test]
fn what_is_not_there_or_no_program_is_reported_as_a_shell_does() {
    let place = Place::new();
    fs::remove_file(place.path("real/gcc")).unwrap();
    fs::write(place.path("real/data"), "x").unwrap();
    for (words, status) in [
        (&["g++-99", "-c", "a.c"][..], 127),
        (&["./nothing/gcc", "-c", "a.c"], 127),
        (&["./real/data"], 126),
        (&["no-such-program"], 127),
    ] {
        let mut client = Command::new(ICE);
        client
            .args(words)
            .env("PATH", place.path("real"))
            .env("ICE_SOCKET", place.path("ice.sock"))
            .current_dir(place.directory.path());
        let output = client.output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{words:?}");
        assert!(!output.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn a_call_of_a_megabyte_is_sent_whole() {
    let place = Place::new();
    let listener = place.listen();
    let server = thread::spawn(move || {
        let mut served = accept(&listener);
        served.answer(&Answer::Accepted);
        served.answer(&exit(0));
        served.call.argv.len()
    });
    let mut client = place.client();
    client.args((0..10_000).map(|number| format!("-D{}={number}", "N".repeat(100))));
    assert_eq!(client.output().unwrap().status.code(), Some(0));
    assert_eq!(server.join().unwrap(), 10_003);
}

#[test]
fn ice_run_uses_the_daemon_that_is_there_and_tells_what_went_where() {
    let place = Place::new();
    let listener = place.listen();
    let server = thread::spawn(move || {
        // The first connection only finds out whether anybody is there.
        drop(listener.accept().unwrap());
        for answer in [exit(0), exit(0), local()] {
            let mut served = accept(&listener);
            served.answer(&Answer::Accepted);
            served.answer(&answer);
        }
    });
    let mut run = Command::new(ICE);
    run.args(["run", "--", "sh", "-c"])
        .arg("gcc -c a.c && gcc -c b.c && gcc -o a a.o && echo $PATH && exit 6")
        .env_clear()
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", place.path("real").display()),
        )
        .env("TMPDIR", place.directory.path())
        .env("HOME", place.directory.path())
        .env("ICE_SOCKET", place.path("ice.sock"));
    let output = run.output().unwrap();
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "ice: 3 compiles: 2 on 1 node (far: 2), 1 local (link: 1)\n"
    );
    let output = stdout(&output);
    let (compiled, path) = output.split_at(COMPILED.len());
    assert_eq!(compiled, COMPILED);
    let masquerade = Path::new(path.split(':').next().unwrap());
    assert!(masquerade.starts_with(place.directory.path()));
    assert!(!masquerade.exists(), "{masquerade:?} is left over");
}

#[test]
fn ice_symlinks_links_every_compiler_and_nothing_that_is_in_the_way() {
    let place = Place::new();
    place.script("real/x86_64-linux-gnu-g++-12", "");
    place.script("real/clang-tidy", "");
    let links = place.path("new");
    let make = |directory: &Path| {
        let mut command = Command::new(ICE);
        command.arg("symlinks").arg(directory).env(
            "PATH",
            format!(
                "{}:{}",
                place.path("links").display(),
                place.path("real").display()
            ),
        );
        command.output().unwrap()
    };
    // Twice: the second time over its own links.
    for _ in 0..2 {
        assert_eq!(make(&links).status.code(), Some(0));
        let mut names = fs::read_dir(&links)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>();
        names.sort();
        assert_eq!(names, ["gcc", "x86_64-linux-gnu-g++-12"]);
    }
    let output = make(&place.path("real"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in the way"));
    assert!(!place.path("real/gcc").is_symlink());
}
