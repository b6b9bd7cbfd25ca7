//! What a scan costs the submitter, in CPU time: `cargo bench --bench scan`.
//!
//! Three units of C, C++ and Boost, in a new scanner each. "cold" reads every header; "other unit" is
//! one that differs from it in its own text, "same unit" the same again, with nothing changed; "touched"
//! the same after a header that all others include has got another time.

use std::fs;
use std::process::Command;

use ice::id::{AbsPath, Bytes};
use ice::include::{Family, Language, Limits, ScanRequest, Scanner, SearchList};
use nix::time::{ClockId, clock_gettime};

const ROUNDS: u32 = 20;

const UNITS: [(&str, &str, &str); 3] = [
    (
        "C",
        "main.c",
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\
         #include <sys/types.h>\n#include <sys/socket.h>\n#include <netinet/in.h>\n\
         #include <arpa/inet.h>\n#include <pthread.h>\n#include <signal.h>\n#include <time.h>\n\
         #include <math.h>\n#include <errno.h>\n#include <sys/epoll.h>\n#include <syslog.h>\n",
    ),
    (
        "C++",
        "main.cc",
        "#include <algorithm>\n#include <atomic>\n#include <condition_variable>\n#include <map>\n\
         #include <memory>\n#include <mutex>\n#include <regex>\n#include <set>\n\
         #include <iostream>\n#include <string>\n#include <thread>\n#include <unordered_map>\n",
    ),
    (
        "Boost",
        "main.cc",
        "#include <boost/asio.hpp>\n#include <boost/spirit/include/qi.hpp>\n\
         #include <boost/multi_index_container.hpp>\n#include <boost/mpl/map.hpp>\n\
         #include <boost/fusion/include/vector.hpp>\n#include <boost/preprocessor.hpp>\n",
    ),
];

fn main() {
    println!(
        "µs of CPU    files      cold other unit  same unit    touched   KiB of directives  places"
    );
    for (name, file, text) in UNITS {
        if name == "Boost" && !fs::exists("/usr/include/boost/asio.hpp").unwrap_or(false) {
            println!("{name}: Boost is not there");
            continue;
        }
        run(name, file, text);
    }
}

fn run(name: &str, file: &str, text: &str) {
    let directory = tempfile::tempdir().expect("make a directory");
    let root = fs::canonicalize(directory.path()).expect("it is there");
    let cwd = AbsPath::parse(Bytes::from(&*root).0).expect("a plain path");
    let unit = |text: String| fs::write(root.join(file), text).expect("write the unit");
    let touch = |round: u32| {
        fs::write(root.join("all.h"), format!("// {round:08}\n")).expect("write a header");
    };
    touch(0);
    let text = format!("#include \"all.h\"\n{text}");
    unit(text.clone());
    let language = if file.ends_with(".c") { "c" } else { "c++" };
    let output = Command::new(if language == "c" { "gcc" } else { "g++" })
        .args(["-v", "-E", "-x", language, "/dev/null"])
        .env("LC_ALL", "C")
        .current_dir(&root)
        .output()
        .expect("run the compiler");
    let search = SearchList::parse(&output.stderr).expect("its search list");
    let request = ScanRequest {
        cwd: &cwd,
        main: file.as_bytes(),
        search: &search,
        named_dirs: &[],
        forced: &[],
        defines: &[],
        extra: &[],
        family: Family::Gcc,
        language: if language == "c" {
            Language::C
        } else {
            Language::Cxx
        },
    };
    let mut scanner = Scanner::new(Limits::default());
    let mut files = 0;
    let mut measure = |before: &dyn Fn(u32), rounds: u32| {
        let mut spent = 0.0;
        for round in 0..rounds {
            before(round);
            let start = cpu_us();
            let scan = scanner
                .scan(&request)
                .unwrap_or_else(|why| panic!("{name}: {why}"));
            spent += cpu_us() - start;
            files = scan.entries.len();
        }
        spent / f64::from(rounds)
    };
    let cold = measure(&|_| {}, 1);
    let other = measure(&|round| unit(format!("{text}int other_{round};\n")), ROUNDS);
    let same = measure(&|_| {}, ROUNDS);
    let touched = measure(&|round| touch(round + 1), ROUNDS);
    let graph = scanner.graph();
    println!(
        "{name:<10}{files:>8}{cold:>10.0}{other:>11.1}{same:>11.1}{touched:>11.1}{:>20}{:>8}",
        graph.content_bytes() >> 10,
        graph.places()
    );
}

fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("it is always there");
    time.tv_sec() as f64 * 1e6 + time.tv_nsec() as f64 / 1e3
}
