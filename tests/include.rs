//! The include scanner against real compilers and a real file system.
//!
//! The oracle is a replay: what a scan lists is copied into an empty tree, and nothing else; there the
//! same command must print the same, byte for byte, as in the full tree. So a missed header, a missed
//! probe, a missing directory or symlink and a wrong first match all show.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ice::id::{AbsPath, Bytes, Digest};
use ice::include::{
    Decline, Family, Forced, Language, Limits, Scan, ScanRequest, Scanner, SearchList,
};
use ice::message::{Entry, EntryKind};

#[test]
fn a_tree_of_what_was_scanned_compiles_like_the_whole_one() {
    let only: Option<u64> = std::env::var("ICE_SEED").ok().and_then(|s| s.parse().ok());
    let compilers: Vec<Compiler> = [("gcc", Family::Gcc), ("clang", Family::Clang)]
        .into_iter()
        .filter(|(program, _)| has_program(program))
        .map(|(program, family)| Compiler { program, family })
        .collect();
    assert!(!compilers.is_empty(), "no compiler");
    let (mut compared, mut declined) = (0, 0);
    // `ICE_SEED=7` takes that tree, `ICE_SEEDS=1000` takes as many.
    let seeds = std::env::var("ICE_SEEDS").ok().and_then(|s| s.parse().ok());
    let seeds: u64 = seeds.unwrap_or(60);
    for seed in only.map_or(0..seeds, |seed| seed..seed + 1) {
        let space = Space::new();
        let flags = random_tree(&mut Rng(seed), &space);
        for compiler in &compilers {
            let mut scanner = Scanner::new(Limits::default());
            let scan = match scan(&mut scanner, compiler, &space, &flags, &[]) {
                Ok(scan) => scan,
                // The tree has a loop of symlinks, or asks for a file in a puzzling way.
                Err(Decline::Unreadable(_) | Decline::Computed { .. }) => {
                    declined += 1;
                    continue;
                }
                Err(decline) => panic!("ICE_SEED={seed} {}: {decline}", compiler.program),
            };
            let replay = Space::new();
            replay.materialise(&space, &scan);
            let here = compiler.preprocess(&space, &flags);
            let there = compiler.preprocess(&replay, &flags);
            let words = |output: &Output| {
                let streams = [&output.stdout[..], b"--- stderr\n", &output.stderr].concat();
                format!(
                    "{:?}\n{}",
                    output.status.code(),
                    String::from_utf8_lossy(&streams)
                )
            };
            assert_eq!(
                words(&here),
                words(&there),
                "ICE_SEED={seed} {} {flags:?}\n{}",
                compiler.program,
                space.listing()
            );
            compared += usize::from(here.status.success());
        }
    }
    assert!(only.is_some() || compared > 20, "most trees should compile");
    assert!(
        only.is_some() || declined <= seeds,
        "most trees should be scanned"
    );
}

#[test]
fn no_scan_sees_a_stale_header() {
    // With watches nothing is checked by stat, without them everything, and when they run out a part.
    for (watches, rounds) in [(32_768, 10_000), (2, 2000), (0, 2000)] {
        let space = Space::new();
        space.write("main.c", "#include <h.h>\n");
        fs::create_dir_all(space.path("first")).unwrap();
        space.write("second/h.h", "int zero;\n");
        let list = SearchList {
            angle: ["first", "second"].map(Bytes::from).to_vec(),
            ..SearchList::default()
        };
        let limits = Limits {
            watches,
            ..Limits::default()
        };
        let mut scanner = Scanner::new(limits);
        let mut rng = Rng(7);
        let mut shadow: Option<String> = None;
        let mut plain = "int zero;\n".to_owned();
        for round in 0..rounds {
            // Same length each time, so that only the content tells.
            let text = format!("int v{:07};\n", rng.below(9_999_999));
            match rng.below(5) {
                0 => {
                    space.write("second/h.h", &text);
                    plain = text;
                }
                1 => {
                    space.write("second/tmp", &text);
                    fs::rename(space.path("second/tmp"), space.path("second/h.h")).unwrap();
                    plain = text;
                }
                2 => {
                    space.write("first/h.h", &text);
                    shadow = Some(text);
                }
                3 => {
                    if shadow.take().is_some() {
                        fs::remove_file(space.path("first/h.h")).unwrap();
                    }
                }
                _ => {
                    // The whole directory is replaced.
                    let _ = fs::remove_dir_all(space.path("old"));
                    fs::rename(space.path("first"), space.path("old")).unwrap();
                    fs::create_dir(space.path("first")).unwrap();
                    shadow = None;
                }
            }
            let scan = space.scan(&mut scanner, &list).unwrap();
            let (name, expect) = match &shadow {
                Some(text) => ("first/h.h", text),
                None => ("second/h.h", &plain),
            };
            let listed = file(&scan, &space.path(name));
            let expect = Digest(*blake3::hash(expect.as_bytes()).as_bytes());
            assert_eq!(listed, Some(expect), "round {round}, {watches} watches");
        }
    }
}

