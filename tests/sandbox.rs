//! What must fail in the sandbox, and what must not, with the real binary in real namespaces.
//!
//! The hostile job is `tests/sandbox/attack.c`, compiled here. Under root every test runs a second
//! time as an ordinary user, and the attacks also on the rung for root. Where namespaces are
//! impossible the tests say so aloud; with `CI` set they fail instead.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ice::executor::block_on;
use ice::id::{AbsPath, Bytes, Digest};
use ice::message::{Entry, EntryKind, Mtime};
use ice::sandbox::{
    Consumed, Ended, Launch, Limits, Rung, Running, SandboxError, Starter, Zygote, ZygoteSpec,
    ladder,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::{Mode, fchmodat, mkdirat};
use nix::unistd::symlinkat;

/// The environment variable that tells a second run, as an ordinary user, where the binary is.
const AGAIN: &str = "ICE_TEST_SANDBOX_BINARY";

/// The environment variable that tells a run that it is within a user namespace.
const NESTED: &str = "ICE_TEST_SANDBOX_NESTED";

/// An ordinary user that owns nothing.
const NOBODY: u32 = 54321;

/// The rungs that this user can stand on.
fn rungs() -> Vec<Rung> {
    let root = Rung::Root {
        uid: NOBODY,
        gid: NOBODY,
    };
    let root = nix::unistd::geteuid().is_root().then_some(root);
    [Rung::UserNamespaces].into_iter().chain(root).collect()
}

fn probe(rung: Rung) -> Result<Rung, Vec<(Rung, String)>> {
    let starter = Starter::Here(binary());
    block_on(ladder::probe(&binary(), &[(rung, starter)])).map(|(rung, _)| rung)
}

#[test]
fn an_ordinary_user_can_do_all_of_this() {
    if !nix::unistd::Uid::effective().is_root() || std::env::var_os(AGAIN).is_some() {
        return;
    }
    // The build directory may lie where an ordinary user can't go.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = |from: &Path, name: &str| {
        let to = directory.path().join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).unwrap();
        to
    };
    let tests = copy(&std::env::current_exe().unwrap(), "tests");
    let binary = copy(&binary(), "ice");
    let output = Command::new(tests)
        .env(AGAIN, binary)
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!said.contains(" 0 passed"), "{said}");
}

#[test]
fn the_probe_holds_on_every_rung_that_this_user_can_stand_on() {
    if impossible() {
        return;
    }
    for rung in rungs() {
        assert_eq!(probe(rung), Ok(rung));
    }
}

#[test]
fn a_rung_that_does_not_hold_says_why() {
    // No program stands there, so whatever the machine allows, this can't work.
    let rung = Rung::Root { uid: 0, gid: 0 };
    let failures = probe(rung).unwrap_err();
    assert_eq!(failures.len(), 1);
    assert!(!failures[0].1.is_empty(), "{failures:?}");
}

#[test]
fn user_namespaces_that_are_switched_off_are_named() {
    if impossible_unless_nested() {
        return;
    }
    // The limit belongs to a user namespace, so one of our own can have it at zero.
    let output = Command::new("unshare")
        .args(["-Ur", "sh", "-c"])
        .arg("echo 0 >/proc/sys/user/max_user_namespaces && exec \"$0\" --nocapture --exact \"$1\"")
        .arg(std::env::current_exe().unwrap())
        .arg("user_namespaces_that_are_switched_off_are_named")
        .env(NESTED, "1")
        .output()
        .expect("run unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("sysctl user.max_user_namespaces"), "{said}");
}

/// In the nested run, says what the probe says.
fn impossible_unless_nested() -> bool {
    if std::env::var_os(NESTED).is_none() {
        return impossible();
    }
    let failures = probe(Rung::UserNamespaces).unwrap_err();
    println!("{}", failures[0].1);
    true
}

#[test]
fn attacks_fail() {
    if impossible() {
        return;
    }
    for rung in rungs() {
        let space = Space::new(rung);
        for attack in [
            "nothing",
            "read_host",
            "only_own_entries",
            "processes",
            "network",
            "namespaces",
            "kernel",
            "privileges",
            "write_elsewhere",
            "write_toolchain",
            "descriptors",
        ] {
            let outcome = space.run(&[attack]);
            assert_eq!(
                (outcome.ended, outcome.stdout.as_str()),
                (Ended::Exited(0), ""),
                "{attack} on {rung:?}"
            );
        }
    }
}

#[test]
fn a_fork_bomb_ends_at_the_limit_of_processes() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    let outcome = space.run_with(&["fork_bomb"], |launch| launch.limits.processes = 20);
    if nix::unistd::Uid::effective().is_root() {
        // The kernel does not count root's processes, so the bomb is noticed from outside.
        assert_eq!(outcome.ended, Ended::OutOfMemory);
    } else {
        // The bomb's own process counts too.
        assert_eq!(outcome.stdout, "19");
        assert_eq!(outcome.ended, Ended::Exited(0));
    }
}

