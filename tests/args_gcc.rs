//! Plans of `ice::args` against the compilers themselves: where they write, and that a compile in
//! two steps yields what one step does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ice::args::{Compiler, Invocation, Plan, Verdict, classify};
use ice::id::{AbsPath, Bytes};

const FILES: &[(&str, &str)] = &[
    (
        "a.c",
        "#include <stdio.h>\n#include \"inc.h\"\n#ifndef VALUE\n#define VALUE 1\n#endif\n\
         static int twice(int x) { return 2 * x; }\n\
         int entry(int x) { printf(\"%s %d\\n\", __FILE__, __LINE__); return twice(x) + VALUE + INC; }\n",
    ),
    (
        "sub/b.cc",
        "#include <string>\n#include \"deep.h\"\n\
         namespace { struct Early { Early() { count++; } int count = 0; } early; }\n\
         std::string entry() { return std::string(__FILE__) + DEEP; }\n",
    ),
    ("plain", "int plain(void) { return 3; }\n"),
    ("inc/inc.h", "#define INC 5\n"),
    ("inc/deep.h", "#define DEEP \"deep\"\n"),
    ("forced.h", "#define FORCED 1\n"),
    ("asm.S", "#define N 4\n mov $N, %eax\n"),
    ("raw.s", " mov $4, %eax\n"),
    ("text.i", "# 1 \"gone.c\"\nint text;\n"),
    ("response", "-Iinc -c a.c '-DVALUE=7'"),
];

/// Lines whose preprocessed compile must be exact.
const IN_TWO_STEPS: &[&str] = &[
    "gcc -Iinc -c a.c",
    "gcc -Iinc -c a.c -o out/a.o",
    "gcc -O2 -Wall -Wextra -Iinc -DVALUE=4 -fPIC -std=gnu11 -c a.c -o out/a.o -MD",
    "gcc -Iinc -MMD -c a.c",
    "gcc -Iinc -MMD -MP -MF out/x.d -c a.c -o out/y.o",
    "gcc -Iinc -MD -MT target -c a.c -o out/a.o",
    "gcc -Iinc -MD -MQ tar$get -MF d.d -c a.c -o out/a.o",
    "gcc -Iinc -Wp,-MD,out/k.d -c a.c -o out/a.o",
    "gcc -Iinc -Wp,-MMD,out/k.d -Wp,-MT,x -Wp,-DVALUE=9 -c a.c -o out/a.o",
    "gcc -Iinc -S -MD a.c",
    "gcc -Iinc -S a.c -o out/a.asm -MD",
    "gcc -include forced.h -imacros forced.h -Iinc -c a.c -MD",
    "gcc -x c -c plain -MD",
    "gcc -c -xc++ ./plain -o out/p",
    "gcc @response -o out/a.o",
    "gcc -Iinc -O2 -ffunction-sections -Wa,--noexecstack -c a.c -lm -Lout -Wl,-z,now",
    "gcc -Iinc -m32 -S -ffreestanding -nostdinc -x c -c plain",
    "g++ -O2 -Iinc -c sub/b.cc -MD",
    "g++ -O2 -Iinc -std=c++17 -c sub/b.cc -o out/b.o -MD -MF out/b.d",
    "g++ -Iinc -c a.c -o out/a.o -MMD",
    "g++ -finput-charset=UTF-8 -Iinc -iquote inc -isystem inc -c sub/b.cc",
    "clang -O2 -Iinc -c a.c -o out/a.o -MD",
    "clang -Iinc -c a.c -MMD",
    "clang -Iinc -Wp,-MMD,out/k.d -c a.c -o out/a.o",
    "clang -Iinc -MD -MT target -c a.c -o out/a.o",
    "clang -Iinc -MD -MF out/q.d -S a.c",
    "clang -x c -c -- plain",
    "clang++ -O2 -Iinc -c sub/b.cc -o out/b.o -MD",
    "clang -Iinc -emit-llvm -S a.c",
];

