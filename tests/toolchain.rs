//! Toolchains of the real compilers of this machine: found, shipped somewhere else, and run there.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use ice::id::{AbsPath, Bytes};
use ice::message::{EntryKind, Mtime};
use ice::toolchain::archive::{self, Compression};
use ice::toolchain::probe::{ProbeError, probe};
use ice::toolchain::stamp::{Digests, Stamps};
use ice::toolchain::{Located, Toolchains, manifest};

const SEARCH_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

const C: &str =
    "static int twice(int x) { return x + x; }\nint f(int x) { return twice(x) + 1; }\n";
const CXX: &str = "template <class T> struct S { T t; ~S(); };\nint g(S<int> s) { try { return s.t; } catch (...) { return 0; } }\n";
const WRONG: &str = "int f(void) { return undeclared; }\n";

/// The compiler, or a word why the test can't be made. CI has them all.
fn installed(name: &str) -> Option<PathBuf> {
    let path = Path::new("/usr/bin").join(name);
    if path.exists() {
        return Some(path);
    }
    support::skipped(&format!("{name} is not installed"));
    None
}

fn located(compiler: &Path) -> Located {
    probe(compiler, SEARCH_PATH, &Digests::default()).unwrap()
}

/// Builds the toolchain below `root`, as a worker would.
fn place(located: &Located, root: &Path) {
    for entry in &located.toolchain.manifest.entries {
        let path = root.join(entry.path.relative());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match &entry.kind {
            EntryKind::File {
                digest, executable, ..
            } => {
                fs::copy(located.toolchain.open_blob(digest).unwrap(), &path).unwrap();
                let mode = if *executable { 0o555 } else { 0o444 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
            EntryKind::Symlink(target) => symlink(target.as_path(), &path).unwrap(),
            EntryKind::Directory => fs::create_dir_all(&path).unwrap(),
        }
    }
}

/// Runs a command line in `root`, which is all that it sees: no `/proc`, no `/etc`.
fn inside(root: &Path, cwd: &Path, program: &AbsPath, arguments: &[&str]) -> Output {
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--user", "--map-root-user", "--root"])
        .arg(root)
        .arg("--wd")
        .arg(cwd)
        .arg(program.as_path());
    answer(&mut unshare, arguments)
}

fn outside(compiler: &Path, cwd: &Path, arguments: &[&str]) -> Output {
    answer(Command::new(compiler).current_dir(cwd), arguments)
}

fn answer(command: &mut Command, arguments: &[&str]) -> Output {
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap()
}

fn can_change_root() -> bool {
    let status = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--root",
            "/",
            "--wd",
            "/",
            "/bin/true",
        ])
        .status();
    let can = status.is_ok_and(|status| status.success());
    if !can {
        support::skipped("no user namespaces");
    }
    can
}

/// The compiler's answers within nothing but its toolchain are those that it gives here.
fn works_elsewhere(compiler: &str) {
    let Some(compiler) = installed(compiler) else {
        return;
    };
    if !can_change_root() {
        return;
    }
    let located = located(&compiler);
    let [directory, work] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (root, work) = (directory.path(), work.path());
    place(&located, root);
    fs::create_dir_all(root.join("tmp")).unwrap();
    // The one header that every compile reads; it would come with the job.
    fs::create_dir_all(root.join("usr/include")).unwrap();
    fs::copy(
        "/usr/include/stdc-predef.h",
        root.join("usr/include/stdc-predef.h"),
    )
    .unwrap();
    // The same directory, seen from inside and from outside.
    let places = [root.join(work.strip_prefix("/").unwrap()), work.to_owned()];
    for place in &places {
        fs::create_dir_all(place).unwrap();
        for (name, text) in [("c.c", C), ("x.cc", CXX), ("w.c", WRONG)] {
            fs::write(place.join(name), text).unwrap();
        }
    }
    // The arguments, and whether there will be an object and a `.dwo`.
    for (arguments, made) in [
        (&["-O2", "-c", "c.c"][..], [true, false]),
        (&["-O2", "-g", "-c", "x.cc"], [true, false]),
        (&["-O2", "-S", "c.c"], [true, false]),
        (&["-g", "-gsplit-dwarf", "-c", "c.c"], [true, true]),
        (&["-c", "w.c"], [false, false]),
        (&["-c", "absent.c"], [false, false]),
    ] {
        let arguments = [arguments, &["-o", "out.o"]].concat();
        let outputs = [
            inside(root, work, &located.program, &arguments),
            outside(&compiler, work, &arguments),
        ];
        let [theirs, ours] = outputs.map(|output| {
            let text = String::from_utf8(output.stderr).unwrap();
            (output.status.code(), text)
        });
        assert_eq!(theirs, ours, "{arguments:?}");
        for (file, is_made) in ["out.o", "out.dwo"].iter().zip(made) {
            let [theirs, ours] = [0, 1].map(|at| fs::read(places[at].join(file)).ok());
            assert_eq!(theirs.is_some(), is_made, "{file} {arguments:?}");
            assert!(theirs == ours, "other bytes in {file}: {arguments:?}");
            for place in places.iter().filter(|_| is_made) {
                fs::remove_file(place.join(file)).unwrap();
            }
        }
    }
}