#[test]
fn symlinks_and_directories_are_entries() {
    let space = Space::new();
    space.write(
        "src/main.c",
        "#include \"link.h\"\n#include \"d/../e/x.h\"\n",
    );
    space.write("real/target.h", "#include \"beside.h\"\n");
    space.write("real/beside.h", "");
    space.write("src/e/x.h", "");
    fs::create_dir_all(space.path("src/d")).unwrap();
    fs::create_dir_all(space.path("empty")).unwrap();
    symlink("../real/target.h", space.path("src/link.h")).unwrap();
    symlink("real", space.path("alias")).unwrap();
    let cwd = space.cwd();
    let list = SearchList::default();
    let named = ["empty", "alias", "nowhere"].map(Bytes::from);
    let request = ScanRequest {
        main: b"src/main.c",
        named_dirs: &named,
        ..request(&cwd, &list)
    };
    let scan = Scanner::new(Limits::default()).scan(&request).unwrap();
    let mut lines: Vec<String> = Vec::new();
    for entry in entries(&scan) {
        let Ok(path) = entry.path.as_path().strip_prefix(space.root()) else {
            continue;
        };
        let kind = match &entry.kind {
            EntryKind::File { .. } => "file".to_owned(),
            EntryKind::Symlink(target) => format!("-> {target}"),
            EntryKind::Directory => "directory".to_owned(),
        };
        lines.push(format!("{} {kind}", path.display()));
    }
    assert_eq!(
        lines,
        [
            " directory",
            "alias -> real",
            "empty directory",
            "real directory",
            "real/beside.h file",
            "real/target.h file",
            "src directory",
            "src/d directory",
            "src/e/x.h file",
            "src/link.h -> ../real/target.h",
            "src/main.c file",
        ]
    );
    assert!(entries(&scan).is_sorted_by(|a, b| a.path < b.path));
}

#[test]
fn what_cannot_be_followed_is_declined() {
    type Arrange = fn(&Space);
    let cases: [(&str, &str, Arrange); 9] = [
        ("no-main-file", "", |space| {
            fs::remove_file(space.path("main.c")).unwrap();
        }),
        ("assembler-include", "asm(\".incbin \" X);\n", |_| {}),
        ("special-file", "#include \"pipe.h\"\n", |space| {
            let mode = nix::sys::stat::Mode::S_IRWXU;
            nix::unistd::mkfifo(&space.path("pipe.h"), mode).unwrap();
        }),
        ("special-file", "#include \"/proc/version\"\n", |_| {}),
        ("unreadable-file", "#include \"loop.h\"\n", |space| {
            symlink("loop.h", space.path("loop.h")).unwrap();
        }),
        (
            "computed-include",
            "#define S(x) T(x)\n#define T(x) #x\n#include S(v/__GNUC__.h)\n",
            |_| {},
        ),
        (
            "computed-include",
            "#define HAS(x) __has_include(x)\n#define ASK(f) f(<x.h>)\n#if ASK(HAS)\n#endif\n",
            |_| {},
        ),
        ("pragma", "#pragma GCC pch_preprocess \"x\"\n", |_| {}),
        ("stale-search-list", "", |space| {
            fs::create_dir(space.path("absent")).unwrap();
        }),
    ];
    for (word, main, arrange) in cases {
        let space = Space::new();
        space.write("main.c", main);
        arrange(&space);
        let list = SearchList {
            absent: vec!["absent".into()],
            ..SearchList::default()
        };
        let result = space.scan(&mut Scanner::new(Limits::default()), &list);
        let decline = result.expect_err(word);
        assert_eq!(decline.word(), word, "{decline}");
        if word == "computed-include" {
            assert!(decline.to_string().contains("main.c:3: "), "{decline}");
        }
    }
}