/// Lines of which only one step is expected to be right.
const IN_ONE_STEP: &[&str] = &[
    "gcc -g -Iinc -c a.c -o out/a.o",
    "gcc -g -gsplit-dwarf -Iinc -c a.c -o out/a.o",
    "gcc -g -gsplit-dwarf -Iinc -c a.c",
    "gcc --coverage -Iinc -c a.c -o out/a.o",
    "gcc --coverage -Iinc -c a.c",
    "gcc -save-temps -Iinc -c a.c -o out/a.o -MD",
    "gcc -save-temps=obj -Iinc -c a.c -o out/a.o",
    "gcc -save-temps=cwd -Iinc -c a.c -o out/a.o",
    "gcc -fstack-usage -fcallgraph-info -Iinc -c a.c -o out/a.o",
    "gcc -O2 -fdump-tree-optimized -da -Iinc -c a.c -o out/a.o",
    "gcc -O2 -fsave-optimization-record -Iinc -c a.c -o out/a.o",
    "gcc -aux-info out/a.X -Iinc -c a.c",
    "gcc -Iinc -c a.c sub/b.cc",
    "gcc -Iinc -MMD -g -c a.c sub/b.cc asm.S",
    "gcc -c asm.S -MD -o out/asm.o",
    "gcc -c raw.s",
    "gcc -c text.i -o out/text.o",
    "gcc -Wa,-adhln=out/list -Wa,--MD,out/as.d -c raw.s",
    "gcc -dumpdir out/x- -fstack-usage -Iinc -c a.c",
    "gcc -dumpbase out/name.c -fdump-tree-optimized -Iinc -c a.c",
    "gcc -fdump-tree-optimized=out/tree.txt -fopt-info-all=opt.txt -O2 -Iinc -c a.c",
    "gcc -fdump-tree-optimized=stdout -Iinc -c a.c",
    "gcc -flto -Iinc -c a.c -o out/a.o",
    "gcc -O2 -fprofile-generate -Iinc -c a.c -o out/a.o",
    "clang -g -gsplit-dwarf -Iinc -c a.c -o out/a.o",
    "clang --coverage -Iinc -c a.c -o out/a.o",
    "clang --coverage -Iinc -c a.c",
    "clang -save-temps -Iinc -c a.c -o out/a.o",
    "clang -save-temps=obj -Iinc -c a.c -o out/a.o",
    "clang -ftime-trace -Iinc -c a.c -o out/a.o",
    "clang -ftime-trace -Iinc -c a.c",
    "clang -O2 -fsave-optimization-record -Iinc -c a.c -o out/a.o",
    "clang -fstack-usage -Iinc -c a.c -o out/a.o",
    "clang -flto -Iinc -c a.c -o out/a.o",
    "clang --serialize-diagnostics out/a.dia -Iinc -c a.c",
    "clang -Iinc -MMD -g -c a.c sub/b.cc asm.S",
    "clang -c asm.S -MD -o out/asm.o",
    "clang -c raw.s",
];

#[test]
fn a_compile_in_two_steps_yields_what_one_step_does() {
    for line in IN_TWO_STEPS {
        let Some((plan, here)) = planned(line) else {
            continue;
        };
        let steps = plan.preprocessed.as_ref().expect(line);
        assert!(steps.exact, "{line}");
        run(&plan.argv, here.path(), line);
        let expected = written(here.path());
        assert!(!expected.is_empty(), "{line}");
        expected
            .keys()
            .for_each(|file| fs::remove_file(file).unwrap());

        let text = run(&steps.preprocess, here.path(), line);
        let elsewhere = tempfile::tempdir().unwrap();
        let text_file = elsewhere.path().join("text");
        fs::write(&text_file, text).unwrap();
        let mut compile = steps.compile.clone();
        compile[steps.compile_input] = Bytes::from(text_file.as_path());
        run(&compile, here.path(), line);
        let found = written(here.path());
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{line}");
        for (file, content) in &expected {
            let same = found[file] == *content;
            let as_text = String::from_utf8_lossy;
            assert!(
                same || file.extension().is_none_or(|suffix| suffix != "d"),
                "{line}: {} is\n{}not\n{}",
                file.display(),
                as_text(&found[file]),
                as_text(content)
            );
            assert!(same, "{line}: {} differs", file.display());
        }
    }
}

