//! The worker's store: what it keeps, over restarts, and what it refuses.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ice::id::{AbsPath, Bytes, Digest};
use ice::message::{Entry, EntryKind, Manifest, Mtime};
use ice::toolchain::manifest;
use ice::worker::store::{Store, StoreError};

const ROOMY: u64 = 100 << 20;

/// The room of a blob of one page.
const PAGE: u64 = 8192;

fn open(directory: &Path) -> Arc<Store> {
    Store::open(directory, ROOMY).unwrap()
}

fn digest(content: &[u8]) -> Digest {
    Digest(*blake3::hash(content).as_bytes())
}

fn insert(store: &Arc<Store>, content: &[u8]) -> Digest {
    store.insert(digest(content), content).unwrap();
    digest(content)
}

fn file_of(directory: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    directory.join("blobs").join(&name[..2]).join(name)
}

fn file(path: &str, content: &[u8], executable: bool) -> Entry {
    let kind = EntryKind::File {
        digest: digest(content),
        size: content.len() as u64,
        executable,
        mtime: Mtime::default(),
    };
    entry(path, kind)
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: AbsPath::parse(path).unwrap(),
        kind,
    }
}

/// A compiler of two files, one of them under two names.
fn toolchain() -> Manifest {
    Manifest {
        platform: "x86_64".into(),
        entries: vec![
            entry("/lib", EntryKind::Symlink(Bytes::from("usr/lib"))),
            file("/usr/bin/gcc", b"compiler", true),
            entry("/usr/include/empty", EntryKind::Directory),
            file("/usr/lib/libc.so", b"library", false),
            file("/usr/lib/other", b"compiler", false),
        ],
    }
}

fn fill(store: &Arc<Store>) {
    insert(store, b"compiler");
    insert(store, b"library");
}

#[test]
fn what_is_taken_in_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let [a, absent] = [&b"content a"[..], b"absent"].map(digest);
    assert!(!store.has(&a));
    let mut ingest = store.ingest(a, 9).unwrap();
    ingest.write(b"content").unwrap();
    ingest.write(b" a").unwrap();
    assert!(!store.has(&a), "before it is whole");
    let pins = ingest.finish().unwrap();
    assert!(store.has(&a));
    assert_eq!(store.read(&a).unwrap().unwrap(), b"content a");
    assert_eq!(store.read(&absent).unwrap(), None);
    assert_eq!(store.path(&absent), None);
    let metadata = fs::metadata(store.path(&a).unwrap()).unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o444);
    drop(pins);
    let (_pins, missing) = store.pin(&[absent, a, absent, a]);
    assert_eq!(missing, [absent]);
    // The same again changes nothing.
    insert(&store, b"content a");
    assert_eq!(store.used_bytes(), PAGE);
    insert(&store, b"");
    assert_eq!(store.used_bytes(), PAGE + 4096);
}

#[test]
fn what_is_not_what_it_says_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let name = digest(b"good");
    for (size, pieces, is_too_long) in [
        (4, &["bad!"][..], false),
        (4, &["goo"], false),
        (4, &[], false),
        (4, &["good", "!"], true),
        (3, &["good"], true),
        (5, &["good"], false),
    ] {
        let mut ingest = store.ingest(name, size).unwrap();
        let written = pieces
            .iter()
            .try_for_each(|piece| ingest.write(piece.as_bytes()));
        let result = written.and_then(|()| ingest.finish().map(drop));
        match result.unwrap_err() {
            StoreError::TooLong(digest) => assert!(is_too_long && digest == name),
            StoreError::Corrupt(digest) => assert!(!is_too_long && digest == name),
            other => panic!("{other}"),
        }
        assert!(!store.has(&name));
        assert_eq!(store.used_bytes(), 0);
    }
    drop(store.ingest(name, 4).unwrap());
    assert_eq!(store.used_bytes(), 0);
    assert_eq!(
        fs::read_dir(directory.path().join("tmp")).unwrap().count(),
        0
    );
}