#[test]
fn gcc_works_elsewhere() {
    works_elsewhere("gcc");
}

#[test]
fn gxx_works_elsewhere() {
    works_elsewhere("g++");
}

#[test]
fn clang_works_elsewhere() {
    works_elsewhere("clang");
}

#[test]
fn clangxx_works_elsewhere() {
    works_elsewhere("clang++");
}

#[test]
fn every_name_of_a_compiler_has_the_same_toolchain() {
    for names in [
        &["gcc", "g++", "cc", "c++", "x86_64-linux-gnu-gcc-12"][..],
        &["clang", "clang++", "clang-14"],
    ] {
        let digests = Digests::default();
        let found: Vec<_> = names
            .iter()
            .filter_map(|name| installed(name))
            .map(|path| (probe(&path, SEARCH_PATH, &digests).unwrap(), path))
            .collect();
        for (located, path) in &found {
            assert_eq!(
                located.toolchain.digest,
                found[0].0.toolchain.digest,
                "{}",
                path.display()
            );
            assert_eq!(located.program.as_path(), path);
            assert_eq!(manifest::check(&located.toolchain.manifest), Ok(()));
            assert!(located.toolchain.is_current());
        }
    }
}

#[test]
fn a_wrapper_script_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("gcc");
    fs::write(&script, "#!/bin/sh\nexec /usr/bin/gcc \"$@\"\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let error = probe(&script, SEARCH_PATH, &Digests::default()).unwrap_err();
    assert!(error.to_string().contains("script"), "{error}");
    let error = probe(Path::new("/bin/true"), SEARCH_PATH, &Digests::default()).unwrap_err();
    assert!(matches!(error, ProbeError::Unknown(_)), "{error}");
}

#[test]
fn a_change_of_the_compiler_is_noticed() {
    let Some(gcc) = installed("gcc") else { return };
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("gcc");
    symlink(&gcc, &link).unwrap();
    let tools = directory.path().join("tools");
    fs::create_dir(&tools).unwrap();
    let search_path = [tools.as_os_str().as_encoded_bytes(), b":", SEARCH_PATH].concat();

    let known = Toolchains::new(directory.path().join("spool")).unwrap();
    let locate = || smol::block_on(known.locate(&link, &search_path)).unwrap();
    let first = locate();
    assert_eq!(first.program.as_path(), link);
    assert!(Arc::ptr_eq(&first.toolchain, &locate().toolchain));

    // The symlink is another one: a new toolchain object, the same content.
    fs::remove_file(&link).unwrap();
    symlink(&gcc, &link).unwrap();
    assert!(!first.toolchain.is_current());
    let second = locate();
    assert!(!Arc::ptr_eq(&first.toolchain, &second.toolchain));
    assert_eq!(first.toolchain.digest, second.toolchain.digest);

    // An assembler appears earlier in the search path.
    symlink("/usr/bin/as", tools.join("as")).unwrap();
    assert!(!second.toolchain.is_current());
    let third = locate();
    assert_ne!(second.toolchain.digest, third.toolchain.digest);
    assert!(third.toolchain.is_current());
}

