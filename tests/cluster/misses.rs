//! Files that the scanner does not find, and compiles that it declines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::cluster::{Cluster, two_workers};
use crate::joblog::{self, JobLine};
use crate::netns;
use crate::node::{ALICE, Node};
use crate::wait::{BOUND, wait_until};

/// A desk with sources, from which a compiler is called by way of one daemon.
struct Desk<'a> {
    cluster: &'a Cluster,
    daemon: &'a Node,
    directory: PathBuf,
}

impl Desk<'_> {
    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).unwrap();
    }

    fn run(&self, words: &[&str]) -> (Output, JobLine) {
        let log = self.directory.join("jobs");
        let mut command = self.cluster.ice(ALICE, words);
        command
            .env("ICE_SOCKET", self.daemon.directory.join("sock"))
            .env("ICE_JOB_LOG", &log)
            .current_dir(&self.directory);
        let output = self.daemon.host.enter(|| command.output()).unwrap();
        let job = joblog::read(&log).pop().expect("a line in the job log");
        (output, job)
    }

    /// What the plain compiler makes of the same command.
    #[track_caller]
    fn check(&self, words: &[&str]) -> JobLine {
        let object = self.directory.join("out.o");
        let made = |output: Output| {
            let object = fs::read(&object).ok();
            let _ = fs::remove_file(self.directory.join("out.o"));
            (output.status.code(), output.stdout, output.stderr, object)
        };
        let mut plain = Command::new(Path::new("/usr/bin").join(words[0]));
        plain.args(&words[1..]).env("LC_ALL", "C");
        let expect = made(plain.current_dir(&self.directory).output().unwrap());
        let (output, job) = self.run(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(made(output) == expect, "{words:?}: {job:?}\n{said}");
        job
    }
}

#[test]
fn a_file_that_the_scanner_overlooks_is_overlooked_once() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    let desk = Desk {
        cluster: &cluster,
        daemon: &cluster.submitter,
        directory: cluster.home(ALICE).join("desk"),
    };
    ALICE.make_directory(&desk.directory);
    // The scanner gives up on names with a million values that stand nowhere written out.
    let mut many = "#define STR(x) STR_I(x)\n#define STR_I(x) #x\n".to_owned();
    for name in ["A", "B", "C", "D", "E"] {
        many += "#if 0\n";
        for value in 0..20 {
            many += &format!("#define {name} {value}\n");
        }
        many += &format!("#endif\n#define {name} {}\n", name.to_lowercase());
    }
    desk.write("many.h", &many);
    fs::create_dir_all(desk.directory.join("a/b/c/d")).unwrap();
    desk.write("a.c", "#include \"a.h\"\nint a = VALUE;\n");
    desk.write("a.h", "#include \"many.h\"\n#include STR(A/B/C/D/E)\n");
    desk.write("a/b/c/d/e", "#define VALUE 7\n");
    let job = desk.check(&["gcc", "-g", "-c", "a.c", "-o", "out.o"]);
    assert!(job.is_remote() && job.mode == "source", "{job:?}");
    assert_eq!(job.tries, 2, "{job:?}");
    let said = desk.daemon.said();
    let line = said
        .lines()
        .find(|line| line.contains("the scanner overlooked"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(
        line.contains(".h:") && line.contains("a/b/c/d/e (#"),
        "{line}"
    );
    // It is known now, to every compile that reads the header.
    desk.write("b.c", "#include \"a.h\"\nint b = VALUE;\n");
    for source in ["a.c", "b.c"] {
        let job = desk.check(&["gcc", "-g", "-c", source, "-o", "out.o"]);
        assert!(job.is_remote() && job.tries == 1, "{job:?}");
    }
    assert_eq!(desk.daemon.said().matches("overlooked").count(), 1);

    // One overlooked file that leads to another, and to a third: after the second the job goes
    // another way, and what was learned stays.
    let next = |name: &str| format!("#undef E\n#define E {name}\n#include STR(A/B/C/D/E)\n");
    desk.write("c.c", "#include \"c.h\"\nint c = VALUE;\n");
    desk.write("c.h", &format!("#include \"many.h\"\n{}", next("f")));
    desk.write("a/b/c/d/f", &next("g"));
    desk.write("a/b/c/d/g", &next("h"));
    desk.write("a/b/c/d/h", "#define VALUE 8\n");
    let job = desk.check(&["gcc", "-g", "-I.", "-c", "c.c", "-o", "out.o"]);
    assert_eq!(job.word(), "missing-file", "{job:?}");
    let job = desk.check(&["gcc", "-g", "-I.", "-c", "c.c", "-o", "out.o"]);
    assert!(job.is_remote() && job.tries == 2, "{job:?}");
    let job = desk.check(&["gcc", "-g", "-I.", "-c", "c.c", "-o", "out.o"]);
    assert!(job.is_remote() && job.tries == 1, "{job:?}");

    // What is not here either is the user's mistake: final, and compiled once.
    desk.write("wrong.c", "#include \"no such header.h\"\nint wrong;\n");
    for compiler in ["gcc", "g++", "clang"] {
        if !Path::new("/usr/bin").join(compiler).exists() {
            continue;
        }
        let job = desk.check(&[compiler, "-c", "wrong.c", "-o", "out.o"]);
        assert!(job.is_remote(), "{job:?}");
        assert_eq!((job.tries, job.exit), (1, 1), "{job:?}");
    }
    // Neither is a mention of a file that happens to be here.
    desk.write("README.md", "");
    desk.write("told.c", "#error \"README.md\"\n");
    let job = desk.check(&["gcc", "-c", "told.c", "-o", "out.o"]);
    assert!(job.is_remote() && job.tries == 1, "{job:?}");
}

#[test]
fn what_the_scanner_declines_is_local_or_text_as_the_user_likes() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    let words = ["daemon", "-m", "0", "--declined", "preprocessed"];
    let other = cluster.ground.start("guest", &words, &[]);
    cluster.wait_for_nodes(4);
    wait_until("clients are welcome there, too", BOUND, || {
        other.directory.join("sock").exists()
    });
    for (daemon, with_debug) in [(&cluster.submitter, "local"), (&other, "preprocessed")] {
        let desk = Desk {
            cluster: &cluster,
            daemon,
            directory: cluster.home(ALICE).join(&daemon.name),
        };
        ALICE.make_directory(&desk.directory);
        desk.write(
            "a.c",
            "#include \"a.h\"\n#define STR(x) STR_I(x)\n#define STR_I(x) #x\n\
             #include STR(v/__GNUC__.h)\nint a = VALUE;\n",
        );
        desk.write("a.h", "#define VALUE 3\n");
        fs::create_dir_all(desk.directory.join("v")).unwrap();
        let version = Command::new("gcc").arg("-dumpversion").output().unwrap();
        let version = String::from_utf8(version.stdout).unwrap();
        let major = version.trim().split('.').next().unwrap_or_default();
        desk.write(&format!("v/{major}.h"), "");
        // Without debug information nothing is lost by preprocessing.
        let job = desk.check(&["gcc", "-O2", "-c", "a.c", "-o", "out.o"]);
        assert_eq!(job.mode, "preprocessed", "{job:?}");
        let (output, debug) = desk.run(&["gcc", "-g", "-c", "a.c", "-o", "out.o"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(debug.mode, with_debug, "{debug:?}");
        for job in [job, debug] {
            let reason = job.reason.expect("a reason either way");
            assert!(reason.starts_with("computed-include: "), "{reason}");
            assert!(reason.contains("a.c:4: "), "{reason}");
            assert!(reason.contains("STR(v/__GNUC__.h)"), "{reason}");
        }
    }
}
