//! The include scanner on every unit of real projects, against what their compilers open.
//!
//! The truth comes from the kernel: `strace` shows every file that a compiler opened or found, also
//! those that were only asked for. Each must be among what the scan lists, and so must every symlink
//! on the way to it. Not one may be missing, and none of these units may be declined.
//!
//! Tracing is slow, so a third of the units is taken, and of Boost those that include by macro most;
//! with `ICE_ALL_UNITS=1` all are. `ICE_PROJECT=lua` takes one project.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use ice::id::{AbsPath, Bytes};
use ice::include::{Family, Language, Limits, ScanRequest, Scanner, SearchList};

/// Units that are compiled alike.
struct Project {
    name: &'static str,
    root: PathBuf,
    compiler: &'static str,
    flags: Vec<String>,
    units: Vec<String>,
}

/// Units over Boost's headers; computed includes are everywhere in them.
const BOOST: [(&str, &str); 12] = [
    ("asio", "#include <boost/asio.hpp>\n"),
    (
        "mpl",
        "#define BOOST_MPL_LIMIT_LIST_SIZE 30\n#define BOOST_MPL_CFG_NO_PREPROCESSED_HEADERS\n\
         #include <boost/mpl/list.hpp>\n#include <boost/mpl/map.hpp>\n#include <boost/mpl/bind.hpp>\n\
         #include <boost/mpl/apply_wrap.hpp>\n#include <boost/mpl/advance.hpp>\n",
    ),
    (
        "mpl_preprocessed",
        "#include <boost/mpl/vector.hpp>\n#include <boost/mpl/fold.hpp>\n\
         #include <boost/mpl/lambda.hpp>\n#include <boost/mpl/set/set40.hpp>\n",
    ),
    (
        "preprocessor",
        "#include <boost/preprocessor.hpp>\n\
         #define BOOST_PP_ITERATION_PARAMS_1 (3, (0, 3, \"each.hpp\"))\n#include BOOST_PP_ITERATE()\n\
         #define BOOST_PP_FILENAME_1 \"each.hpp\"\n#define BOOST_PP_ITERATION_LIMITS (0, 2)\n\
         #include BOOST_PP_ITERATE()\n#define BOOST_PP_VALUE 1 + 2\n#include BOOST_PP_ASSIGN_SLOT(1)\n",
    ),
    ("spirit", "#include <boost/spirit/include/qi.hpp>\n"),
    ("karma", "#include <boost/spirit/include/karma.hpp>\n"),
    (
        "fusion",
        "#include <boost/fusion/include/vector.hpp>\n#include <boost/fusion/include/map.hpp>\n\
         #include <boost/fusion/include/adapt_struct.hpp>\n",
    ),
    (
        "multi_index",
        "#include <boost/multi_index_container.hpp>\n#include <boost/multi_index/ordered_index.hpp>\n\
         #include <boost/multi_index/hashed_index.hpp>\n#include <boost/multi_index/member.hpp>\n",
    ),
    (
        "function_types",
        "#include <boost/function_types/function_type.hpp>\n\
         #include <boost/function_types/is_callable_builtin.hpp>\n\
         #include <boost/typeof/typeof.hpp>\n",
    ),
    ("proto", "#include <boost/proto/proto.hpp>\n"),
    (
        "graph",
        "#include <boost/graph/adjacency_list.hpp>\n#include <boost/graph/dijkstra_shortest_paths.hpp>\n",
    ),
    (
        "msm",
        "#include <boost/msm/back/state_machine.hpp>\n#include <boost/msm/front/state_machine_def.hpp>\n\
         #include <boost/parameter.hpp>\n#include <boost/phoenix.hpp>\n",
    ),
];

#[test]
fn every_file_that_a_compiler_opens_was_scanned() {
    if Command::new("strace").arg("-V").output().is_err() {
        return support::skipped("strace is not there");
    }
    let only = std::env::var("ICE_PROJECT").unwrap_or_default();
    let scratch = tempfile::tempdir().unwrap();
    let boost = fs::canonicalize(scratch.path()).unwrap();
    let mut projects = projects(&boost);
    if std::env::var_os("ICE_ALL_UNITS").is_none() {
        for project in &mut projects {
            sample(project);
        }
    }
    assert!(projects.len() >= 4, "too few projects");
    for project in projects {
        if project.name.contains(&only) {
            check(&project);
        }
    }
}