#[test]
fn two_callers_at_once_ask_the_compiler_once() {
    let Some(gcc) = installed("gcc") else { return };
    let directory = tempfile::tempdir().unwrap();
    let known = Toolchains::new(directory.path().to_owned()).unwrap();
    let (one, two) = smol::block_on(smol::future::zip(
        known.locate(&gcc, SEARCH_PATH),
        known.locate(&gcc, SEARCH_PATH),
    ));
    assert!(Arc::ptr_eq(
        &one.unwrap().toolchain,
        &two.unwrap().toolchain
    ));

    let absent = smol::block_on(known.locate(&directory.path().join("gcc"), SEARCH_PATH));
    assert!(absent.unwrap_err().to_string().contains("not there"));
}

#[test]
fn an_archive_of_the_real_compiler_is_its_toolchain() {
    let Some(gcc) = installed("gcc") else { return };
    let directory = tempfile::tempdir().unwrap();
    let written = archive::build_native(&gcc, SEARCH_PATH, Compression::None, directory.path());
    let written = written.unwrap();
    let native = located(&gcc);
    assert_eq!(
        written.file_name().unwrap().to_str(),
        Some(&*format!("{}.tar", native.toolchain.digest))
    );
    let known = Toolchains::new(directory.path().join("spool")).unwrap();
    let read = smol::block_on(known.unpack(&written, &gcc)).unwrap();
    assert_eq!(read.toolchain.manifest, native.toolchain.manifest);
    assert_eq!(read.program, native.program);
    let again = smol::block_on(known.unpack(&written, Path::new("/elsewhere/g++"))).unwrap();
    assert!(Arc::ptr_eq(&read.toolchain, &again.toolchain));
    assert_eq!(again.program.to_string(), "/usr/bin/g++");
}

/// An entry of an archive: type, path, link target, content.
type Made<'a> = (u8, &'a [u8], &'a [u8], &'a [u8]);

