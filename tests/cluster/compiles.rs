//! Compiles that fail, warn, or write in unusual places: status, output and files are the
//! compiler's own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::cluster::{Cluster, two_workers};
use crate::joblog;
use crate::netns;
use crate::node::ALICE;

/// What one call came to: status, both streams, and every file with its mode and content.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: Option<i32>,
    stdout: String,
    stderr: String,
    files: BTreeMap<PathBuf, (u32, Vec<u8>)>,
}

/// The sources that all calls find.
const SOURCES: [(&str, &str); 10] = [
    ("good.c", "int good(int n) { return n + 1; }\n"),
    (
        "good.cc",
        "template <class T> T twice(T n) { return n + n; }\nint good() { return twice(2); }\n",
    ),
    ("warning.c", "int warned(void) { int unused; return 1; }\n"),
    ("error.c", "int wrong(void) { return undeclared }\n"),
    (
        "error.cc",
        "#include <vector>\nint wrong() { std::vector<int> v; return v.nothing(1, \"2\"); }\n",
    ),
    ("missing.c", "#include \"no such header.h\"\nint missing;\n"),
    (
        "shouting.h",
        "#ifndef TEXT\n#define TEXT \"text\"\n#endif\n",
    ),
    (
        "shouting.c",
        "#include \"shouting.h\"\nconst char *shout(void) { return TEXT __FILE__; }\n",
    ),
    ("dated.c", "const char *date = __DATE__ __TIME__;\n"),
    (
        "bytes.c",
        "__asm__(\".incbin \\\"good.c\\\"\");\nint bytes;\n",
    ),
];

/// The call as a shell has it, and whether it may run elsewhere.
const CALLS: [(&str, &str); 50] = [
    ("a file without fault", "$CC -c good.c -o out/a.o"),
    ("in C++", "$CXX -c good.cc -o out/a.o"),
    ("without an output", "$CC -O2 -c good.c"),
    ("a warning", "$CC -Wall -c warning.c -o out/a.o"),
    (
        "a warning in colours",
        "$CC -Wall -fdiagnostics-color=always -c warning.c -o out/a.o",
    ),
    (
        "a warning as an error",
        "$CC -Wall -Werror -c warning.c -o out/a.o",
    ),
    ("an error", "$CC -c error.c -o out/a.o"),
    ("an error in C++", "$CXX -c error.cc -o out/a.o"),
    (
        "an error where an object was",
        "echo old > out/a.o; $CC -c error.c -o out/a.o",
    ),
    ("a missing header", "$CC -c missing.c -o out/a.o"),
    ("a missing source", "$CC -c nothing.c -o out/a.o"),
    (
        "an unknown option",
        "$CC -fno-such-option -c good.c -o out/a.o",
    ),
    ("a missing directory", "$CC -c good.c -o nowhere/a.o"),
    (
        "a directory that can't be written",
        "chmod 555 out; $CC -c good.c -o out/a.o; s=$?; chmod 755 out; exit $s",
    ),
    (
        "an object that can't be written",
        "echo old > out/a.o; chmod 444 out/a.o; $CC -c good.c -o out/a.o",
    ),
    (
        "a source that can't be read",
        "chmod 000 good.c; $CC -c good.c -o out/a.o; s=$?; chmod 644 good.c; exit $s",
    ),
    ("a strict umask", "umask 077; $CC -c good.c -o out/a.o"),
    ("a group's umask", "umask 002; $CC -MD -c good.c -o out/a.o"),
    (
        "a mode that is there",
        "echo old > out/a.o; chmod 600 out/a.o; $CC -c good.c -o out/a.o",
    ),
    (
        "a mode of an empty file",
        "touch out/a.o; chmod 600 out/a.o; $CC -c good.c -o out/a.o",
    ),
    (
        "a mode of a dependency file",
        "echo old > out/a.d; chmod 600 out/a.d; $CC -MD -c good.c -o out/a.o",
    ),
    (
        "a mode of assembly",
        "echo old > out/a.s; chmod 600 out/a.s; $CC -S good.c -o out/a.s",
    ),
    (
        "an object behind a symlink",
        "ln -s real.o out/a.o; $CC -c good.c -o out/a.o",
    ),
    (
        "an object with two names",
        "echo old > out/a.o; ln out/a.o out/b.o; $CC -c good.c -o out/a.o",
    ),
    ("debug information", "$CC -g -O2 -c good.c -o out/a.o"),
    ("macros in it", "$CC -g3 -c shouting.c -o out/a.o"),
    (
        "split debug information",
        "$CC -g -gsplit-dwarf -c good.c -o out/a.o",
    ),
    (
        "a directory under another name",
        "ln -s out link; cd link; $CC -g -c ../good.c",
    ),
    (
        "a directory with an untrue name",
        "PWD=/nowhere; export PWD; $CC -g -c good.c -o out/a.o",
    ),
    (
        "paths that are mapped",
        "$CC -g -ffile-prefix-map=$(pwd)=/x -c shouting.c -o out/a.o",
    ),
    (
        "an absolute source",
        "$CC -g -c $(pwd)/good.c -o $(pwd)/out/a.o",
    ),
    (
        "coverage",
        "$CC --coverage -frandom-seed=1 -c good.c -o out/a.o",
    ),
    ("stack usage", "$CC -fstack-usage -c good.c -o out/a.o"),
    (
        "steps that are kept",
        "$CC -save-temps -c good.c -o out/a.o",
    ),
    (
        "dependencies by hand",
        "$CC -MMD -MP -MF out/x.d -MT a -MQ 'b c' -c shouting.c -o out/a.o",
    ),
    (
        "dependencies past the driver",
        "$CC -Wp,-MD,out/x.d -c shouting.c -o out/a.o",
    ),
    (
        "a response file",
        "echo '-DA=1 -c good.c -o out/a.o' > words; $CC @words",
    ),
    (
        "an include by option",
        "$CC -include shouting.h -c good.c -o out/a.o",
    ),
    (
        "text in a macro",
        "$CC -DTEXT='\"a  b\\n\"' -c shouting.c -o out/a.o",
    ),
    (
        "a name with a space and no text",
        "n=$(printf 'a \\377b'); cp good.c \"$n.c\"; $CC -g -c \"$n.c\" -o \"out/$n.o\"",
    ),
    (
        "optimisation across units",
        "$CC -flto -frandom-seed=1 -O2 -c good.c -o out/a.o",
    ),
    (
        "sections",
        "$CXX -O2 -ffunction-sections -fPIC -fvisibility=hidden -c good.cc -o out/a.o",
    ),
    (
        "for this very machine",
        "$CC -O2 -march=native -c good.c -o out/a.o",
    ),
    (
        "a time that is given",
        "SOURCE_DATE_EPOCH=1 $CC -c dated.c -o out/a.o",
    ),
    ("bytes that are included", "$CC -c bytes.c -o out/a.o"),
    ("an output that is a directory", "$CC -c good.c -o out"),
    ("no output at all", "$CC -c good.c -o /dev/null"),
    ("syntax only", "$CC -fsyntax-only -Wall warning.c"),
    ("standard input", "$CC -xc -c - -o out/a.o < good.c"),
    ("two files", "$CC -c good.c warning.c -Wall"),
];

