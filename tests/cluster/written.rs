//! Whatever a flag makes a compiler write, change or remove: afterwards each directory holds what
//! the plain compiler leaves in it, by name, mode and content.
//!
//! The plain compiler runs twice. Where it does not write the same bytes twice (times, addresses),
//! names and modes alone are compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::cluster::{Cluster, two_workers};
use crate::joblog;
use crate::netns;
use crate::node::ALICE;

/// Where a call may run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// It has to go to a worker, or the test has shown nothing.
    Elsewhere,
    /// It may stay here.
    Anywhere,
}
use Place::{Anywhere, Elsewhere};

const SOURCES: [(&str, &str); 4] = [
    (
        "unit.c",
        "#include \"unit.h\"\n\
         static int twice(int n) { return n + n; }\n\
         int unit(int n) { int s = 0; for (int i = 0; i < n; i++) s += twice(i) * table[i & 3]; return s; }\n",
    ),
    (
        "unit.h",
        "static const int table[4] = {1, 2, 3, 4};\nint unit(int n);\n",
    ),
    (
        "unit.cc",
        "template <class T> struct Box { T value; virtual ~Box() {} };\n\
         struct Filled : Box<int> { int more; };\n\
         int unit(Filled *f) { return f->value + f->more; }\n",
    ),
    ("wrong.c", "int wrong(void) { return undeclared; }\n"),
];

/// Calls of gcc and clang alike.
const BOTH: &[(Place, &str)] = &[
    (Elsewhere, "$CC -c unit.c"),
    (Elsewhere, "$CC -c unit.c -o out/a.o"),
    (Elsewhere, "$CC -c unit.c -o out/a"),
    (Elsewhere, "$CC -S unit.c -o out/a.s"),
    (Elsewhere, "$CC -S unit.c"),
    (Elsewhere, "$CC -MD -c unit.c -o out/a.o"),
    (Elsewhere, "$CC -MD -MF deps/b.d -c unit.c -o out/a.o"),
    (Elsewhere, "$CC -MD -c unit.c"),
    (Elsewhere, "$CC -g -gsplit-dwarf -c unit.c -o out/a.o"),
    (Elsewhere, "$CC -g -gsplit-dwarf -c unit.c"),
    (Elsewhere, "$CC --coverage -c unit.c -o out/a.o"),
    (Elsewhere, "$CC -ftest-coverage -fprofile-arcs -c unit.c"),
    (Elsewhere, "$CC -fstack-usage -c unit.c -o out/a.o"),
    (Elsewhere, "$CC -save-temps -c unit.c -o out/a.o"),
    (Elsewhere, "$CC -save-temps=obj -c unit.c -o out/a.o"),
    (Elsewhere, "$CC -save-temps=cwd -c unit.c -o out/a.o"),
    (
        Elsewhere,
        "$CC -save-temps=obj -g -gsplit-dwarf -MD -c unit.c -o out/a.o",
    ),
    (
        Elsewhere,
        "cd out && $CC -save-temps -MMD -c ../unit.c -o ../deps/a.o",
    ),
    (
        Elsewhere,
        "umask 077; $CC -save-temps -MD -g -gsplit-dwarf -c unit.c -o out/a.o",
    ),
    (Anywhere, "umask 0; $CC -MD -c unit.c -o out/a.o"),
    (Anywhere, "$CC -c unit.c -o out/none/a.o"),
    (Anywhere, "$CC -MD -MF none/a.d -c unit.c -o out/a.o"),
    // What is there already.
    (Anywhere, "echo old > out/a.o; $CC -c wrong.c -o out/a.o"),
    (Anywhere, "echo old > out/a.s; $CC -S wrong.c -o out/a.s"),
    (Anywhere, "echo old > wrong.o; $CC -c wrong.c"),
    (Anywhere, "echo old > wrong.s; $CC -S wrong.c"),
    (
        Anywhere,
        "echo old > out/a.d; $CC -MD -c wrong.c -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > out/a.d; echo old > out/a.o; $CC -MD -c wrong.c -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > out/a.d; $CC -MD -MF out/a.d -c wrong.c -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > out/a.o; $CC -pipe -c wrong.c -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > out/a.o; $CC -c wrong.c -fsyntax-only -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > out/a.dwo; $CC -g -gsplit-dwarf -c wrong.c -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > out/a.su; $CC -fstack-usage -c wrong.c -o out/a.o",
    ),
    (Anywhere, "$CC -save-temps -c wrong.c -o out/a.o"),
    (
        Anywhere,
        "echo old > out/a.gcno; echo data > out/a.gcda; $CC --coverage -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > out/a.gcno; chmod 640 out/a.gcno; $CC --coverage -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > out/a.dwo; chmod 600 out/a.dwo; $CC -g -gsplit-dwarf -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > out/b.su; ln -s b.su out/a.su; $CC -fstack-usage -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > out/b.su; ln out/b.su out/a.su; $CC -fstack-usage -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > out/b.dwo; ln -s b.dwo out/a.dwo; $CC -g -gsplit-dwarf -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > out/a.su; chmod 400 out/a.su; $CC -fstack-usage -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "mkdir out/a.su; $CC -fstack-usage -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "ln -s nowhere/a.gcno out/a.gcno; $CC --coverage -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > unit.i; chmod 600 unit.i; $CC -save-temps -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "ln -s out link; $CC -MD -fstack-usage -c unit.c -o link/a.o",
    ),
    (Anywhere, "$CC -MD -MF /dev/null -c unit.c -o out/a.o"),
    (
        Anywhere,
        "mkdir -p a/b; cd a/b; $CC -MD -c ../../unit.c -o ../a.o",
    ),
    (Anywhere, "chmod 2775 out; $CC -MD -c unit.c -o out/a.o"),
];

