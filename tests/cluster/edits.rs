//! Sources and headers that change between two compiles: what is compiled is what is there now.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::cluster::{Cluster, copy, two_workers};
use crate::joblog;
use crate::netns;
use crate::node::ALICE;

#[test]
fn a_compiler_that_is_upgraded_while_the_daemon_runs_is_a_new_toolchain() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    let home = cluster.home(ALICE);
    // A compiler finds its parts beside itself.
    let compiler = home.join("own/bin/gcc");
    fs::create_dir_all(home.join("own/bin")).unwrap();
    for parts in ["lib", "libexec"] {
        std::os::unix::fs::symlink(format!("/usr/{parts}"), home.join("own").join(parts)).unwrap();
    }
    let log = home.join("jobs");
    copy(Path::new("/usr/bin/gcc"), &compiler);
    let directory = home.join("work");
    ALICE.make_directory(&directory);
    fs::write(directory.join("a.c"), "int a;\n").unwrap();
    let compile_in = |directory: &Path| {
        let mut command = cluster.ice(ALICE, &["gcc", "-c", "a.c"]);
        command
            .env("ICECC_CC", &compiler)
            .env("ICE_JOB_LOG", &log)
            .env("ICECC_PREFERRED_HOST", "w1")
            .current_dir(directory);
        let output = cluster.here(|| command.output()).unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let compile = || compile_in(&directory);
    let toolchains = || cluster.workers[0].said().matches("is new here").count();
    compile();
    compile();
    assert_eq!(toolchains(), 1);
    // Bytes behind the end of a program change nothing but its digest.
    let upgraded = home.join("upgraded");
    copy(&compiler, &upgraded);
    let mut file = fs::File::options().append(true).open(&upgraded).unwrap();
    file.write_all(b"upgraded").unwrap();
    // Another process may be starting with this descriptor, and then the file can't be run yet.
    drop(file);
    copy(&upgraded, &compiler);
    compile();
    assert_eq!(toolchains(), 2);
    joblog::assert_places(&joblog::read(&log), &[]);
    // No worker lets a job write where the compiler is, so none is asked.
    fs::write(home.join("a.c"), "int a;\n").unwrap();
    compile_in(&home);
    let jobs = joblog::read(&log);
    let last = jobs.last().expect("three jobs and one");
    assert_eq!(
        (last.word(), last.tries),
        ("toolchain-place", 0),
        "{last:?}"
    );
}

struct Desk<'a> {
    cluster: &'a Cluster,
    directory: PathBuf,
}

#[test]
fn what_is_compiled_is_what_is_there_now() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    let desk = Desk {
        cluster: &cluster,
        directory: cluster.home(ALICE).join("desk"),
    };
    for directory in ["", "a", "b", "b/deep"] {
        ALICE.make_directory(&desk.directory.join(directory));
    }
    desk.write("main.c", "#include \"value.h\"\nint value = VALUE;\n");
    // Same size, same second, and each follows the compile of the last at once.
    for round in 10..40 {
        desk.write("b/value.h", &format!("#define VALUE {round}\n"));
        desk.check(&format!("round {round}"));
    }
    // A header that is replaced instead of being written, as editors do.
    for round in 40..50 {
        desk.write("b/new", &format!("#define VALUE {round}\n"));
        fs::rename(
            desk.directory.join("b/new"),
            desk.directory.join("b/value.h"),
        )
        .unwrap();
        desk.check(&format!("replaced {round}"));
    }
    type Edit = fn(&Desk<'_>);
    let edits: [(&str, Edit); 12] = [
        ("one appears earlier in the search path", |desk| {
            desk.write("a/value.h", "#define VALUE 100\n");
        }),
        ("one that is nearer appears", |desk| {
            desk.write("value.h", "#define VALUE 101\n");
        }),
        ("both go again", |desk| {
            fs::remove_file(desk.directory.join("a/value.h")).unwrap();
            fs::remove_file(desk.directory.join("value.h")).unwrap();
        }),
        ("all are gone", |desk| {
            fs::remove_file(desk.directory.join("b/value.h")).unwrap();
        }),
        ("it comes back with an include of its own", |desk| {
            desk.write(
                "b/value.h",
                "#include \"deep/inner.h\"\n#define VALUE INNER\n",
            );
            desk.write("b/deep/inner.h", "#define INNER 102\n");
        }),
        ("the inner one changes", |desk| {
            desk.write("b/deep/inner.h", "#define INNER 103\n");
        }),
        (
            "a directory is moved away and another one put in its place",
            |desk| {
                fs::rename(desk.directory.join("b"), desk.directory.join("c")).unwrap();
                ALICE.make_directory(&desk.directory.join("b"));
                desk.write("b/value.h", "#define VALUE 104\n");
            },
        ),
        ("a directory becomes a symlink", |desk| {
            fs::remove_dir_all(desk.directory.join("b")).unwrap();
            std::os::unix::fs::symlink("c", desk.directory.join("b")).unwrap();
        }),
        ("what the symlink leads to changes", |desk| {
            desk.write("c/deep/inner.h", "#define INNER 105\n");
        }),
        ("a missing include can be asked for", |desk| {
            desk.write(
                "main.c",
                "#if __has_include(\"maybe.h\")\n#include \"maybe.h\"\n#else\nint value;\n#endif\n",
            );
        }),
        ("and then it is there", |desk| {
            desk.write("a/maybe.h", "int value = 106;\n");
        }),
        ("the source changes", |desk| {
            desk.write("main.c", "int value = 107;\n")
        }),
    ];
    for (what, edit) in edits {
        edit(&desk);
        desk.check(what);
    }
    let jobs = joblog::read(&desk.log());
    joblog::assert_places(
        &jobs
            .iter()
            .filter(|job| job.exit == 0)
            .cloned()
            .collect::<Vec<_>>(),
        &["diagnostics"],
    );
    println!(
        "{:?}",
        jobs.iter()
            .filter(|job| !job.is_remote())
            .collect::<Vec<_>>()
    );
    assert!(
        jobs.iter()
            .all(|job| !job.is_remote() || job.mode == "source")
    );
}

impl Desk<'_> {
    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).unwrap();
    }

    fn log(&self) -> PathBuf {
        self.directory.with_extension("jobs")
    }

    fn compile(&self, compiler: &str, object: &str) -> (Output, Option<Vec<u8>>) {
        let mut command = self.cluster.command(ALICE, Path::new("/bin/sh"));
        let words =
            format!("{compiler} -Ia -Ib -MMD -MF {object}.d -MT main.o -c main.c -o {object}");
        command
            .args(["-c", &words])
            .env("ICE_JOB_LOG", self.log())
            .current_dir(&self.directory);
        let output = self.cluster.here(|| command.output()).unwrap();
        let written = [object.to_owned(), format!("{object}.d")].map(|name| {
            let path = self.directory.join(name);
            let bytes = fs::read(&path).ok();
            let _ = fs::remove_file(path);
            bytes
        });
        let [object, dependencies] = written;
        let both = object.map(|object| [object, dependencies.unwrap_or_default()].concat());
        (output, both)
    }

    /// Compiles with and without ice and compares.
    #[track_caller]
    fn check(&self, what: &str) {
        let (ours, our_files) = self.compile(&self.cluster.called_by_word("gcc"), "main.o");
        let (plain, plain_files) = self.compile("gcc", "main.o");
        assert_eq!(
            String::from_utf8_lossy(&ours.stderr),
            String::from_utf8_lossy(&plain.stderr),
            "{what}"
        );
        assert_eq!(ours.status, plain.status, "{what}");
        assert!(our_files == plain_files, "{what}: other files");
    }
}