#[test]
fn whatever_a_compile_comes_to_is_what_the_compiler_says() {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    let log = cluster.home(ALICE).join("jobs");
    let ours = (
        "ours",
        cluster.called_by_word("gcc"),
        cluster.called_by_word("g++"),
    );
    let plain = ("plain", "gcc".to_owned(), "g++".to_owned());
    let mut different = Vec::new();
    for (what, call) in CALLS {
        let [plain, ours] = [&plain, &ours].map(|(name, gcc, gxx)| {
            // The working directory is the same in both runs, for whatever names it.
            let directory = cluster.home(ALICE).join("work");
            write_sources(&directory);
            let mut command = cluster.command(ALICE, Path::new("/bin/sh"));
            command
                .args(["-c", call])
                .env("CC", gcc)
                .env("CXX", gxx)
                .env("ICE_JOB_LOG", &log)
                .current_dir(&directory);
            let output = cluster.here(|| command.output()).unwrap();
            let outcome = outcome(output, &directory);
            fs::remove_dir_all(&directory).unwrap();
            println!("{name}: {what}: {:?}", outcome.status);
            outcome
        });
        if plain != ours {
            different.push(format!(
                "{what}: {call}\nplain: {plain:#?}\nours: {ours:#?}"
            ));
        }
    }
    let jobs = joblog::read(&log);
    println!("{jobs:#?}");
    assert!(different.is_empty(), "{}", different.join("\n\n"));
    assert!(jobs.iter().filter(|job| job.is_remote()).count() >= 8);
}

fn write_sources(directory: &Path) {
    ALICE.make_directory(directory);
    ALICE.make_directory(&directory.join("out"));
    for (name, text) in SOURCES {
        fs::write(directory.join(name), text).unwrap();
        ALICE.own(&directory.join(name));
    }
}

fn outcome(output: Output, directory: &Path) -> Outcome {
    let mut files = BTreeMap::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(below) = directories.pop() {
        for entry in fs::read_dir(directory.join(&below)).unwrap() {
            let path = below.join(entry.unwrap().file_name());
            let at = directory.join(&path);
            let found = fs::symlink_metadata(&at).unwrap();
            if found.is_dir() {
                directories.push(path);
            } else {
                let content = match found.is_symlink() {
                    true => fs::read_link(&at)
                        .unwrap()
                        .into_os_string()
                        .into_encoded_bytes(),
                    false => fs::read(&at).unwrap(),
                };
                assert_eq!(found.uid(), ALICE.0, "{}", path.display());
                files.insert(path, (found.permissions().mode() & 0o7777, content));
            }
        }
    }
    Outcome {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        files,
    }
}