/// Writes headers byte by byte, since a library refuses what a hostile archive has.
fn tarball(entries: &[Made<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, path, target, content) in entries {
        let mut header = [0u8; 512];
        header[..path.len()].copy_from_slice(path);
        header[100..108].copy_from_slice(b"0000755\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[136..148].copy_from_slice(b"14000000000\0");
        header[148..156].copy_from_slice(b"        ");
        header[156] = *kind;
        header[157..157 + target.len()].copy_from_slice(target);
        header[257..265].copy_from_slice(b"ustar  \0");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(header);
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn opened(bytes: &[u8]) -> Result<Vec<(String, EntryKind)>, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    fs::write(&path, bytes).unwrap();
    let spool = directory.path().join("spool");
    let result = archive::open(&path, &spool, Stamps::default());
    let listed = result.map(|toolchain| {
        let entries = toolchain.manifest.entries.iter();
        entries
            .map(|entry| (entry.path.to_string(), entry.kind.clone()))
            .collect()
    });
    let left: Vec<_> = fs::read_dir(&spool).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    listed.map_err(|error| error.to_string())
}

#[test]
fn archives_of_other_makers_are_read() {
    let long = [&b"usr/"[..], &b"x".repeat(200), b"/f\0"].concat();
    let content = b"program";
    let digest = ice::id::Digest(*blake3::hash(content).as_bytes());
    let file = EntryKind::File {
        digest,
        size: 7,
        executable: true,
        mtime: Mtime::default(),
    };
    let made = tarball(&[
        (b'5', b"./", b"", b""),
        (b'5', b"./usr/", b"", b""),
        (b'0', b"./usr/bin/gcc", b"", content),
        (b'1', b"usr/bin/cc", b"./usr/bin/gcc", b""),
        (b'2', b"lib", b"usr/lib", b""),
        (b'5', b"usr/lib/", b"", b""),
        (b'L', b"././@LongLink", b"", &long),
        (b'\0', b"usr/xxxx", b"", content),
        (b'g', b"global", b"", b"19 comment=nothing\n"),
        (b'x', b"extended", b"", b"16 path=usr/pax\n"),
        (b'0', b"cut", b"", content),
    ]);
    let expect = [
        (
            "/lib".to_owned(),
            EntryKind::Symlink(Bytes::from("usr/lib")),
        ),
        ("/usr/bin/cc".to_owned(), file.clone()),
        ("/usr/bin/gcc".to_owned(), file.clone()),
        ("/usr/lib".to_owned(), EntryKind::Directory),
        ("/usr/pax".to_owned(), file.clone()),
        (format!("/usr/{}/f", "x".repeat(200)), file),
    ];
    assert_eq!(opened(&made).unwrap(), expect);
}

#[test]
fn hostile_archives_are_refused() {
    let good: Made<'_> = (b'0', b"usr/bin/gcc", b"", b"x");
    let huge = vec![b'a'; 70_000];
    let cases: &[(&[Made<'_>], &str)] = &[
        (&[], "without a program"),
        (&[good, (b'0', b"../etc/passwd", b"", b"x")], "`..`"),
        (&[good, (b'0', b"usr/../../x", b"", b"x")], "`..`"),
        (&[good, (b'0', b"/etc/passwd", b"", b"x")], "absolute"),
        (&[good, (b'3', b"dev/null", b"", b"")], "not a file"),
        (&[good, (b'4', b"dev/sda", b"", b"")], "not a file"),
        (&[good, (b'6', b"pipe", b"", b"")], "not a file"),
        (&[good, (b'S', b"sparse", b"", b"")], "not a file"),
        (&[good, (b'1', b"a", b"etc/shadow", b"")], "link to nothing"),
        (&[good, (b'1', b"a", b"/usr/bin/gcc", b"")], "absolute"),
        (&[good, (b'1', b"a", b"../../etc/shadow", b"")], "`..`"),
        (
            &[good, (b'2', b"l", b"/etc", b""), (b'1', b"a", b"l", b"")],
            "link to nothing",
        ),
        (
            &[
                good,
                (b'2', b"l", b"/etc", b""),
                (b'0', b"l/passwd", b"", b"x"),
            ],
            "not a directory",
        ),
        (
            &[good, (b'0', b"usr/bin/gcc/x", b"", b"x")],
            "not a directory",
        ),
        (&[good, good], "twice"),
        (&[good, (b'2', b"usr/bin/gcc", b"/etc", b"")], "twice"),
        (&[good, (b'2', b"./", b"/etc", b"")], "root"),
        (&[good, (b'2', b"empty", b"", b"")], "impossible target"),
        (&[good, (b'L', b"long", b"", &huge), good], "too long"),
        (&[good, (b'x', b"pax", b"", &huge), good], "too long"),
        (
            &[
                good,
                (b'L', b"long", b"", b"../../x\0"),
                (b'0', b"y", b"", b"x"),
            ],
            "`..`",
        ),
        (
            &[
                good,
                (b'x', b"pax", b"", b"20 path=/etc/passwd\n"),
                (b'0', b"y", b"", b"x"),
            ],
            "absolute",
        ),
        (
            &[
                good,
                (b'x', b"pax", b"", b"23 size=99999999999999\n"),
                (b'0', b"y", b"", b"x"),
            ],
            "8 GiB",
        ),
    ];
    for (entries, expect) in cases {
        let error = opened(&tarball(entries)).unwrap_err();
        assert!(error.contains(expect), "{error} is not about {expect:?}");
    }
    let mut lying = tarball(&[good]);
    lying[124..136].copy_from_slice(b"77777777777\0");
    assert!(opened(&lying).is_err());
    let many: Vec<Made<'_>> = vec![(b'5', b"d/", b"", b""); 20_000];
    assert!(opened(&tarball(&many)).unwrap_err().contains("at most"));
}