#[test]
fn compilers_write_where_the_plan_says_and_nowhere_else() {
    for line in IN_TWO_STEPS.iter().chain(IN_ONE_STEP) {
        let Some((plan, here)) = planned(line) else {
            continue;
        };
        run(&plan.argv, here.path(), line);
        let files = written(here.path());
        let allowed: Vec<PathBuf> = plan
            .writable
            .iter()
            .map(|directory| here.path().join(directory.as_path()))
            .map(|directory| fs::canonicalize(directory).unwrap())
            .collect();
        for file in files.keys() {
            let directory = fs::canonicalize(file.parent().unwrap()).unwrap();
            assert!(allowed.contains(&directory), "{line}: {}", file.display());
        }
        for file in plan.places() {
            assert!(here.path().join(file.as_path()).is_file(), "{line}: {file}");
        }
    }
}

#[test]
fn lines_that_only_one_step_gets_right_say_so() {
    for line in IN_ONE_STEP {
        let Some((plan, _here)) = planned(line) else {
            continue;
        };
        let exact = plan.preprocessed.is_some_and(|steps| steps.exact);
        assert!(!exact, "{line}");
    }
}

/// The classifier must read a command line as the driver does: a word that belongs to the option
/// before it is no input.
#[test]
fn options_that_take_the_next_word_are_known() {
    let mut seen = 0;
    for (compiler, option, line) in documented(&["--help=separate", "--help=separate,undocumented"])
    {
        // The driver's own `-MD` takes no word; that of the compiler proper does.
        let only_inside = [
            "-MD",
            "-MMD",
            "--write-dependencies",
            "--write-user-dependencies",
        ];
        let takes_a_word = compiler == "gcc" || line.starts_with(&format!("{option} <"));
        if !takes_a_word || only_inside.contains(&&option[..]) {
            continue;
        }
        seen += 1;
        let argv = [compiler, "-c", "a.c", &option, "value.c"].map(Bytes::from);
        if let Verdict::Distribute(plan) = verdict(&argv) {
            assert_eq!(plan.units.len(), 1, "{compiler}: {line}");
        }
    }
    assert!(seen > 50, "{seen}");
}

/// An option whose description speaks of files keeps the compile, or its value is known to be a file
/// that is read or written, or a place to search; the others were looked at.
#[test]
fn options_that_name_files_are_not_taken_for_harmless() {
    // They are recorded in the object, matched against names, or opened by the program that is
    // compiled when it runs; or the word is no file's.
    const NO_FILES: &[&str] = &[
        "--no-system-header-prefix=",
        "--system-header-prefix=",
        "-Wundef-prefix=",
        "-fcallgraph-info=",
        "-fcoverage-compilation-dir=",
        "-fcoverage-prefix-map=",
        "-fcrash-diagnostics-dir=",
        "-fcs-profile-generate=",
        "-fdebug-compilation-dir=",
        "-fdebug-prefix-map=",
        "-fdiagnostics-path-format=",
        "-ffile-compilation-dir=",
        "-ffile-prefix-map=",
        "-finstrument-functions-exclude-file-list=",
        "-finstrument-functions-exclude-function-list=",
        "-fmacro-prefix-map=",
        "-fmemory-profile=",
        "-fprofile-dir=",
        "-fprofile-exclude-files=",
        "-fprofile-filter-files=",
        "-fprofile-generate=",
        "-fprofile-instr-generate=",
        "-fprofile-prefix-map=",
        "-fprofile-prefix-path=",
        "-fprofile-reproducible=",
        "-fprofile-update=",
        "-save-temps=",
    ];
    let of_files = ["file", "path", "dir", "list", "plugin", "prefix"];
    let classes = [
        "--help=common",
        "--help=common,undocumented",
        "--help=c",
        "--help=c++",
        "--help=target",
        "--help=joined",
        "--help=joined,undocumented",
        "--help=optimizers",
        "--help=warnings",
    ];
    let mut seen = 0;
    for (compiler, option, line) in documented(&classes) {
        let lower = line.to_lowercase();
        let Some((stem, _)) = option.split_once('=') else {
            continue;
        };
        if !of_files.iter().any(|word| lower.contains(word)) {
            continue;
        }
        let stem = format!("{stem}=");
        if NO_FILES.contains(&&stem[..]) {
            continue;
        }
        seen += 1;
        let argv = [compiler, "-c", "a.c", &format!("{stem}place/name")].map(Bytes::from);
        let Verdict::Distribute(plan) = verdict(&argv) else {
            continue;
        };
        let forced: Vec<Bytes> = plan.forced.iter().map(|file| file.name.clone()).collect();
        let lists = [
            &plan.search,
            &plan.extra_inputs,
            &plan.writable,
            &plan.defines,
            &forced,
        ];
        let mut words = lists.into_iter().flatten();
        assert!(
            words.any(|word| word.to_string().contains("place")),
            "{compiler}: {line}"
        );
    }
    assert!(seen > 50, "{seen}");
}