/// Calls of gcc alone.
const GCC: &[(Place, &str)] = &[
    (Elsewhere, "$CC -O2 -fdump-tree-all -c unit.c -o out/a.o"),
    (Elsewhere, "$CC -O2 -fdump-rtl-all -c unit.c -o out/a.o"),
    (Elsewhere, "$CC -O2 -fdump-ipa-all -c unit.c"),
    (
        Elsewhere,
        "$CC -O2 -fdump-tree-optimized-lineno -c unit.c -o out/a.o",
    ),
    (Elsewhere, "$CC -O2 -fdump-passes -c unit.c -o out/a.o"),
    (
        Anywhere,
        "$CC -O2 -fdump-tree-optimized=dump.txt -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "$CC -O2 -fdump-tree-optimized=deps/dump.txt -c unit.c -o out/a.o",
    ),
    (Anywhere, "$CC -O2 -fdump-final-insns -c unit.c -o out/a.o"),
    (
        Anywhere,
        "$CC -O2 -fdump-final-insns=deps/x -c unit.c -o out/a.o",
    ),
    (Anywhere, "$CC -fdump-go-spec=spec -c unit.c -o out/a.o"),
    (Elsewhere, "$CXX -fdump-lang-all -c unit.cc -o out/a.o"),
    (Elsewhere, "$CXX -fdump-lang-class -c unit.cc"),
    (Elsewhere, "$CC -O2 -da -c unit.c -o out/a.o"),
    (Elsewhere, "$CC -O2 -dA -S unit.c -o out/a.s"),
    (Elsewhere, "$CC -O2 -fopt-info -c unit.c -o out/a.o"),
    (
        Anywhere,
        "$CC -O3 -fopt-info-all=deps/opt.txt -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "$CC -O3 -fopt-info-vec-all=opt.txt -c unit.c -o out/a.o",
    ),
    (
        Elsewhere,
        "$CC -O2 -fsave-optimization-record -c unit.c -o out/a.o",
    ),
    (Elsewhere, "$CC -fcallgraph-info=su,da -c unit.c -o out/a.o"),
    (Elsewhere, "$CC -fcallgraph-info -c unit.c"),
    (Elsewhere, "$CC -aux-info proto.txt -c unit.c -o out/a.o"),
    (
        Elsewhere,
        "$CC -aux-info deps/proto.txt -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "$CC -fdiagnostics-format=sarif-file -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "$CC -fdiagnostics-format=json-file -Wall -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "$CC -dumpdir deps/ -O2 -fdump-tree-optimized -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "$CC -dumpbase x -O2 -fdump-tree-optimized -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "$CC --coverage -fprofile-dir=deps -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "$CC --coverage -fprofile-note=deps/x.gcno -c unit.c -o out/a.o",
    ),
    (
        Elsewhere,
        "$CC -flto -ffat-lto-objects -save-temps=obj -O2 -c unit.c -o out/a.o",
    ),
    (Anywhere, "$CC -Wa,-adhln=deps/list -g -c unit.c -o out/a.o"),
    (Anywhere, "$CC -Wa,--MD,deps/as.d -c unit.c -o out/a.o"),
    (Anywhere, "$CC -Wp,-MD,deps/x.d,-MT,t -c unit.c -o out/a.o"),
    (Anywhere, "$CC -fcompare-debug -c unit.c -o out/a.o"),
    (Anywhere, "$CC -wrapper env -c unit.c -o out/a.o"),
    (Anywhere, "$CC -time=deps/times -c unit.c -o out/a.o"),
    (Anywhere, "$CC -fmem-report -c unit.c -o out/a.o"),
    (Anywhere, "$CC -x c-header unit.h -o out/unit.h.gch"),
    (
        Anywhere,
        "DEPENDENCIES_OUTPUT=deps/all.d $CC -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "SUNPRO_DEPENDENCIES='deps/all.d x' $CC -c unit.c -o out/a.o",
    ),
    (Anywhere, "$CC -Q -ftime-report -c unit.c -o out/a.o"),
    (
        Anywhere,
        "echo old > out/a.c.250t.optimized; $CC -O2 -fdump-tree-optimized -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "echo old > out/a.s; $CC -S -save-temps=obj wrong.c -o out/a.s",
    ),
];

