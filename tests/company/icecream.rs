//! icecream's interface: its variables, its archives, its programs' names.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use crate::build::{Job, jobs, write};
use crate::have;
use crate::world::World;

const UNIT: &str = "#include <stdio.h>\nint f(int x) { return printf(\"%d\", x); }\n";

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[track_caller]
fn run(world: &World, script: &str) -> Output {
    world.shell_with_ice(script).output().expect("run a shell")
}

#[track_caller]
fn succeed(world: &World, script: &str) -> String {
    let output = run(world, script);
    assert!(
        output.status.success(),
        "{script}: {}: {}",
        output.status,
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// The last line of the job log.
fn last(world: &World) -> Job {
    jobs(world).pop().expect("a job")
}

#[test]
fn every_job_is_verified_when_all_are_to_be() {
    let world = World::with_workers(&["w1", "w2"]);
    write(&world.path("work"), &[("a.c", UNIT)]);
    succeed(&world, "gcc -O2 -g -MD -c a.c -o plain.o");
    succeed(
        &world,
        "ICECC_REPEAT_RATE=1000 ice gcc -O2 -g -MD -c a.c -o a.o && cmp a.o plain.o",
    );
    let job = last(&world);
    assert!(job.is_remote() && job.word() == "verified", "{job:?}");
    // No turn of this one.
    succeed(
        &world,
        "ICECC_REPEAT_RATE=0 ice gcc -O2 -g -MD -c a.c -o a.o",
    );
    let job = last(&world);
    assert!(job.is_remote() && job.reason.is_none(), "{job:?}");
}

#[test]
fn a_compiler_that_never_gives_the_same_accuses_no_node() {
    let world = World::with_workers(&["w1", "w2"]);
    // Without a name of its own, gcc draws one for the constructor.
    let unit = "namespace { struct S { S(); ~S(); int x; }; S s; }\nint f() { return 1; }\n";
    write(&world.path("work"), &[("a.cc", unit)]);
    let script =
        "ICECC_REPEAT_RATE=1000 ice g++ -O0 -flto -c a.cc && test -s a.o && test ! -e a.o.*.caught";
    succeed(&world, script);
    let job = last(&world);
    assert!(job.is_remote() && job.word() == "not-repeatable", "{job:?}");
}

#[test]
fn two_nodes_that_differ_end_the_build_and_both_answers_are_kept() {
    // One of the workers has a bad disk: what is in its store is not what it has verified when it
    // came.
    let world = World::with_workers(&["w1", "w2"]);
    write(&world.path("work"), &[("a.c", UNIT), ("b.c", UNIT)]);
    for _ in 0..2 {
        succeed(&world, "ICECC_REPEAT_RATE=1000 ice gcc -O2 -c a.c");
        assert_eq!(last(&world).word(), "verified");
    }
    succeed(&world, "gcc -O2 -c a.c -o plain.o");
    damage(
        &world.path("w2-cache"),
        &fs::read(world.path("work/plain.o")).unwrap(),
    );
    let output = run(&world, "ICECC_REPEAT_RATE=1000 ice gcc -O2 -c b.c");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{said}");
    for part in [
        "b.c",
        "ICECC_REPEAT_RATE",
        "w1",
        "w2",
        "b.o.w1.caught",
        "b.o.w2.caught",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let job = last(&world);
    assert_eq!(job.word(), "nodes-differ", "{job:?}");
    let work = world.path("work");
    assert!(!work.join("b.o").exists());
    let [one, other] = ["w1", "w2"].map(|node| fs::read(work.join(format!("b.o.{node}.caught"))));
    assert_ne!(one.unwrap(), other.unwrap());
    succeed(
        &world,
        "gcc -O2 -c b.c -o plain.o && cmp plain.o b.o.w1.caught",
    );
}

/// Damages the compiler proper in a worker's store: the name that it puts into every object.
fn damage(cache: &Path, object: &[u8]) {
    let at = memchr::memmem::find(object, b"GCC: (").expect("it says who made it") + 5;
    let length = memchr::memchr(b')', &object[at..]).expect("a bracket");
    let name = &object[at..at + length];
    let mut found = 0;
    let mut directories = vec![cache.to_owned()];
    while let Some(at) = directories.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                directories.push(path);
                continue;
            }
            if !metadata.is_file() {
                continue;
            }
            let mut content = fs::read(&path).unwrap();
            if !content.starts_with(b"\x7fELF") {
                continue;
            }
            let places: Vec<_> = memchr::memmem::find_iter(&content, name).collect();
            found += places.len();
            for place in &places {
                content[place + 1] = b'X';
            }
            if !places.is_empty() {
                let mode = metadata.permissions();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
                fs::write(&path, &content).unwrap();
                fs::set_permissions(&path, mode).unwrap();
            }
        }
    }
    assert!(found > 0, "there is no compiler in {}", cache.display());
}