#[test]
fn orphans_are_buried_and_do_not_count_for_ever() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    let outcome = space.run_with(&["orphans"], |launch| launch.limits.processes = 60);
    assert_eq!(
        (outcome.ended, outcome.stdout.as_str()),
        (Ended::Exited(0), "")
    );
}

#[test]
fn memory_is_limited_for_all_processes_together() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    // Each of the eight is modest; together they are not.
    let outcome = space.run_with(&["eat_memory", "8", "20000000"], |launch| {
        launch.limits.memory_bytes = 100_000_000;
    });
    assert_eq!(outcome.ended, Ended::OutOfMemory);
}

#[test]
fn a_process_can_not_address_more_than_its_limit() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    let outcome = space.run_with(&["eat_memory", "1", "300000000"], |launch| {
        launch.limits.address_space_bytes = 100_000_000;
    });
    // Its mmap fails, its child exits, and so does it.
    assert_eq!(outcome.ended, Ended::Exited(0));
    assert!(outcome.consumed.rss_kib < 100_000, "{outcome:?}");
}

#[test]
fn disks_fill_up_at_their_limits() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    for (path, file_bytes, expect) in [
        ("/tmp/file", 1 << 30, "1048576 No space left on device"),
        ("/work/file", 1 << 30, " No space left on device"),
    ] {
        let outcome = space.run_with(&["fill", path], |launch| {
            launch.limits.tmp_bytes = 1 << 20;
            launch.limits.file_bytes = file_bytes;
        });
        assert_eq!(outcome.ended, Ended::Exited(0), "{path}");
        assert!(outcome.stdout.ends_with(expect), "{}", outcome.stdout);
    }
    let outcome = space.run_with(&["fill", "/tmp/file"], |launch| {
        launch.limits.file_bytes = 1 << 16;
    });
    assert_eq!(outcome.ended, Ended::Signalled(nix::libc::SIGXFSZ));
}

#[test]
fn nothing_outlives_its_job() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    let (mut reader, mut running) = space.start(&["daemonise"], |_| {});
    let (ended, _) = block_on(running.wait()).unwrap();
    assert_eq!(ended, Ended::Exited(0));
    // The grandchild held the pipe. Were it alive, a read would not find the end.
    assert!(has_ended(&mut reader));
}

#[test]
fn a_job_can_be_killed() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    let (mut reader, mut running) = space.start(&["spin"], |_| {});
    running.kill();
    let (ended, _) = block_on(running.wait()).unwrap();
    assert_eq!(ended, Ended::Killed);
    assert!(has_ended(&mut reader));
}

#[test]
fn a_job_dies_when_nobody_waits_for_it_or_its_zygote_is_gone() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    let (mut reader, running) = space.start(&["wait"], |_| {});
    drop(running);
    // Without the end of the job this read lasts for ever.
    assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0);

    let (mut reader, mut running) = space.start(&["wait"], |_| {});
    drop(space);
    assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert!(matches!(block_on(running.wait()), Err(SandboxError::Died)));
}

#[test]
fn time_is_limited() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    let outcome = space.run_with(&["wait"], |launch| launch.limits.wall_seconds = 1);
    assert_eq!(outcome.ended, Ended::TimedOut);
    let outcome = space.run_with(&["spin"], |launch| launch.limits.cpu_seconds = 1);
    assert_eq!(outcome.ended, Ended::TimedOut);
}