/// Calls of clang alone.
const CLANG: &[(Place, &str)] = &[
    (Elsewhere, "$CC -ftime-trace -c unit.c -o out/a.o"),
    (Elsewhere, "$CC -ftime-trace -c unit.c"),
    (Anywhere, "$CC -ftime-trace=deps/trace -c unit.c -o out/a.o"),
    (
        Elsewhere,
        "$CC -O2 -fsave-optimization-record -c unit.c -o out/a.o",
    ),
    (
        Elsewhere,
        "$CC -O2 -fsave-optimization-record -foptimization-record-file=deps/r -c unit.c -o out/a.o",
    ),
    (
        Elsewhere,
        "$CC --serialize-diagnostics deps/dia -c unit.c -o out/a.o",
    ),
    (Elsewhere, "$CC -emit-llvm -c unit.c -o out/a.bc"),
    (Elsewhere, "$CC -emit-llvm -S unit.c"),
    (Elsewhere, "$CC -flto=thin -c unit.c -o out/a.o"),
    (
        Elsewhere,
        "$CC -g -gsplit-dwarf=single -c unit.c -o out/a.o",
    ),
    (Anywhere, "$CC -MJ deps/db.json -c unit.c -o out/a.o"),
    (
        Anywhere,
        "$CC -fcrash-diagnostics-dir=deps -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "$CC -fprofile-instr-generate=deps/p -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "$CC -Xclang -dependency-dot -Xclang deps/dot -c unit.c -o out/a.o",
    ),
    (Anywhere, "$CC -fno-temp-file -c unit.c -o out/a.o"),
    (
        Anywhere,
        "$CC -no-canonical-prefixes -save-stats -c unit.c -o out/a.o",
    ),
    (Anywhere, "$CC -save-stats=obj -c unit.c -o out/a.o"),
    (
        Anywhere,
        "$CC -fproc-stat-report=deps/stat -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "CC_PRINT_OPTIONS=1 CC_PRINT_OPTIONS_FILE=deps/options $CC -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "$CC -fmodules -fmodules-cache-path=deps -c unit.c -o out/a.o",
    ),
    (
        Anywhere,
        "$CC -mllvm -print-after-all -mllvm -filter-print-funcs=none -c unit.c -o out/a.o",
    ),
];

#[test]
fn gcc_leaves_behind_what_it_leaves_behind_here() {
    compare("gcc", "g++", &[BOTH, GCC]);
}

