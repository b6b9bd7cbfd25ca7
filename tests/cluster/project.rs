//! What is compiled: two projects that no one here wrote, small sources of the tests' own, and what
//! the plain compiler makes of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::node::User;
use crate::support::package;

/// Object files by their names, and their bytes.
pub type Objects = BTreeMap<String, Vec<u8>>;

/// A set of sources and how they are compiled.
#[derive(Debug)]
pub struct Project {
    /// `gcc` or `g++`.
    pub compiler: &'static str,
    flags: &'static str,
    /// The files that are compiled, relative to the root.
    units: Vec<String>,
    /// Everything there is, by relative path.
    files: BTreeMap<String, Vec<u8>>,
    plain: OnceLock<Objects>,
}

/// Lua, in C.
pub fn lua() -> &'static Project {
    static LUA: OnceLock<Project> = OnceLock::new();
    LUA.get_or_init(|| {
        let root = package("lua-src").join("lua-5.4.7");
        Project::of(
            "gcc",
            "-O1 -Wall -DLUA_USE_POSIX",
            read_tree(&root),
            |path| path.ends_with(".c"),
        )
    })
}

/// Lua with debug information, for a compiler of that name; its objects name the directory.
pub fn lua_with_debug_information(compiler: &'static str) -> Project {
    let files = lua().files.clone();
    Project::of(compiler, "-g -O0 -MD -DLUA_USE_POSIX", files, |path| {
        path.ends_with(".c")
    })
}

/// LevelDB, in C++.
pub fn leveldb() -> &'static Project {
    static LEVELDB: OnceLock<Project> = OnceLock::new();
    LEVELDB.get_or_init(|| {
        let root = package("leveldb-sys").join("deps/leveldb-1.22");
        let other = [
            "_test.cc",
            "_bench.cc",
            "windows",
            "testharness",
            "testutil",
            "leveldbutil",
        ];
        Project::of(
            "g++",
            "-std=c++11 -O1 -I. -Iinclude -DLEVELDB_PLATFORM_POSIX=1 -DLEVELDB_IS_BIG_ENDIAN=0",
            read_tree(&root),
            |path| {
                path.ends_with(".cc")
                    && ["db/", "table/", "util/"]
                        .iter()
                        .any(|dir| path.starts_with(dir))
                    && !other.iter().any(|part| path.contains(part))
            },
        )
    })
}

/// `count` small files in C, each with an object of its own.
pub fn small(count: usize) -> Project {
    let file = |index: usize| {
        let text = format!(
            "#include <stddef.h>\nint f{index}(size_t n) {{ return n ? (int) n * {index} : {index}; }}\n"
        );
        (format!("s{index}.c"), text.into_bytes())
    };
    Project::of("gcc", "-O1", (0..count).map(file).collect(), |_| true)
}

/// Files that each keep the compiler busy for some seconds.
pub fn slow() -> &'static Project {
    static SLOW: OnceLock<Project> = OnceLock::new();
    SLOW.get_or_init(|| {
        let files = (0..4).map(|index| (format!("slow{index}.c"), slow_text(index)));
        Project::of("gcc", "-O2", files.collect(), |_| true)
    })
}

/// Files that take longer than a silent worker is waited for: none has ended, and no second start has been made for
/// another, when the silence is noticed.
pub fn slower() -> &'static Project {
    static SLOWER: OnceLock<Project> = OnceLock::new();
    SLOWER.get_or_init(|| {
        let files = (0..3).map(|index| (format!("slower{index}.c"), busy_text(index, 520)));
        Project::of("gcc", "-O2", files.collect(), |_| true)
    })
}

/// A source that keeps `gcc -O2` busy for about a second; another `seed` makes another object.
pub fn slow_text(seed: usize) -> Vec<u8> {
    busy_text(seed, 130)
}

fn busy_text(seed: usize, functions: usize) -> Vec<u8> {
    let functions = (0..functions).map(|index| {
        format!(
            "int f{index}(int *a, int n) {{ int s = {seed};\n\
             for (int i = 0; i < n; i++) {{ s += a[i] * {index}; if (s & {index}) s ^= a[(i + {index}) % n];\n\
             for (int j = 0; j < i; j++) a[j] += s >> (j & {}); }} return s; }}\n",
            index % 31
        )
    });
    functions.collect::<String>().into_bytes()
}

impl Project {
    fn of(
        compiler: &'static str,
        flags: &'static str,
        files: BTreeMap<String, Vec<u8>>,
        is_unit: impl Fn(&str) -> bool,
    ) -> Self {
        // In order, since the map is.
        let units: Vec<String> = files.keys().filter(|path| is_unit(path)).cloned().collect();
        assert!(!units.is_empty(), "there is nothing to compile");
        Self {
            compiler,
            flags,
            units,
            files,
            plain: OnceLock::new(),
        }
    }

    /// The files that are compiled, in order.
    pub fn units(&self) -> &[String] {
        &self.units
    }

    /// How many objects there will be.
    pub fn count(&self) -> usize {
        self.units.len()
    }

    /// Writes sources and Makefile to `directory`, for `user`.
    pub fn write(&self, directory: &Path, user: User) {
        user.make_directory(directory);
        let output = directory.join("out");
        user.make_directory(&output);
        for (path, bytes) in &self.files {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().expect("it is in a directory")).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let mut makefile = String::from("all:\n");
        for unit in &self.units {
            let object = object(unit);
            makefile += &format!("all: {object}\n");
            makefile += &format!("{object}: {unit}\n\t$(CC) {} -c $< -o $@\n", self.flags);
        }
        fs::write(directory.join("Makefile"), makefile).unwrap();
    }

    /// Compares the objects in `directory` with those of the plain compiler, byte for byte.
    #[track_caller]
    pub fn assert_built(&self, directory: &Path) {
        let (plain, ours) = (self.plain(), objects(directory));
        assert_eq!(
            ours.keys().collect::<Vec<_>>(),
            plain.keys().collect::<Vec<_>>()
        );
        let names = plain.keys();
        let different: Vec<_> = names.filter(|name| ours[*name] != plain[*name]).collect();
        assert!(different.is_empty(), "other objects: {different:?}");
    }

    /// The plain compiler's objects; they are made once for all tests.
    pub fn plain(&self) -> &Objects {
        self.plain.get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            self.build_plain(directory.path())
        })
    }

    /// What the plain compiler makes of it in this directory; what was built there is lost.
    pub fn build_plain(&self, directory: &Path) -> Objects {
        let _ = fs::remove_dir_all(directory.join("out"));
        self.write(directory, crate::node::ROOT);
        let output = Command::new("make")
            .args(["-s", "-j4", &format!("CC={}", self.compiler)])
            .current_dir(directory)
            .env_remove("MAKEFLAGS")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let objects = objects(directory);
        assert!(objects.len() >= self.count());
        objects
    }
}

/// The name of a unit's object.
fn object(unit: &str) -> String {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    format!("out/{}.o", stem.replace('/', "_"))
}

/// Whatever is in the output directory of a build.
pub fn objects(directory: &Path) -> Objects {
    read_tree(&directory.join("out"))
}

/// All files below `root`, by relative path.
pub fn read_tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(below) = directories.pop() {
        let entries = fs::read_dir(root.join(&below));
        for entry in entries.unwrap_or_else(|error| panic!("{}: {error}", root.display())) {
            let entry = entry.unwrap();
            let path = below.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => directories.push(path),
                false => {
                    let bytes = fs::read(root.join(&path)).unwrap();
                    files.insert(path.to_str().expect("plain names").to_owned(), bytes);
                }
            }
        }
    }
    files
}