#[test]
fn several_jobs_run_at_once() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    for tree in 1..4 {
        space.make_tree(tree);
    }
    let mut jobs: Vec<_> = (0..4)
        .map(|tree| space.start(&["wait"], |launch| launch.tree = tree))
        .collect();
    let (_, last) = jobs.last_mut().unwrap();
    last.kill();
    assert_eq!(block_on(last.wait()).unwrap().0, Ended::Killed);
    // The others are as they were: they end when they are told to.
    for (reader, mut running) in jobs.into_iter().take(3) {
        assert!(!has_ended(&mut { reader }));
        running.kill();
        assert_eq!(block_on(running.wait()).unwrap().0, Ended::Killed);
    }
}

#[test]
fn a_job_gets_its_words_directory_umask_and_outputs() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    let outcome = space.run_with(&["show", "a b", "new\nline"], |launch| {
        launch.argv.push(Bytes(b"\xff\xfe".to_vec()));
        launch.env = vec![(Bytes::from("LANG"), Bytes::from("C.UTF-8"))];
        launch.umask = 0o027;
    });
    assert_eq!(outcome.ended, Ended::Exited(42));
    // Standard output is a pipe and therefore comes when the program ends.
    let stdout = "/work|027|ice|C.UTF-8|<a b><new\nline><\u{fffd}\u{fffd}>";
    assert_eq!(outcome.stdout, format!("to standard error{stdout}"));
}

#[test]
fn a_signal_that_ends_a_job_is_reported() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    let outcome = space.run(&["abort"]);
    assert_eq!(outcome.ended, Ended::Signalled(nix::libc::SIGABRT));
}

#[test]
fn what_can_not_be_executed_is_an_error_and_not_an_exit_status() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    for (program, expect) in [
        ("/bin/missing", Errno::ENOENT),
        ("/locked/input", Errno::EACCES),
        ("/work", Errno::EACCES),
    ] {
        let error = space
            .try_start(&["nothing"], |launch| launch.program = path(program))
            .unwrap_err();
        assert!(
            matches!(error, SandboxError::Program(errno) if errno == expect),
            "{program}: {error}"
        );
    }
    // And the zygote is none the worse for it.
    assert_eq!(space.run(&["nothing"]).ended, Ended::Exited(0));
}

#[test]
fn a_job_that_does_not_fit_its_tree_is_invalid() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    space.make_tree(1);
    nix::unistd::unlinkat(
        space.zygote.tree_root(),
        "tree1/bin/attack",
        nix::unistd::UnlinkatFlags::NoRemoveDir,
    )
    .unwrap();
    type Change = fn(&mut Launch);
    for (what, change) in [
        ("no such tree", (|launch| launch.tree = 9) as Change),
        ("no placeholder", |launch| launch.tree = 1),
        ("writable through a symlink", |launch| {
            launch.writable.push(path("/escape/tree0"));
        }),
        ("a writable symlink", |launch| {
            launch.writable.push(path("/escape"));
        }),
        ("a writable file", |launch| {
            launch.writable.push(path("/locked/input"));
        }),
        ("no such directory", |launch| launch.cwd = path("/missing")),
        ("a NUL", |launch| launch.argv.push(Bytes(vec![0]))),
    ] {
        let error = space.try_start(&["nothing"], change).unwrap_err();
        assert!(
            matches!(error, SandboxError::Invalid { .. }),
            "{what}: {error}"
        );
    }
}

#[test]
fn a_job_in_tmp_sees_the_tree_s_own_tmp() {
    if impossible() {
        return;
    }
    let space = Space::new(Rung::UserNamespaces);
    let directory = Mode::from_bits_truncate(0o755);
    mkdirat(space.zygote.tree_root(), "tree0/tmp", directory).unwrap();
    mkdirat(space.zygote.tree_root(), "tree0/tmp/build", directory).unwrap();
    let outcome = space.run_with(&["show"], |launch| {
        launch.cwd = path("/tmp/build");
        launch.writable.push(path("/tmp/build"));
    });
    assert_eq!(outcome.ended, Ended::Exited(42));
    assert!(outcome.stdout.contains("/tmp/build|"), "{outcome:?}");
    let outcome = space.run(&["fill", "/tmp/build/out"]);
    assert!(outcome.stdout.ends_with("No space left on device"));
    openat(
        space.zygote.tree_root(),
        "tree0/tmp/build/out",
        OFlag::O_RDONLY,
        Mode::empty(),
    )
    .expect("what the job wrote is in the tree");
}