#[test]
fn clang_leaves_behind_what_it_leaves_behind_here() {
    if Path::new("/usr/bin/clang").exists() {
        compare("clang", "clang++", &[BOTH, CLANG]);
    } else {
        crate::support::skipped("there is no clang here");
    }
}

/// By path: the kind, the permissions and the content.
type Listing = BTreeMap<PathBuf, (char, u32, Vec<u8>)>;

fn compare(c: &str, cxx: &str, tables: &[&[(Place, &str)]]) {
    if !netns::possible() {
        return;
    }
    let cluster = Cluster::start(&two_workers(ALICE));
    let log = cluster.home(ALICE).join("jobs");
    let plain = (c.to_owned(), cxx.to_owned());
    let ours = (cluster.called_by_word(c), cluster.called_by_word(cxx));
    let mut wrong = Vec::new();
    for &(place, call) in tables.iter().copied().flatten() {
        let [first, second, ours] = [&plain, &plain, &ours].map(|(c, cxx)| {
            let directory = cluster.home(ALICE).join("work");
            write_sources(&directory);
            let mut command = cluster.command(ALICE, Path::new("/bin/sh"));
            command
                .args(["-c", call])
                .env("CC", c)
                .env("CXX", cxx)
                .env("ICE_JOB_LOG", &log)
                .current_dir(&directory);
            let output = cluster.here(|| command.output()).unwrap();
            let mut listing = Listing::new();
            list(&directory, Path::new(""), &mut listing);
            fs::remove_dir_all(&directory).unwrap();
            (output.status.code(), listing)
        });
        let job = joblog::read(&log).pop();
        let said = match &job {
            Some(job) if job.is_remote() => "elsewhere".to_owned(),
            job => format!("here: {}", job.as_ref().map_or("", |job| job.word())),
        };
        println!("{c}: {call}: {said}, {} names", ours.1.len());
        let _ = fs::remove_file(&log);
        if place == Elsewhere && !job.is_some_and(|job| job.is_remote()) {
            wrong.push(format!("{call}: it was compiled {said}"));
        }
        if first.0 != ours.0 {
            wrong.push(format!("{call}: {:?} instead of {:?}", ours.0, first.0));
        }
        wrong.extend(
            differences(&first.1, &second.1, &ours.1)
                .into_iter()
                .map(|difference| format!("{call}: {difference} ({said})")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn differences(first: &Listing, second: &Listing, ours: &Listing) -> Vec<String> {
    let mut found = Vec::new();
    let names = first.keys().chain(ours.keys());
    for name in names.collect::<std::collections::BTreeSet<_>>() {
        let what = match (first.get(name), ours.get(name)) {
            (Some(_), None) => "is missing".to_owned(),
            (None, Some(_)) => "is there".to_owned(),
            (Some(plain), Some(ours)) if (plain.0, plain.1) != (ours.0, ours.1) => format!(
                "is {}{:o} instead of {}{:o}",
                ours.0, ours.1, plain.0, plain.1
            ),
            (Some(plain), Some(ours)) if plain.2 != ours.2 => {
                if second.get(name).is_some_and(|second| second.2 != plain.2) {
                    continue;
                }
                "has another content".to_owned()
            }
            _ => continue,
        };
        found.push(format!("{} {what}", name.display()));
    }
    found
}

fn write_sources(directory: &Path) {
    for name in ["", "out", "deps"] {
        ALICE.make_directory(&directory.join(name));
    }
    for (name, text) in SOURCES {
        fs::write(directory.join(name), text).unwrap();
        ALICE.own(&directory.join(name));
    }
}

fn list(directory: &Path, below: &Path, listing: &mut Listing) {
    for entry in fs::read_dir(directory.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        let at = directory.join(&path);
        let found = fs::symlink_metadata(&at).unwrap();
        let (kind, content) = if found.is_dir() {
            list(directory, &path, listing);
            ('d', Vec::new())
        } else if found.is_symlink() {
            let target = fs::read_link(&at).unwrap();
            ('l', target.into_os_string().into_encoded_bytes())
        } else {
            ('-', fs::read(&at).unwrap())
        };
        listing.insert(path, (kind, found.permissions().mode() & 0o7777, content));
    }
}