#[test]
fn the_longest_unused_goes_first_and_what_is_pinned_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 10 * PAGE).unwrap();
    let name = |number: u32| format!("blob {number}");
    let blobs: Vec<_> = (0..10)
        .map(|n| insert(&store, name(n).as_bytes()))
        .collect();
    assert_eq!(store.used_bytes(), 10 * PAGE);
    let (pins, missing) = store.pin(&blobs[..1]);
    assert_eq!(missing, []);
    assert!(store.has(&blobs[2]), "a use");
    insert(&store, b"one more");
    let left: Vec<_> = blobs
        .iter()
        .map(|blob| file_of(directory.path(), blob).exists())
        .collect();
    assert_eq!(
        left,
        [true, false, true, false, true, true, true, true, true, true]
    );
    drop(pins);
    assert!(store.used_bytes() <= 10 * PAGE);

    // What can't fit, even if all went.
    let large = vec![0; 10 * PAGE as usize];
    assert!(matches!(
        store.insert(digest(&large), &large),
        Err(StoreError::Full)
    ));
    assert!(store.has(&blobs[9]), "nothing goes for what can't fit");

    // What doesn't fit beside what is pinned, or is on its way.
    let (_pins, _) = store.pin(&blobs);
    let half = vec![0; 5 * PAGE as usize];
    assert!(matches!(
        store.insert(digest(&half), &half),
        Err(StoreError::Full)
    ));
    let left: Vec<_> = fs::read_dir(directory.path().join("tmp"))
        .unwrap()
        .collect();
    assert!(left.is_empty());
    drop(store);
}

#[test]
fn reservations_count() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 4 * PAGE).unwrap();
    let coming = store.ingest(digest(b"a"), 2 * PAGE).unwrap();
    assert!(matches!(
        store.ingest(digest(b"b"), 2 * PAGE),
        Err(StoreError::Full)
    ));
    drop(coming);
    store.ingest(digest(b"b"), 2 * PAGE).unwrap();
}

#[test]
fn blobs_and_their_order_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = open(path);
    let [a, b, c] = [&b"a"[..], b"b", b"c"].map(|content| insert(&store, content));
    assert!(store.has(&a), "used last");
    let coming = store.ingest(digest(b"d"), 1).unwrap();
    fs::write(path.join("tmp/left"), "by a crash").unwrap();
    fs::write(path.join("blobs/rubbish"), "").unwrap();
    let shelf = file_of(path, &a);
    fs::write(shelf.with_file_name("rubbish"), "").unwrap();
    let planted = digest(b"planted");
    fs::create_dir_all(file_of(path, &planted).parent().unwrap()).unwrap();
    symlink("/etc/hostname", file_of(path, &planted)).unwrap();
    drop((store, coming));

    let store = open(path);
    assert_eq!(store.used_bytes(), 3 * PAGE);
    assert!(!store.has(&planted));
    assert_eq!(fs::read_dir(path.join("tmp")).unwrap().count(), 0);
    assert!(!shelf.with_file_name("rubbish").exists());
    drop(store);

    // A lower limit: the one used last is left.
    let store = Store::open(path, PAGE + PAGE / 2).unwrap();
    assert_eq!(
        [a, b, c].map(|digest| store.has(&digest)),
        [true, false, false]
    );
}

#[test]
fn what_was_spoiled_between_two_processes_is_never_given_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = open(path);
    let [a, b] = [&b"blob a"[..], b"blob b"].map(|content| insert(&store, content));
    drop(store);
    let spoiled = file_of(path, &a);
    fs::set_permissions(&spoiled, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&spoiled, "blob A").unwrap();

    let store = open(path);
    let (_pins, missing) = store.pin(&[a, b]);
    assert_eq!(missing, [a]);
    assert_eq!(store.read(&a).unwrap(), None);
    assert_eq!(store.used_bytes(), PAGE);
    insert(&store, b"blob a");
    assert_eq!(store.read(&a).unwrap().unwrap(), b"blob a");
}