#[test]
fn gcc_compiles_at_the_original_path() {
    if impossible() {
        return;
    }
    const SOURCE: &[u8] = b"#include <stdio.h>\nint main(void) { return puts(\"hello\"); }\n";
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("hello.c"), SOURCE).unwrap();
    let gcc = |words: &[&str]| {
        let output = Command::new("gcc")
            .args(words)
            .current_dir(directory.path())
            .output()
            .expect("run gcc");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    gcc(&["-O2", "-c", "hello.c", "-o", "hello.o"]);

    let (program, files) = gcc_files();
    let space = Space::of(Rung::UserNamespaces, &files);
    space.write("tree0/work/hello.c", SOURCE);
    for header in gcc(&["-O2", "-M", "hello.c"]).split_whitespace() {
        if header.starts_with('/') {
            space.write_with_parents(0, Path::new(header), &fs::read(header).unwrap());
        }
    }
    let outcome = space.run_with(&[], |launch| {
        launch.program = path(&program);
        launch.argv = ["gcc", "-O2", "-c", "hello.c", "-o", "hello.o"]
            .map(Bytes::from)
            .to_vec();
        launch.env = vec![(Bytes::from("PATH"), Bytes::from("/usr/bin:/bin"))];
    });
    assert_eq!(
        (outcome.ended, outcome.stdout.as_str()),
        (Ended::Exited(0), "")
    );
    let object = openat(
        space.zygote.tree_root(),
        "tree0/work/hello.o",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .unwrap();
    let mut remote = Vec::new();
    fs::File::from(object).read_to_end(&mut remote).unwrap();
    assert!(remote == fs::read(directory.path().join("hello.o")).unwrap());
}

// ---------------------------------------------------------------------------------------------

/// A zygote with a toolchain and a tree:
/// `/bin/attack` (the toolchain's), `/work` (writable), `/locked/input`, `/escape` (a symlink out).
struct Space {
    zygote: Zygote,
    files: Vec<PathBuf>,
    _directory: tempfile::TempDir,
}

#[derive(Debug)]
struct Outcome {
    ended: Ended,
    consumed: Consumed,
    /// Both outputs, in one.
    stdout: String,
}

impl Space {
    fn new(rung: Rung) -> Self {
        Self::of(rung, &[])
    }

    /// With more files of the host's in the toolchain.
    fn of(rung: Rung, more: &[PathBuf]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let attack = directory.path().join("bin/attack");
        fs::create_dir(attack.parent().unwrap()).unwrap();
        let source = directory.path().join("attack.c");
        fs::write(&source, include_str!("sandbox/attack.c")).unwrap();
        let gcc = Command::new("gcc")
            .args(["-static", "-O1", "-o"])
            .args([&attack, &source])
            .output()
            .expect("run gcc");
        assert!(gcc.status.success(), "{gcc:?}");

        let mut files = vec![PathBuf::from("/bin/attack")];
        for file in more {
            let target = directory.path().join(file.strip_prefix("/").unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(file, target).unwrap();
            files.push(file.clone());
        }
        let spec = ZygoteSpec {
            toolchain_root: Bytes::from(directory.path()),
            toolchain: files.iter().map(|file| entry(file)).collect(),
            tree_bytes: 4 << 20,
            tree_inodes: 1000,
            rung,
        };
        let space = Self {
            zygote: block_on(Zygote::start(&Starter::Here(binary()), &spec)).unwrap(),
            files,
            _directory: directory,
        };
        space.make_tree(0);
        space
    }

    fn make_tree(&self, tree: u32) {
        let root = format!("tree{tree}");
        self.make_directory(Path::new(&root));
        for file in &self.files {
            self.write_with_parents(tree, file, b"");
        }
        self.make_directory(&Path::new(&root).join("work"));
        self.make_directory(&Path::new(&root).join("locked"));
        self.write(Path::new(&root).join("locked/input"), b"input");
        symlinkat(
            "/trees",
            self.zygote.tree_root(),
            &Path::new(&root).join("escape"),
        )
        .unwrap();
    }

    /// A file of the host's name in a tree.
    fn write_with_parents(&self, tree: u32, file: &Path, content: &[u8]) {
        let mut path = PathBuf::from(format!("tree{tree}"));
        for part in file.parent().unwrap().strip_prefix("/").unwrap() {
            path.push(part);
            self.make_directory(&path);
        }
        path.push(file.file_name().unwrap());
        self.write(path, content);
    }

    fn make_directory(&self, path: &Path) {
        match mkdirat(
            self.zygote.tree_root(),
            path,
            Mode::from_bits_truncate(0o755),
        ) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => panic!("make {}: {errno}", path.display()),
        }
    }

    fn write(&self, path: impl AsRef<Path>, content: &[u8]) {
        let file = openat(
            self.zygote.tree_root(),
            path.as_ref(),
            OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC,
            Mode::from_bits_truncate(0o644),
        )
        .unwrap();
        fs::File::from(file).write_all(content).unwrap();
        fchmodat(
            self.zygote.tree_root(),
            path.as_ref(),
            Mode::from_bits_truncate(0o444),
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )
        .unwrap();
    }

    fn run(&self, words: &[&str]) -> Outcome {
        self.run_with(words, |_| {})
    }

    fn run_with(&self, words: &[&str], change: impl FnOnce(&mut Launch)) -> Outcome {
        let (mut reader, mut running) = self.start(words, change);
        let (ended, consumed) = block_on(running.wait()).unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        Outcome {
            ended,
            consumed,
            stdout: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    fn start(
        &self,
        words: &[&str],
        change: impl FnOnce(&mut Launch),
    ) -> (std::io::PipeReader, Running) {
        self.try_start(words, change).unwrap()
    }

    fn try_start(
        &self,
        words: &[&str],
        change: impl FnOnce(&mut Launch),
    ) -> Result<(std::io::PipeReader, Running), SandboxError> {
        let mut launch = Launch {
            tree: 0,
            program: path("/bin/attack"),
            argv: ["attack"]
                .iter()
                .chain(words)
                .map(|&word| Bytes::from(word))
                .collect(),
            env: Vec::new(),
            cwd: path("/work"),
            umask: 0o022,
            writable: vec![path("/work")],
            limits: Limits {
                wall_seconds: 60,
                ..Limits::default()
            },
        };
        change(&mut launch);
        let (reader, writer) = std::io::pipe().unwrap();
        let stderr = writer.try_clone().unwrap();
        let running = block_on(self.zygote.launch(
            &launch,
            OwnedFd::from(writer),
            OwnedFd::from(stderr),
        ))?;
        Ok((reader, running))
    }
}

/// Whether a pipe has no writer any more, without waiting for it.
fn has_ended(reader: &mut std::io::PipeReader) -> bool {
    fcntl(&*reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    matches!(reader.read(&mut [0]), Ok(0))
}

/// Whether this machine has no namespaces; said aloud.
fn impossible() -> bool {
    match probe(Rung::UserNamespaces) {
        Ok(_) => false,
        Err(failures) => {
            support::skipped(&format!("{failures:?}"));
            true
        }
    }
}

fn binary() -> PathBuf {
    std::env::var_os(AGAIN).map_or_else(|| env!("CARGO_BIN_EXE_ice").into(), PathBuf::from)
}

/// gcc, and with it cc1, as, and every library that they load.
fn gcc_files() -> (String, Vec<PathBuf>) {
    let said = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let found = |name: &str| said("sh", &["-c", "command -v \"$0\"", name]);
    let gcc = found("gcc");
    let mut files = Vec::new();
    for program in [
        gcc.clone(),
        found(&said("gcc", &["-print-prog-name=cc1"])),
        found(&said("gcc", &["-print-prog-name=as"])),
    ] {
        for word in said("ldd", &[&program]).split_whitespace() {
            // The loader is asked for the names that ldd prints, so it is these that must exist.
            if word.starts_with('/') && !files.contains(&PathBuf::from(word)) {
                files.push(word.into());
            }
        }
        files.push(program.into());
    }
    (gcc, files)
}

fn path(text: &str) -> AbsPath {
    AbsPath::parse(text).unwrap()
}

fn entry(file: &Path) -> Entry {
    Entry {
        path: path(file.to_str().unwrap()),
        kind: EntryKind::File {
            digest: Digest([0; 32]),
            size: 0,
            executable: true,
            mtime: Mtime::default(),
        },
    }
}