/// Leaves a third of the units.
fn sample(project: &mut Project) {
    let mut at = 0;
    project.units.retain(|unit| {
        at += 1;
        match project.name {
            "boost" => ["mpl.cc", "preprocessor.cc", "multi_index.cc"].contains(&&**unit),
            _ => at % 3 == 1,
        }
    });
    assert!(project.units.len() >= 3, "{}: too few units", project.name);
}

fn projects(boost: &Path) -> Vec<Project> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let lua = support::package("lua-src").join("lua-5.4.7");
    let leveldb = support::package("leveldb-sys").join("deps/leveldb-1.22");
    let zstd = support::package("zstd-sys").join("zstd/lib");
    let is_test = |path: &str| {
        [
            "_test.cc",
            "_bench.cc",
            "windows",
            "testharness",
            "testutil",
        ]
        .iter()
        .any(|part| path.contains(part))
    };
    let mut projects = Vec::new();
    for compiler in ["gcc", "clang"] {
        projects.push(Project {
            name: "lua",
            compiler,
            flags: words("-DLUA_USE_POSIX"),
            units: files(&lua, &["."], ".c"),
            root: lua.clone(),
        });
        projects.push(Project {
            name: "zstd",
            compiler,
            flags: words(
                "-DZSTD_MULTITHREAD -DXXH_NAMESPACE=ZSTD_ -I. -Icommon -DZSTD_LEGACY_SUPPORT=1",
            ),
            units: files(
                &zstd,
                &["common", "compress", "decompress", "dictBuilder", "legacy"],
                ".c",
            ),
            root: zstd.clone(),
        });
    }
    for compiler in ["g++", "clang++"] {
        let mut units = files(&leveldb, &["db", "table", "util"], ".cc");
        units.retain(|unit| !is_test(unit));
        projects.push(Project {
            name: "leveldb",
            compiler,
            flags: words(
                "-std=c++11 -I. -Iinclude -DLEVELDB_PLATFORM_POSIX=1 -DLEVELDB_IS_BIG_ENDIAN=0",
            ),
            units,
            root: leveldb.clone(),
        });
    }
    if Path::new("/usr/include/boost/version.hpp").exists() {
        for (name, text) in BOOST {
            fs::write(boost.join(format!("{name}.cc")), text).unwrap();
        }
        fs::write(
            boost.join("each.hpp"),
            "int BOOST_PP_CAT(x, BOOST_PP_ITERATION());\n",
        )
        .unwrap();
        projects.push(Project {
            name: "boost",
            compiler: "g++",
            flags: words("-std=c++17 -I."),
            units: files(boost, &["."], ".cc"),
            root: boost.to_owned(),
        });
    } else {
        support::skipped("Boost is not there");
    }
    projects.retain(|project| {
        let is_there = Command::new(project.compiler)
            .arg("--version")
            .output()
            .is_ok();
        if !is_there {
            support::skipped(&format!("{} is not there", project.compiler));
        }
        is_there
    });
    projects
}

/// The files with a suffix in some directories, relative to the root.
fn files(root: &Path, directories: &[&str], suffix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for directory in directories {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(suffix) {
                let path = format!("{directory}/{name}");
                found.push(path.strip_prefix("./").unwrap_or(&path).to_owned());
            }
        }
    }
    found.sort();
    found
}