#[test]
fn extra_files_travel_with_every_kind_of_job() {
    let world = World::start();
    write(
        &world.path("work"),
        &[
            ("data/blob", "some bytes"),
            // The scanner does not look into the assembler's own files that a macro names.
            ("a.c", "int x;\n"),
        ],
    );
    let script =
        |text: &str| format!("ICECC_EXTRAFILES=data/blob:$PWD/a.c {text} ice gcc -O1 -c a.c");
    for way in ["", "ICECC_REMOTE_CPP=0"] {
        succeed(&world, &script(way));
        assert!(last(&world).is_remote(), "{:?}", last(&world));
    }
    let missing = "ICECC_EXTRAFILES=data/nothing ICECC_REMOTE_CPP=0 ice gcc -O1 -c a.c";
    succeed(&world, missing);
    assert_eq!(last(&world).word(), "extra-files");
}

#[test]
fn an_archive_of_icecc_create_env_compiles_for_whom_it_is_meant() {
    let world = World::start();
    world.link("ice", "icecc");
    world.link("ice", "icecc-create-env");
    write(&world.path("work"), &[("a.c", UNIT)]);
    write(&world.path("home"), &[("data", "some bytes")]);
    // Debug builds take a minute for the others; tests/toolchain.rs has them all.
    for (compression, suffix) in [("none", ".tar"), ("zstd", ".tar.zst")] {
        let script = format!(
            "icecc-create-env gcc g++ --addfile $HOME/data --compression {compression} 5>named"
        );
        let said = succeed(&world, &script);
        let name = said
            .strip_prefix("creating ")
            .expect("as icecream says it")
            .trim();
        assert!(name.ends_with(suffix) && !name.contains('/'), "{said}");
        let named = fs::read_to_string(world.path("work/named")).unwrap();
        assert_eq!(named.trim(), name);
        // The archive for this compiler among others, for another machine and another prefix.
        let version = format!("ia64:/nothing.tar.gz,{name},/none.tar.gz=arm-linux-gnueabihf");
        let script = format!(
            "ICECC_VERSION={version} ice gcc -O2 -c a.c -o a.o; gcc -O2 -c a.c -o b.o; cmp a.o b.o"
        );
        succeed(&world, &script);
        let job = last(&world);
        assert!(job.is_remote(), "{job:?}");
        let script = format!("ICECC_VERSION={name}=mips-elf ice gcc -O2 -c a.c -o a.o");
        succeed(&world, &script);
        let job = last(&world);
        assert!(!job.is_remote() && job.word() == "toolchain", "{job:?}");
    }
    let said = succeed(
        &world,
        "ICECC_ENV_COMPRESSION=none icecc --build-native gcc $HOME/data",
    );
    assert!(
        said.starts_with("creating ") && said.trim().ends_with(".tar"),
        "{said}"
    );
}

#[test]
fn an_archive_as_icecreams_own_script_makes_it_is_used() {
    if !have(&["tar", "gcc", "ldd"]) {
        return;
    }
    let world = World::start();
    write(&world.path("work"), &[("a.c", UNIT), ("b.cc", UNIT)]);
    // Everything that runs is in /usr/bin, nothing is a symlink, libraries are where they are.
    let script = "
mkdir -p e/usr/bin; cd e
put() { mkdir -p .$(dirname $2); cp -L $1 .$2; for l in $(ldd $1 | grep -o '/[^ )]*'); do mkdir -p .$(dirname $l); cp -L $l .$l; done; }
put /bin/true /bin/true
put $(which gcc) /usr/bin/gcc
put $(which g++) /usr/bin/g++
put $(gcc -print-prog-name=cc1) /usr/bin/cc1
put $(gcc -print-prog-name=cc1plus) /usr/bin/cc1plus
put $(which as) /usr/bin/as
plugin=$(gcc -print-file-name=liblto_plugin.so); put $plugin $plugin
tar -czhf ../0123456789abcdef.tar.gz --numeric-owner .
cd ..; rm -r e";
    succeed(&world, script);
    let compare = |compiler: &str, unit: &str, options: &str| {
        format!(
            "export ICECC_VERSION=$PWD/0123456789abcdef.tar.gz
             ice {compiler} {options} -c {unit} -o a.o; {compiler} {options} -c {unit} -o b.o; cmp a.o b.o"
        )
    };
    for (compiler, unit) in [("gcc", "a.c"), ("g++", "b.cc")] {
        succeed(&world, &compare(compiler, unit, "-O2"));
        let job = last(&world);
        assert!(job.is_remote(), "{job:?}");
    }
}

