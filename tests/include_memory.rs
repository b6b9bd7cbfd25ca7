//! The memory that the include graph of a large project takes, as the kernel counts it.
//!
//! It has a process of its own, since what other tests free would hide what this one takes. That counts
//! the allocator's slack as well, so it is an upper bound.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

use ice::id::{AbsPath, Bytes};
use ice::include::{Family, Language, Limits, ScanRequest, Scanner, SearchList};

const HEADERS: usize = 5000;
const UNITS: usize = 50;
const DIRECTORIES: usize = 100;
const KIB_MAX: usize = 50 << 10;

#[test]
fn the_graph_of_five_thousand_headers_takes_less_than_50_megabytes() {
    let directory = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(directory.path()).unwrap();
    for number in 0..DIRECTORIES {
        fs::create_dir_all(root.join(format!("include/module_{number}"))).unwrap();
    }
    for number in 0..HEADERS {
        fs::write(root.join("include").join(header(number)), text(number)).unwrap();
    }
    for unit in 0..UNITS {
        let mut text = String::new();
        for at in 0..HEADERS / UNITS {
            let _ = writeln!(text, "#include <{}>", header(unit + at * UNITS));
        }
        fs::write(root.join(format!("{unit}.cc")), text).unwrap();
    }
    let cwd = AbsPath::parse(Bytes::from(&*root).0).unwrap();
    let search = SearchList {
        angle: vec!["include".into()],
        ..SearchList::default()
    };
    let before = resident_kib();
    let mut scanner = Scanner::new(Limits::default());
    let mut largest = 0;
    for unit in 0..UNITS {
        let main = format!("{unit}.cc");
        let request = ScanRequest {
            cwd: &cwd,
            main: main.as_bytes(),
            search: &search,
            named_dirs: &[],
            forced: &[],
            defines: &["NDEBUG".into()],
            extra: &[],
            family: Family::Gcc,
            language: Language::Cxx,
        };
        largest = largest.max(scanner.scan(&request).unwrap().entries.len());
    }
    let taken = resident_kib() - before;
    let graph = scanner.graph();
    // Not through `eprintln!`: the test runner would keep it to itself.
    let _ = writeln!(
        std::io::stderr(),
        "{HEADERS} headers, {UNITS} units, scans of up to {largest} entries: {taken} KiB, {} of them \
         directives; {} places",
        graph.content_bytes() >> 10,
        graph.places()
    );
    assert!(graph.places() > HEADERS + UNITS, "all headers are in reach");
    assert!(largest > 1000, "{largest}");
    assert!(taken < KIB_MAX, "{taken} KiB");
}

fn header(number: usize) -> String {
    format!("module_{}/header_{number}.h", number % DIRECTORIES)
}

/// A header as libraries have them: a guard, macros, a few includes, some by macro, and declarations.
fn text(number: usize) -> String {
    let mut text = format!("#ifndef HEADER_{number}_H\n#define HEADER_{number}_H\n");
    for at in 1..=5 {
        let other = number + at * at * 37;
        if other < HEADERS {
            let _ = writeln!(text, "#include <{}>", header(other));
        }
    }
    if number.is_multiple_of(50) && number + 1 < HEADERS {
        let _ = writeln!(
            text,
            "#define HEADER_{number}_NEXT <{}>",
            header(number + 1)
        );
        let _ = writeln!(text, "#include HEADER_{number}_NEXT");
    }
    if number % 100 == 7 {
        let _ = writeln!(text, "#define HAS_{number}(x) __has_include(x)");
        let _ = writeln!(text, "#if HAS_{number}(\"config_{number}.h\")\n#endif");
    }
    for at in 0..20 {
        let _ = writeln!(
            text,
            "#define MODULE_{number}_VALUE_{at}(x) ((x) + {at} * MODULE_SCALE)"
        );
        let _ = writeln!(
            text,
            "#if defined(MODULE_{number}_{at}) && MODULE_LEVEL > {at}\n#endif"
        );
    }
    for at in 0..60 {
        let _ = writeln!(
            text,
            "/// Does something with what it is given.\nint f_{number}_{at}(int);"
        );
    }
    text.push_str("#endif\n");
    text
}

/// The memory of this process that no file backs.
fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let words = line.unwrap().trim().trim_end_matches(" kB");
    words.parse().unwrap()
}
