//! What a job's tree costs the worker, in CPU time: `cargo bench --bench tree`.
//!
//! 600 of 1200 files in 100 directories, 9 KB each, as a large C++ unit has them, four trees. Each
//! job differs from one of those before it by 10 files out and 10 in, and writes an object and a
//! dependency file. "changes" is by how many files the job's tree then really differed. "in source"
//! has 100 of the files where the job writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use ice::id::{AbsPath, Digest};
use ice::message::{Entry, EntryKind, Mtime};
use ice::worker::tree::{TreeLimits, Trees};
use nix::time::{ClockId, clock_gettime};

const FILES: usize = 600;
const UNION: usize = 1200;
const DIFFERENCE: usize = 20;
const SIZE: usize = 9000; // A multiple of eight.
const JOBS: usize = 2000;

fn main() {
    println!(
        "µs of CPU      store/file first tree   changes   missing      take   collect  give back  job in all"
    );
    for (name, exposed) in [("out of source", 0), ("in source", 100)] {
        let figures = run(exposed);
        print!("{name:<14}");
        for figure in figures {
            print!("{figure:>11.1}");
        }
        println!();
    }
}

fn run(exposed: usize) -> [f64; 8] {
    let directory = tempfile::tempdir_in("/dev/shm").expect("make a directory in /dev/shm");
    let root: OwnedFd = fs::File::open(directory.path()).unwrap().into();
    let limits = TreeLimits {
        trees: 4,
        bytes: 1 << 30,
        inodes: 1 << 20,
    };
    let toolchain: Vec<Entry> = (0..40)
        .map(|n| entry(&format!("/usr/lib/gcc/x86_64-linux-gnu/12/tool{n}"), n))
        .collect();
    let union: Vec<Entry> = (0..UNION)
        .map(|n| {
            let below = if n % (UNION / 100) == 0 && n / 12 < exposed {
                "/home/user/project/build/include".to_owned()
            } else {
                format!(
                    "/usr/include/c++/12/library{}/detail{}",
                    n % 10,
                    n / 10 % 10
                )
            };
            entry(&format!("{below}/header_{n}.hpp"), n)
        })
        .collect();
    let mut trees = Trees::new(root, &toolchain, limits).unwrap();
    let contents: Vec<Vec<u8>> = (0..UNION).map(content).collect();
    let start = cpu();
    for (entry, content) in union.iter().zip(&contents) {
        trees.add(entry, &mut &content[..]).unwrap();
    }
    let store = (cpu() - start) / UNION as f64;

    let path = |text: &str| AbsPath::parse(text).unwrap();
    let writable = [path("/home/user/project/build")];
    let cwd = path("/home/user/project");
    let mut random = 1_u64;
    let mut below = |bound: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % bound
    };
    // Every twelfth file, which may be in the source directory, is in all jobs.
    let is_fixed = |n: usize| n % 12 == 0;
    let first: Vec<usize> = (0..UNION).filter(|&n| n % 2 == 0).collect();
    assert_eq!(first.len(), FILES);
    let mut earlier = vec![first; 3];
    let mut held: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let mut changes = 0.0;
    let (mut fill, mut sums) = (0.0, [0.0; 4]);
    for job in 0..JOBS {
        let mut numbers = earlier[below(3)].clone();
        for _ in 0..DIFFERENCE / 2 {
            let out = below(FILES);
            let new = below(UNION);
            if !is_fixed(numbers[out]) && !is_fixed(new) && !numbers.contains(&new) {
                numbers[out] = new;
            }
        }
        let entries: Vec<Entry> = numbers.iter().map(|&n| union[n].clone()).collect();
        let files: BTreeSet<usize> = numbers.iter().copied().collect();
        earlier[below(3)] = numbers;

        let times = {
            let mut times = vec![cpu()];
            assert!(trees.missing(&entries).is_empty());
            times.push(cpu());
            let tree = trees.take(&entries, &writable, &cwd).unwrap();
            times.push(cpu());
            let before = held.insert(tree.name(), files.clone()).unwrap_or_default();
            changes += before.symmetric_difference(&files).count() as f64 / JOBS as f64;
            let real = directory.path().join(tree.name());
            write(&real.join("home/user/project/build/a.o"), 150_000);
            write(&real.join("home/user/project/build/a.d"), 20_000);
            times.push(cpu());
            assert_eq!(trees.collect(&tree).unwrap().len(), 2);
            times.push(cpu());
            trees.give_back(tree);
            times.push(cpu());
            times
        };
        let step = |n: usize| times[n + 1] - times[n];
        if job == 0 {
            fill = step(1);
        }
        for (sum, time) in sums.iter_mut().zip([step(0), step(1), step(3), step(4)]) {
            *sum += time / JOBS as f64;
        }
    }
    let [missing, take, collect, give_back] = sums;
    let all = sums.iter().sum();
    [store, fill, changes, missing, take, collect, give_back, all]
}

fn entry(path: &str, n: usize) -> Entry {
    Entry {
        path: AbsPath::parse(path).unwrap(),
        kind: EntryKind::File {
            digest: Digest(*blake3::hash(&content(n)).as_bytes()),
            size: SIZE as u64,
            executable: false,
            mtime: Mtime::default(),
        },
    }
}

fn content(n: usize) -> Vec<u8> {
    n.to_le_bytes().repeat(SIZE / 8)
}

fn write(at: &Path, size: usize) {
    fs::write(at, vec![b'o'; size]).unwrap();
}

/// CPU time of this process, the kernel's work for it included, in microseconds.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    time.tv_sec() as f64 * 1e6 + time.tv_nsec() as f64 / 1e3
}