#[test]
fn icecreams_programs_answer_to_their_names() {
    let world = World::start();
    world.link("ice", "icecc");
    world.link("icecc", "icerun");
    world.link("ice", "iceccd");
    world.link("icerun", "generator");
    write(
        &world.path("work"),
        &[
            ("a.c", UNIT),
            ("real/generator", "#!/bin/sh\necho generated \"$@\"\n"),
        ],
    );
    let generator = world.path("work/real/generator");
    fs::set_permissions(&generator, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(succeed(&world, "icecc --version").starts_with("ICECC "));
    assert!(succeed(&world, "icerun --version").starts_with("ICERUN "));
    for name in ["icecc", "icerun", "iceccd"] {
        assert!(
            succeed(&world, &format!("{name} --help")).contains("Usage"),
            "{name}"
        );
    }
    succeed(&world, "icecc gcc -c a.c -o a.o && test -s a.o");
    assert!(last(&world).is_remote());
    succeed(&world, "icerun gcc -c a.c -o a.o");
    assert_eq!(last(&world).word(), "asked");
    assert_eq!(succeed(&world, "icerun echo a b"), "a b\n");
    // A link to icerun stands for the program behind it, by name and by path.
    for spelled in ["generator", "../bin/generator"] {
        let said = succeed(&world, &format!("PATH=$PATH:$PWD/real {spelled} x"));
        assert_eq!(said, "generated x\n", "{spelled}");
    }
}

#[test]
fn variables_of_icecream_have_their_meaning() {
    let world = World::start();
    write(&world.path("work"), &[("a.c", UNIT)]);
    let rows = [
        ("ICECC=no", "asked"),
        ("ICECC=NO", "asked"),
        ("ICECC=disable", "disabled"),
        ("ICECC=Disable", "disabled"),
        // The rest is accepted and changes nothing.
        ("ICECC=yes", ""),
        ("ICECC_CARET_WORKAROUND=1", ""),
        ("ICECC_COLOR_DIAGNOSTICS=0", ""),
        ("ICECC_COMPRESSION=19", ""),
        ("ICECC_SLOW_NETWORK=1", ""),
        ("ICECC_IGNORE_UNVERIFIED=1", ""),
        ("ICECC_TEST_REMOTEBUILD=1", ""),
    ];
    for (variable, word) in rows {
        succeed(&world, &format!("{variable} ice gcc -c a.c -o a.o"));
        let job = last(&world);
        assert_eq!(
            (job.is_remote(), job.word()),
            (word.is_empty(), word),
            "{variable}"
        );
    }
    // Another socket, and what is told where.
    let socket = world.text("sock");
    let script = format!("unset ICE_SOCKET; ICECC_TEST_SOCKET={socket} ice gcc -c a.c -o a.o");
    succeed(&world, &script);
    assert!(last(&world).is_remote());
    let script = "ICECC_DEBUG=1 UNCACHED_ERR_FD=7 ice gcc -c a.c -o a.o 7>story 2>said
        test ! -s said; grep -q 'went to' story";
    succeed(&world, script);
    let script =
        "ICECC_DEBUG=1 ICECC_LOGFILE=log UNCACHED_ERR_FD=7 ice gcc -c a.c -o a.o 7>story 2>said
        test ! -s said; test ! -s story; grep -q 'went to' log";
    succeed(&world, script);
    if !have(&["clang"]) {
        return;
    }
    let script = |variable: &str| {
        format!("{variable} ice clang -O1 -c a.c -o a.o && clang -O1 -c a.c -o b.o && cmp a.o b.o")
    };
    for variable in ["ICECC_CLANG_REMOTE_CPP=0", "ICECC_CLANG_REMOTE_CPP=1"] {
        succeed(&world, &script(variable));
        assert!(last(&world).is_remote(), "{variable}: {:?}", last(&world));
    }
}