#[test]
fn links_of_a_header_that_is_included_once_are_two_files_to_clang_elsewhere() {
    let once = "#pragma once\nint a;\n";
    for (header, main, family, is_declined) in [
        (once, "include", Family::Clang, true),
        (once, "include", Family::Gcc, false),
        ("int a;\n", "include", Family::Clang, false),
        ("int a;\n", "import", Family::Clang, true),
    ] {
        let space = Space::new();
        space.write("a.h", header);
        fs::hard_link(space.path("a.h"), space.path("b.h")).unwrap();
        space.write("main.c", &format!("#{main} \"a.h\"\n#{main} \"b.h\"\n"));
        let (cwd, list) = (space.cwd(), SearchList::default());
        let request = ScanRequest {
            family,
            ..request(&cwd, &list)
        };
        let scan = Scanner::new(Limits::default()).scan(&request);
        let found = matches!(scan, Err(Decline::Linked(..)));
        assert_eq!(found, is_declined, "{header} {main} {family:?}: {scan:?}");
    }
}

#[test]
fn directories_on_the_way_to_the_main_file_are_entries_for_each_spelling() {
    let space = Space::new();
    fs::create_dir_all(space.path("d/e")).unwrap();
    space.write("main.c", "int a;\n");
    let (cwd, list) = (space.cwd(), SearchList::default());
    let mut scanner = Scanner::new(Limits::default());
    for (main, expect) in [
        ("main.c", &[][..]),
        ("d/../main.c", &["d"]),
        ("d/e/../../main.c", &["d", "d/e"]),
        ("./main.c", &[]),
    ] {
        let request = ScanRequest {
            main: main.as_bytes(),
            ..request(&cwd, &list)
        };
        let scan = scanner.scan(&request).unwrap();
        let directories = entries(&scan).filter(|entry| entry.kind == EntryKind::Directory);
        let found: Vec<PathBuf> = directories
            .map(|entry| entry.path.as_path().to_owned())
            .filter(|path| path != space.root())
            .collect();
        let expect: Vec<PathBuf> = expect.iter().map(|name| space.path(name)).collect();
        assert_eq!(found, expect, "{main}");
    }
}

#[test]
fn precompiled_headers_are_found() {
    let space = Space::new();
    space.write("main.c", "#include \"sub/a.h\"\n#include <b.h>\n");
    space.write("sub/a.h", "");
    space.write("sub/a.h.gch", "");
    space.write("inc/b.h.gch/one", "");
    space.write("inc/b.h", "");
    space.write("forced.h.pch", "");
    let cwd = space.cwd();
    let list = SearchList {
        angle: vec!["inc".into()],
        ..SearchList::default()
    };
    let forced = [(Forced::Include, Bytes::from("forced.h"))];
    let request = ScanRequest {
        forced: &forced,
        ..request(&cwd, &list)
    };
    let mut scanner = Scanner::new(Limits::default());
    let scan = scanner.scan(&request).unwrap();
    let names = ["sub/a.h.gch", "inc/b.h.gch/one", "forced.h.pch"];
    for name in names {
        assert!(file(&scan, &space.path(name)).is_some(), "{name}");
    }
    // One that comes later is found too.
    space.write("sub/a.h.pch", "");
    let scan = scanner.scan(&request).unwrap();
    assert!(file(&scan, &space.path("sub/a.h.pch")).is_some());
    // Among several the order on this disk decides, whatever their names are.
    space.write("inc/b.h.gch/two", "");
    let decline = scanner.scan(&request).unwrap_err();
    assert_eq!(decline.word(), "precompiled-header");
}