#[test]
fn a_directory_has_one_owner_and_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/cache");
    let store = open(&path);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    let error = Store::open(&path, ROOMY).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    drop(store);
    drop(open(&path));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let error = Store::open(&path, ROOMY).unwrap_err();
    assert!(matches!(error, StoreError::Unsafe { .. }), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(&path));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);

    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    let error = Store::open(&link, ROOMY).unwrap_err();
    assert!(matches!(error, StoreError::Unsafe { .. }), "{error}");
}

#[test]
fn a_toolchain_is_built_of_blobs_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = open(path);
    let list = toolchain();
    let name = manifest::name(&list);
    let missing = |error| match error {
        StoreError::Missing(missing) => missing,
        other => panic!("{other}"),
    };
    let mut both = vec![digest(b"compiler"), digest(b"library")];
    both.sort();
    assert_eq!(missing(store.materialise(&list).unwrap_err()), both);
    insert(&store, b"compiler");
    assert_eq!(
        missing(store.materialise(&list).unwrap_err()),
        [digest(b"library")]
    );
    assert!(store.toolchain(&name).is_none());
    insert(&store, b"library");
    let placed = store.materialise(&list).unwrap();
    assert_eq!(placed.digest(), name);
    assert_eq!(**placed.manifest(), list);
    let root = placed.root().to_owned();
    let read = |name: &str| fs::read(root.join(name)).unwrap();
    assert_eq!(read("usr/bin/gcc"), b"compiler");
    assert_eq!(read("lib/libc.so"), b"library");
    assert!(root.join("usr/include/empty").is_dir());
    let mode = |name: &str| fs::metadata(root.join(name)).unwrap().mode() & 0o777;
    assert_eq!(
        ["usr/bin/gcc", "usr/lib/libc.so", "usr/bin", ""].map(mode),
        [0o555, 0o444, 0o755, 0o755]
    );
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(
        inode(&root.join("usr/bin/gcc")),
        inode(&file_of(path, &digest(b"compiler")))
    );
    assert_eq!(store.materialise(&list).unwrap().root(), root);
    assert_eq!(store.used_bytes(), 2 * PAGE, "links take no room");
    drop((placed, store));

    let store = open(path);
    assert_eq!(store.toolchains(), [name]);
    assert_eq!(**store.toolchain(&name).unwrap().manifest(), list);
}

#[test]
fn a_spoiled_toolchain_is_never_used() {
    let list = toolchain();
    let name = manifest::name(&list);
    type Spoil = fn(&Path);
    let spoil: &[(&str, Spoil)] = &[
        ("content", |root| {
            let path = root.join("usr/lib/libc.so");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(&path, "LIBRARY").unwrap();
        }),
        ("absence", |root| {
            fs::remove_file(root.join("usr/bin/gcc")).unwrap()
        }),
        ("symlink", |root| {
            fs::remove_file(root.join("lib")).unwrap();
            symlink("/etc", root.join("lib")).unwrap();
        }),
        ("symlink for a file", |root| {
            fs::remove_file(root.join("usr/lib/libc.so")).unwrap();
            symlink("../bin/gcc", root.join("usr/lib/libc.so")).unwrap();
        }),
        ("mode", |root| {
            let mode = fs::Permissions::from_mode(0o444);
            fs::set_permissions(root.join("usr/bin/gcc"), mode).unwrap();
        }),
        ("list", |root| {
            fs::write(root.with_file_name("manifest"), "rubbish").unwrap();
        }),
        ("half", |root| {
            fs::remove_file(root.with_file_name("manifest")).unwrap();
        }),
    ];
    for (what, spoil) in spoil {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        fill(&store);
        let root = store.materialise(&list).unwrap().root().to_owned();
        drop(store);
        spoil(&root);
        let store = open(directory.path());
        assert!(store.toolchain(&name).is_none(), "{what}");
        assert!(!root.exists(), "{what}");
        assert_eq!(store.toolchains(), [], "{what}");
        fill(&store);
        let placed = store.materialise(&list).unwrap();
        assert_eq!(
            fs::read(placed.root().join("lib/libc.so")).unwrap(),
            b"library",
            "{what}"
        );
    }
}