fn check(project: &Project) {
    let start = Instant::now();
    let root = fs::canonicalize(&project.root).unwrap();
    let cwd = AbsPath::parse(Bytes::from(&*root).0).unwrap();
    let cxx = project.compiler.ends_with('+');
    let search = search_list(project, if cxx { "c++" } else { "c" });
    let value = |option: &str| {
        let values = project
            .flags
            .iter()
            .filter_map(|flag| flag.strip_prefix(option));
        values.map(Bytes::from).collect::<Vec<_>>()
    };
    let (defines, named) = (value("-D"), value("-I"));
    let scanner = Mutex::new(Scanner::new(Limits::default()));
    let queue = Mutex::new(project.units.iter());
    let sums = Mutex::new((0, 0, Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(unit) = queue.lock().unwrap().next() else {
                        return;
                    };
                    let request = ScanRequest {
                        cwd: &cwd,
                        main: unit.as_bytes(),
                        search: &search,
                        named_dirs: &named,
                        forced: &[],
                        defines: &defines,
                        extra: &[],
                        family: match project.compiler.starts_with("clang") {
                            true => Family::Clang,
                            false => Family::Gcc,
                        },
                        language: if cxx { Language::Cxx } else { Language::C },
                    };
                    let scan = scanner.lock().unwrap().scan(&request);
                    let scan = scan.unwrap_or_else(|why| panic!("{} {unit}: {why}", project.name));
                    let listed: BTreeSet<&Path> = scan
                        .entries
                        .iter()
                        .map(|one| one.entry.path.as_path())
                        .collect();
                    let opened = opened(project, &root, unit);
                    assert!(opened.contains(&root.join(unit)), "{unit}: {opened:?}");
                    let mut sums = sums.lock().unwrap();
                    sums.0 += opened.len();
                    sums.1 += listed.len();
                    let missed = opened.iter().flat_map(|path| on_the_way(path));
                    let missed = missed.filter(|path| !listed.contains(&**path));
                    sums.2
                        .extend(missed.map(|path| format!("{unit}: {}", path.display())));
                }
            });
        }
    });
    let (opened, listed, missed) = sums.into_inner().unwrap();
    let _ = writeln!(
        std::io::stderr(),
        "{} with {}: {} units, {opened} files opened, {listed} entries scanned, {} missed, {:.1} s",
        project.name,
        project.compiler,
        project.units.len(),
        missed.len(),
        start.elapsed().as_secs_f64(),
    );
    assert!(missed.is_empty(), "{missed:#?}");
}

fn search_list(project: &Project, language: &str) -> SearchList {
    let output = Command::new(project.compiler)
        .args(&project.flags)
        .args(["-v", "-E", "-x", language, "/dev/null"])
        .env("LC_ALL", "C")
        .current_dir(&project.root)
        .output()
        .unwrap();
    SearchList::parse(&output.stderr).unwrap()
}

/// The regular files that the compiler opened or found, as it spelled them, absolute.
fn opened(project: &Project, root: &Path, unit: &str) -> BTreeSet<PathBuf> {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new("strace")
        // Other system calls are not stopped at, which is most of the cost.
        .args(["-f", "--seccomp-bpf"])
        .args(["-qq", "-s", "4096", "-e", "signal=none", "-o"])
        .arg(trace.path())
        .args([
            "-e",
            "trace=open,openat,access,stat,lstat,newfstatat,statx,readlink",
        ])
        .arg(project.compiler)
        .args(&project.flags)
        .args(["-E", "-o", "/dev/null", unit])
        .env("LC_ALL", "C")
        .current_dir(root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{unit}: {said}");
    let text = String::from_utf8_lossy(&fs::read(trace.path()).unwrap()).into_owned();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let Some((call, result)) = line.rsplit_once(" = ") else {
            continue;
        };
        if result.starts_with('-') {
            continue;
        }
        // A path with a quote would be escaped; these projects have none.
        let Some(name) = call.split('"').nth(1) else {
            continue;
        };
        let path = root.join(name);
        if !is_of_the_toolchain(&path) && path.is_file() {
            found.insert(path);
        }
    }
    found
}

/// What a compiler needs to run, which is no header.
fn is_of_the_toolchain(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_header = text.contains("/include/") || text.contains("/include-fixed/");
    let elsewhere = ["/proc/", "/etc/", "/dev/", "/sys/", "/bin/", "/usr/bin/"];
    let is_library = (text.starts_with("/lib") || text.starts_with("/usr/li")) && !is_header;
    elsewhere.iter().any(|top| text.starts_with(top))
        || is_library
        || name.starts_with("locale")
        || text.starts_with("/usr/share/locale")
}

/// The canonical path of a file, and of every symlink on the way to it.
fn on_the_way(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![fs::canonicalize(path).unwrap()];
    let mut at = PathBuf::from("/");
    for part in path.components() {
        at.push(part);
        if at.is_symlink() {
            let parent = fs::canonicalize(at.parent().unwrap()).unwrap();
            found.push(parent.join(at.file_name().unwrap()));
        }
    }
    found
}