#[test]
fn what_an_assembler_reads_is_found_where_it_looks() {
    let space = Space::new();
    space.write(
        "src/main.S",
        "#include \"cpp.h\"\n.include \"part.s\"\n.incbin \"data\", 4\n",
    );
    space.write("src/cpp.h", "");
    space.write("inc/part.s", " .incbin \"deep\"\n");
    space.write("data", "");
    space.write("only/deep", "");
    let cwd = space.cwd();
    let list = SearchList {
        angle: vec!["inc".into()],
        embed: vec!["only".into()],
        ..SearchList::default()
    };
    let request = ScanRequest {
        main: b"src/main.S",
        language: Language::Assembler,
        ..request(&cwd, &list)
    };
    let scan = Scanner::new(Limits::default()).scan(&request).unwrap();
    for name in ["src/main.S", "src/cpp.h", "inc/part.s", "data", "only/deep"] {
        assert!(file(&scan, &space.path(name)).is_some(), "{name}");
    }
}

#[test]
fn a_search_list_goes_stale_while_the_scanner_lives() {
    let space = Space::new();
    space.write("main.c", "");
    fs::create_dir(space.path("dir")).unwrap();
    let list = SearchList {
        angle: vec!["dir".into()],
        absent: vec!["absent".into()],
        ..SearchList::default()
    };
    let mut scanner = Scanner::new(Limits::default());
    space.scan(&mut scanner, &list).unwrap();
    fs::create_dir(space.path("absent")).unwrap();
    let stale = |result| matches!(result, Err(Decline::Stale(_)));
    assert!(stale(space.scan(&mut scanner, &list)));
    fs::remove_dir(space.path("absent")).unwrap();
    space.scan(&mut scanner, &list).unwrap();
    fs::remove_dir(space.path("dir")).unwrap();
    assert!(stale(space.scan(&mut scanner, &list)));
}

#[test]
fn a_failure_teaches_an_edge() {
    let space = Space::new();
    space.write("main.c", "");
    space.write("h.h", "");
    let list = SearchList::default();
    let mut scanner = Scanner::new(Limits::default());
    let before = space.scan(&mut scanner, &list).unwrap();
    assert_eq!(file(&before, &space.path("h.h")), None);
    let main = AbsPath::parse(Bytes::from(&*space.path("main.c")).0).unwrap();
    scanner.learn(&main, b"h.h");
    let after = space.scan(&mut scanner, &list).unwrap();
    assert!(file(&after, &space.path("h.h")).is_some());
}

#[test]
fn a_scanner_can_live_on_another_thread() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let space = Space::new();
    space.write("main.c", "");
    let mut scanner = sent(Scanner::new(Limits::default()));
    let list = SearchList::default();
    let scan = std::thread::scope(|scope| {
        let thread = scope.spawn(|| space.scan(&mut scanner, &list));
        thread.join().unwrap()
    });
    assert!(sent(scan).is_ok());
}

#[test]
fn a_source_names_where_the_bytes_are() {
    let space = Space::new();
    space.write("main.c", "int x;\n");
    let mut scanner = Scanner::new(Limits::default());
    let scan = space.scan(&mut scanner, &SearchList::default()).unwrap();
    let digest = file(&scan, &space.path("main.c")).unwrap();
    let source = scanner.source(&digest).map(AbsPath::as_path);
    assert_eq!(source, Some(&*space.path("main.c")));
    assert_eq!(scanner.source(&Digest([0; 32])), None);
}

#[test]
fn a_scanner_without_memory_finds_the_same() {
    let space = Space::new();
    let mut main = String::new();
    for n in 0..50 {
        main += &format!("#include \"h{n}.h\"\n");
        let text = format!(
            "#define NAME{n} \"h{}.h\"\n#include NAME{n}\n",
            (n + 1) % 60
        );
        space.write(&format!("h{n}.h"), &text);
    }
    space.write("h50.h", "");
    space.write("main.c", &main);
    let limits = Limits {
        content_bytes: 4096,
        places: 40,
        watches: 5,
    };
    let list = SearchList::default();
    let mut small = Scanner::new(limits);
    let mut large = Scanner::new(Limits::default());
    for _ in 0..3 {
        let few = space.scan(&mut small, &list).unwrap();
        let many = space.scan(&mut large, &list).unwrap();
        assert!(entries(&few).eq(entries(&many)));
        assert!(file(&few, &space.path("h50.h")).is_some());
    }
}