/// The options that the compilers tell of: whose, how it is spelled, and the line of their help.
/// Questions about classes are gcc's.
fn documented(classes: &[&str]) -> Vec<(&'static str, String, String)> {
    let mut found = Vec::new();
    let questions = classes.iter().map(|class| ("gcc", *class));
    for (compiler, question) in questions.chain([("clang", "--help-hidden")]) {
        let output = Command::new(compiler).arg(question).output();
        let output = output.unwrap_or_else(|error| panic!("{compiler}: {error}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in text.lines().filter(|line| line.starts_with("  -")) {
            let line = line.trim();
            let option = line.split(' ').next().unwrap_or_default();
            let option = option.split(['<', '[']).next().unwrap_or_default();
            found.push((compiler, option.to_owned(), line.to_owned()));
        }
    }
    found
}

fn verdict(argv: &[Bytes]) -> Verdict {
    let invocation = Invocation {
        program: &argv[0],
        argv,
        cwd: &AbsPath::parse("/w").unwrap(),
        env: &[],
    };
    classify(&invocation, &mut |_| None)
}

/// The plan of a line in a fresh directory; none where its compiler is not installed.
fn planned(line: &str) -> Option<(Plan, tempfile::TempDir)> {
    let argv: Vec<Bytes> = line.split(' ').map(Bytes::from).collect();
    let installed = Command::new(argv[0].as_os_str()).arg("--version").output();
    if installed.is_err() {
        eprintln!("no {}: not tried", argv[0]);
        return None;
    }
    assert!(Compiler::named(&argv[0]).is_some(), "{line}");
    let here = tempfile::tempdir().unwrap();
    for directory in ["out", "sub", "inc"] {
        fs::create_dir(here.path().join(directory)).unwrap();
    }
    for (name, text) in FILES {
        fs::write(here.path().join(name), text).unwrap();
    }
    let invocation = Invocation {
        program: &argv[0],
        argv: &argv,
        cwd: &AbsPath::lexical(
            &AbsPath::parse("/").unwrap(),
            here.path().as_os_str().as_encoded_bytes(),
        )
        .unwrap(),
        env: &[],
    };
    let mut read = |name: &[u8]| fs::read(here.path().join(Bytes::from(name).as_path())).ok();
    match classify(&invocation, &mut read) {
        Verdict::Distribute(plan) => Some((*plan, here)),
        Verdict::Local(reason) => panic!("{line}: {}", reason.sentence()),
    }
}

/// Runs a command that must succeed silently; its standard output.
fn run(argv: &[Bytes], directory: &Path, line: &str) -> Vec<u8> {
    let output = Command::new(argv[0].as_os_str())
        .args(argv[1..].iter().map(|word| word.as_os_str()))
        .current_dir(directory)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {argv:?}: {said}");
    output.stdout
}

/// The files that were not there before, with their contents.
fn written(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(written(&path));
        } else {
            files.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    files.retain(|path, _| !FILES.iter().any(|(name, _)| path.ends_with(name)));
    files
}