#[test]
fn blobs_are_read_again_when_a_toolchain_is_built() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    fill(&store);
    let path = store.path(&digest(b"library")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, "spoiled").unwrap();
    match store.materialise(&toolchain()).unwrap_err() {
        StoreError::Missing(missing) => assert_eq!(missing, [digest(b"library")]),
        other => panic!("{other}"),
    }
    assert_eq!(
        fs::read_dir(directory.path().join("tmp")).unwrap().count(),
        0
    );
}

#[test]
fn a_list_that_lies_builds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    fill(&store);
    let mut list = toolchain();
    if let EntryKind::File { size, .. } = &mut list.entries[1].kind {
        *size += 1;
    }
    assert!(matches!(
        store.materialise(&list),
        Err(StoreError::Corrupt(_))
    ));
    let mut list = toolchain();
    list.entries.swap(0, 1);
    assert!(matches!(
        store.materialise(&list),
        Err(StoreError::Manifest(_))
    ));
    list.entries = vec![
        file("/a", b"compiler", true),
        entry("/l", EntryKind::Symlink(Bytes::from("/etc"))),
        file("/l/passwd", b"compiler", true),
    ];
    assert!(matches!(
        store.materialise(&list),
        Err(StoreError::Manifest(_))
    ));
    assert_eq!(store.toolchains(), []);
    assert_eq!(
        fs::read_dir(directory.path().join("tmp")).unwrap().count(),
        0
    );
    assert_eq!(
        fs::read_dir(directory.path().join("toolchains"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_toolchain_goes_as_a_whole_but_not_while_it_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 6 * PAGE).unwrap();
    fill(&store);
    let placed = store.materialise(&toolchain()).unwrap();
    let root = placed.root().to_owned();
    let push = |from: u32| {
        for number in from..from + 12 {
            insert(&store, format!("blob {number}").as_bytes());
        }
    };
    push(0);
    assert!(root.join("usr/bin/gcc").exists());
    assert!(store.has(&digest(b"library")), "its blobs stay with it");
    drop(placed);
    push(100);
    assert_eq!(store.toolchains(), []);
    assert!(!root.exists());
    assert!(!store.has(&digest(b"compiler")));
    assert!(store.used_bytes() <= 6 * PAGE);
    let files = fs::read_dir(directory.path().join("blobs")).unwrap();
    let files = files.flat_map(|shelf| fs::read_dir(shelf.unwrap().path()).unwrap());
    assert_eq!(files.count() as u64 * PAGE, store.used_bytes());
}

#[test]
fn many_at_once_agree() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 20 * PAGE).unwrap();
    let list = toolchain();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..50u32 {
                    let content = format!("blob {}", round % 30);
                    let pins = store
                        .insert(digest(content.as_bytes()), content.as_bytes())
                        .unwrap();
                    let read = store.read(&digest(content.as_bytes())).unwrap();
                    assert_eq!(read.as_deref(), Some(content.as_bytes()));
                    drop(pins);
                    let mut pins = store.insert(digest(b"compiler"), b"compiler").unwrap();
                    pins.merge(store.insert(digest(b"library"), b"library").unwrap());
                    let placed = store.materialise(&list).unwrap();
                    assert!(placed.root().join("lib/libc.so").exists());
                }
            });
        }
    });
    assert!(store.used_bytes() <= 20 * PAGE);
    assert_eq!(
        fs::read_dir(directory.path().join("tmp")).unwrap().count(),
        0
    );
}