#[test]
fn a_command_line_defines_and_includes() {
    let space = Space::new();
    space.write(
        "main.c",
        "#include CONFIG\n#include NAME(y)\nint t = __TIME__;\n",
    );
    space.write("my.h", "");
    space.write("y.h", "");
    space.write("sub/forced.h", "#include \"beside.h\"\n");
    space.write("sub/beside.h", "");
    space.write("list.txt", "");
    let cwd = space.cwd();
    let list = SearchList::default();
    let defines = ["CONFIG=\"my.h\"", "NAME(x)=<x.h>", "FLAG"].map(Bytes::from);
    let forced = [(Forced::Include, Bytes::from("sub/forced.h"))];
    let extra = ["list.txt", "nothing.txt"].map(Bytes::from);
    let list = SearchList {
        angle: vec![".".into()],
        ..list
    };
    let request = ScanRequest {
        defines: &defines,
        forced: &forced,
        extra: &extra,
        ..request(&cwd, &list)
    };
    let scan = Scanner::new(Limits::default()).scan(&request).unwrap();
    assert!(scan.uses_time);
    for name in ["my.h", "y.h", "sub/forced.h", "sub/beside.h", "list.txt"] {
        assert!(file(&scan, &space.path(name)).is_some(), "{name}");
    }
}

#[test]
fn boost_is_scanned_whole() {
    let missing = |what: &str| {
        support::skipped(&format!("{what} is not there"));
    };
    if !Path::new("/usr/include/boost/mpl/vector.hpp").exists() {
        return missing("Boost");
    }
    if !has_program("g++") {
        return missing("g++");
    }
    let space = Space::new();
    space.write(
        "main.cc",
        "#include <boost/mpl/vector.hpp>\n#include <boost/mpl/map.hpp>\n\
         #include <boost/mpl/fold.hpp>\n#include <boost/mpl/bind.hpp>\n\
         #include <boost/mpl/lambda.hpp>\n#include <boost/fusion/include/vector.hpp>\n\
         #include <boost/function.hpp>\n#include <boost/bind.hpp>\n\
         #include <boost/preprocessor/iteration/iterate.hpp>\n\
         #include <boost/preprocessor/slot/slot.hpp>\n\
         #define BOOST_PP_ITERATION_PARAMS_1 (3, (0, 3, \"each.hpp\"))\n\
         #include BOOST_PP_ITERATE()\n\
         #define BOOST_PP_VALUE 1 + 2\n#include BOOST_PP_ASSIGN_SLOT(1)\n",
    );
    space.write("each.hpp", "int BOOST_PP_CAT(x, BOOST_PP_ITERATION());\n");
    let compiler = Compiler {
        program: "g++",
        family: Family::Gcc,
    };
    let list = compiler.search(&space, &["-I.".to_owned()]);
    let cwd = space.cwd();
    let request = ScanRequest {
        main: b"main.cc",
        language: Language::Cxx,
        ..request(&cwd, &list)
    };
    let scan = Scanner::new(Limits::default()).scan(&request).unwrap();
    let output = Command::new("g++")
        .args(["-I.", "-M", "main.cc"])
        .current_dir(space.root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout)
        .unwrap()
        .replace("\\\n", " ");
    let mut count = 0;
    for name in text.split_whitespace().skip(1) {
        let path = fs::canonicalize(space.path(name)).unwrap();
        assert!(file(&scan, &path).is_some(), "missed {name}");
        count += 1;
    }
    assert!(count > 300, "only {count} headers");
    eprintln!("boost: {} entries for {count} files", scan.entries.len());
}

// ---------------------------------------------------------------------------------------------

struct Compiler {
    program: &'static str,
    family: Family,
}

