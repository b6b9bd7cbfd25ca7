//! `ice explain` with the compilers of this machine: where a call would run, why, and what would
//! travel; and that nothing is compiled for the answer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use ice::args::Cause;

const ICE: &str = env!("CARGO_BIN_EXE_ice");

#[test]
fn a_remote_call_is_told_with_its_files() {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("a.c"), "#include \"sub/a.h\"\n").unwrap();
    fs::create_dir(here.path().join("sub")).unwrap();
    fs::write(here.path().join("sub/a.h"), "int x;\n").unwrap();
    for (words, command) in [
        (
            &["--files", "gcc", "-c", "a.c", "-DX=a b"][..],
            "gcc -c a.c '-DX=a b'",
        ),
        (&["--files", "--", "clang", "-c", "a.c"], "clang -c a.c"),
    ] {
        let said = explain(here.path(), words, &[]);
        let first = said.lines().next().unwrap();
        assert!(first.starts_with("remote "), "{said}");
        assert!(
            said.contains(&format!("\ncommand    {command}\n")),
            "{said}"
        );
        let canonical = fs::canonicalize(here.path()).unwrap();
        for (file, size) in [("a.c", 19), ("sub/a.h", 7)] {
            let line = format!("{size:>10} {}", canonical.join(file).display());
            assert!(said.lines().any(|other| other == line), "{line}: {said}");
        }
        assert!(!here.path().join("a.o").exists());
    }
}

#[test]
fn a_local_call_is_told_with_its_reason() {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("a.c"), "int x;\n").unwrap();
    fs::write(here.path().join("date.c"), "char *x = __DATE__;\n").unwrap();
    fs::write(here.path().join("reads.c"), "#include \"a.d\"\n").unwrap();
    fs::write(here.path().join("a.d"), "int x;\n").unwrap();
    for (line, variables, word) in [
        ("gcc -fplugin=x.so -c a.c", &[][..], "plugin"),
        ("gcc a.c -o a", &[], "link"),
        ("gcc --version", &[], "at-once"),
        ("gcc -c conftest.c", &[], "at-once"),
        ("gcc -c date.c", &[], "time-of-day"),
        ("gcc -c none.c", &[], "no-main-file"),
        ("gcc -c a.c -o none/a.o", &[], "output-place"),
        ("gcc -c reads.c -MD -MF a.d", &[], "output-place"),
        ("gcc -c a.c", &[("ICECC", "disable")], "disabled"),
        ("gcc -c a.c", &[("ICECC", "no")], "asked"),
        ("gcc -c a.c", &[("GCC_EXEC_PREFIX", "/x")], "environment"),
        ("make all", &[], "unknown-compiler"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let said = explain(here.path(), &words, variables);
        assert!(
            said.starts_with(&format!("local      {word}: ")),
            "{line}: {said}"
        );
        assert_eq!(said.lines().count(), 1, "{line}: {said}");
    }
    assert_eq!(
        fs::read_dir(here.path()).unwrap().count(),
        4,
        "nothing is written"
    );
}

fn explain(directory: &Path, words: &[&str], variables: &[(&str, &str)]) -> String {
    let output = Command::new(ICE)
        .arg("explain")
        .args(words)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(variables.iter().copied())
        .current_dir(directory)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{words:?}: {errors}"
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_guide_has_every_reason() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = fs::read_to_string(package.join("docs/what-runs-remotely.md")).unwrap();
    let mut words: BTreeSet<String> = Cause::ALL
        .iter()
        .map(|cause| cause.word().to_owned())
        .collect();
    // The rest have no list: they are where they are said.
    let mut sources: Vec<_> = fs::read_dir(package.join("src/submitter"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // The cores in directories give no reasons.
        .filter(|path| path.is_file())
        .collect();
    sources.push(package.join("src/client/joblog.rs"));
    sources.push(package.join("src/include/request.rs"));
    for source in sources {
        let text = fs::read_to_string(&source).unwrap();
        let (said, all_are) = match source.file_name().unwrap().to_str().unwrap() {
            "joblog.rs" => (text.split_once("fn text").unwrap().1, true),
            "request.rs" => (text.split_once("fn word").unwrap().1, true),
            _ => (&text[..], false),
        };
        let said = said
            .split("\n}\n")
            .next()
            .filter(|_| all_are)
            .unwrap_or(said);
        let mut before = "";
        for (index, piece) in said.split('"').enumerate() {
            let is_word = piece.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            let is_said = all_are || before.trim_end().ends_with("because(");
            if index % 2 == 1 && is_word && is_said && !piece.is_empty() {
                words.insert(piece.to_owned());
            }
            before = piece;
        }
    }
    assert!(words.len() > 70, "{words:?}");
    let missing: Vec<_> = words
        .iter()
        .filter(|word| !guide.contains(&format!("`{word}`")))
        .collect();
    assert!(missing.is_empty(), "the guide does not explain {missing:?}");
}