impl Compiler {
    fn search(&self, space: &Space, flags: &[String]) -> SearchList {
        let language = if self.program.ends_with('+') {
            "c++"
        } else {
            "c"
        };
        let output = Command::new(self.program)
            .args(flags.iter().filter(|flag| !flag.starts_with("-include")))
            .args(["-v", "-E", "-x", language, "/dev/null"])
            .env("LC_ALL", "C")
            .current_dir(space.root())
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        SearchList::parse(&output.stderr).unwrap_or_else(|error| panic!("{error}: {words}"))
    }

    fn preprocess(&self, space: &Space, flags: &[String]) -> Output {
        Command::new(self.program)
            .args(flags)
            .args(["-E", "main.c"])
            .env("LC_ALL", "C")
            .current_dir(space.root())
            .output()
            .unwrap()
    }
}

fn has_program(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn scan(
    scanner: &mut Scanner,
    compiler: &Compiler,
    space: &Space,
    flags: &[String],
    forced: &[(Forced, Bytes)],
) -> Result<Scan, Decline> {
    let list = compiler.search(space, flags);
    let named: Vec<Bytes> = flags
        .iter()
        .filter_map(|flag| flag.strip_prefix("-I").or(flag.strip_prefix("-iquote")))
        .map(Bytes::from)
        .collect();
    let defines: Vec<Bytes> = flags
        .iter()
        .filter_map(|flag| flag.strip_prefix("-D"))
        .map(Bytes::from)
        .collect();
    let cwd = space.cwd();
    let request = ScanRequest {
        named_dirs: &named,
        defines: &defines,
        forced,
        family: compiler.family,
        ..request(&cwd, &list)
    };
    scanner.scan(&request)
}

fn request<'a>(cwd: &'a AbsPath, search: &'a SearchList) -> ScanRequest<'a> {
    ScanRequest {
        cwd,
        main: b"main.c",
        search,
        named_dirs: &[],
        forced: &[],
        defines: &[],
        extra: &[],
        family: Family::Gcc,
        language: Language::C,
    }
}

fn entries(scan: &Scan) -> impl Iterator<Item = &Entry> {
    scan.entries.iter().map(|listed| &*listed.entry)
}

fn file(scan: &Scan, path: &Path) -> Option<Digest> {
    entries(scan).find_map(|entry| match entry.kind {
        EntryKind::File { digest, .. } if entry.path.as_path() == path => Some(digest),
        _ => None,
    })
}

struct Space {
    _directory: tempfile::TempDir,
    root: PathBuf,
}

impl Space {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        Self {
            _directory: directory,
            root,
        }
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn cwd(&self) -> AbsPath {
        AbsPath::parse(Bytes::from(&*self.root).0).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn scan(&self, scanner: &mut Scanner, list: &SearchList) -> Result<Scan, Decline> {
        scanner.scan(&request(&self.cwd(), list))
    }

    /// Copies what a scan of `other` lists below its root, and nothing else.
    fn materialise(&self, other: &Self, scan: &Scan) {
        for entry in entries(scan) {
            let Ok(name) = entry.path.as_path().strip_prefix(other.root()) else {
                continue;
            };
            let path = self.root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match &entry.kind {
                EntryKind::File { .. } => drop(fs::copy(entry.path.as_path(), path).unwrap()),
                EntryKind::Symlink(target) => symlink(target.as_path(), path).unwrap(),
                EntryKind::Directory => fs::create_dir_all(path).unwrap(),
            }
        }
    }

    fn listing(&self) -> String {
        let script = "find . -printf '%p %l\\n' -type f -exec cat {} ';'";
        let output = Command::new("sh")
            .args(["-c", script])
            .current_dir(&self.root)
            .output();
        output.map_or(String::new(), |o| {
            String::from_utf8_lossy(&o.stdout).into_owned()
        })
    }
}

/// splitmix64
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

const DIRECTORIES: [&str; 6] = ["", "a/", "b/", "a/s/", "inc/", "inc/s/"];

/// Writes headers, symlinks and a main file; returns flags.
fn random_tree(rng: &mut Rng, space: &Space) -> Vec<String> {
    for directory in DIRECTORIES {
        fs::create_dir_all(space.path(directory)).unwrap();
        for n in 0..6 {
            let path = space.path(&format!("{directory}h{n}.h"));
            match rng.below(8) {
                0..=3 => fs::write(path, random_header(rng, &format!("{directory}{n}"))).unwrap(),
                4 => {
                    let up = "../".repeat(directory.matches('/').count());
                    let target = format!("{up}{}h{}.h", rng.pick(&DIRECTORIES), rng.below(6));
                    symlink(target, path).unwrap();
                }
                5 if rng.below(3) == 0 => fs::create_dir(path).unwrap(),
                _ => {}
            }
        }
    }
    symlink("a/s", space.path("link")).unwrap();
    symlink("../inc", space.path("b/up")).unwrap();
    space.write("main.c", &random_header(rng, "main"));
    let options = [
        "-Ia",
        "-Ib",
        "-Iinc",
        "-Ia/../b",
        "-Ilink",
        "-Ilink/..",
        "-Inowhere",
        "-iquoteinc/s",
        "-Ib/up",
        "-I.",
        "-isystema/s",
        "-Ia",
    ];
    let mut flags = vec!["-DCMD=\"h3.h\"".to_owned(), "-DPART=2".to_owned()];
    flags.push("-DFROM_LINE=__has_include(\"h5.h\")".to_owned());
    for _ in 0..rng.below(6) {
        flags.push(rng.pick(&options).to_owned());
    }
    if rng.below(2) == 0 {
        flags.push("-DCONDITION".to_owned());
    }
    flags
}

fn random_header(rng: &mut Rng, name: &str) -> String {
    let mut text = format!(
        "int in_{};\n#define STR(x) STR_I(x)\n#define STR_I(x) #x\n#define HAS(x) __has_include(x)\n\
         #define HAS2(x) (0 || HAS(x))\n#define HAS3(x) HAS2(x)\n\
         #define PUZZLE(x) __has_include(<x.h>)\n\
         #if __INCLUDE_LEVEL__ < 5\n",
        name.replace('/', "_")
    );
    for _ in 0..1 + rng.below(4) {
        let prefix = rng.pick(&[
            "", "", "", "s/", "../", "a/", "a/../b/", "link/", "link/../", "up/",
        ]);
        let target = format!("{prefix}h{}.h", rng.below(6));
        let spelled = match rng.below(2) {
            0 => format!("\"{target}\""),
            _ => format!("<{target}>"),
        };
        let line = match rng.below(19) {
            0..=3 => format!("#if __has_include({spelled})\n#include {spelled}\n#endif"),
            4 => format!("# if HAS({spelled})\nint has;\n# endif"),
            5 => format!("#if __has_include_next({spelled})\n#include_next {spelled}\n#endif"),
            6 => format!(
                "#ifdef CONDITION\n#define NAME {spelled}\n#else\n#define NAME <h0.h>\n#endif\n\
                 #if __has_include(NAME)\n#include NAME\n#endif\n#undef NAME"
            ),
            7 => format!(
                "#if __has_include(STR({prefix}h4.h))\n#/**/include STR({prefix}h4.h)\n#endif"
            ),
            8 => "#if __has_include(CMD)\n#inc\\\nlude CMD\n#endif".to_owned(),
            9 => format!("/* \n#include \"never.h\"\n*/ # include {spelled}"),
            10 => format!(
                "#define GLUE(a, b) <{prefix}a##b.h>\n#if HAS(GLUE(h, 1))\nint glued;\n#endif"
            ),
            11 => format!("#ifdef CONDITION\n#import {spelled}\n#endif"),
            12 => format!("#define H {spelled}\n#define J H\n#if HAS(J)\n#include J\n#endif"),
            13 => format!("#define N {spelled}\n#if HAS2(N)\nint two;\n#endif"),
            14 => {
                format!("#define N {spelled}\n#define COND HAS3(N)\n#if COND\nint three;\n#endif")
            }
            15 => format!("#define COND HAS2({spelled})\n#if X || COND\nint cond;\n#endif"),
            16 => "#if FROM_LINE\nint from_line;\n#endif".to_owned(),
            17 if rng.below(20) == 0 => "#if PUZZLE(h1)\nint puzzle;\n#endif".to_owned(),
            _ => "int nothing;".to_owned(),
        };
        text += &line;
        text.push('\n');
    }
    text + "#endif\n"
}
