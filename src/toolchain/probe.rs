//! Asks a compiler of this machine which programs it uses, and makes a toolchain of them.
//!
//! gcc and g++ of one installation make one toolchain, whichever was asked, so that a project in C
//! and C++ ships it once; so do clang and clang++. Headers are not in it: they travel with the
//! jobs. Nor are message catalogs: the worker's messages are English, in UTF-8 where the locale is
//! `C.UTF-8`, so a job under another language has to stay local; and no `gconv` modules, so one with
//! another `-finput-charset` or `-fexec-charset` than UTF-8, too.
//!
//! The compiler is asked under an environment of `PATH` alone: variables that would lead it to
//! other programs (`GCC_EXEC_PREFIX`, `COMPILER_PATH`) are the classifier's.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::id::{AbsPath, Bytes, Digest};
use crate::message::{Entry, EntryKind, Manifest, Mtime};

use super::archive::Spool;
use super::closure::{Closure, ClosureError, Files, Node};
use super::disk::{Disk, linker_directories};
use super::manifest::{self, ManifestError};
use super::stamp::{Digests, Stamp, Stamps};

/// The longest answer of a compiler that is read.
const ANSWER_BYTES_MAX: u64 = 256 << 10;

/// The most names of a directory that are looked at; `/usr/bin` has a hundred that begin with
/// `clang-`.
const NAMES_MAX: usize = 1024;

/// Why a compiler can't be shipped.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A file is missing, or is a script.
    #[error(transparent)]
    Closure(#[from] ClosureError),
    /// The list breaks a limit.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The compiler can't be asked.
    #[error("ask {compiler}: {error}")]
    Ask {
        /// The compiler.
        compiler: PathBuf,
        /// What came of it.
        error: io::Error,
    },
    /// It doesn't answer as gcc or clang do.
    #[error("{0} is neither gcc nor clang")]
    Unknown(PathBuf),
    /// A program that it needs is not there.
    #[error("{compiler} finds no {program}")]
    Missing {
        /// The compiler.
        compiler: PathBuf,
        /// The program.
        program: &'static str,
    },
    /// A file can't be read, or changed meanwhile.
    #[error("read {path}: {error}")]
    Read {
        /// The file.
        path: AbsPath,
        /// What came of it.
        error: io::Error,
    },
}

/// A toolchain of this machine, or from an archive.
#[derive(Debug)]
pub struct Toolchain {
    /// Its files.
    pub manifest: Manifest,
    /// Its name.
    pub digest: Digest,
    blobs: BTreeMap<Digest, PathBuf>,
    stamps: Stamps,
    /// Where an archive's files lie as long as the toolchain lives.
    _spool: Option<Spool>,
}

impl Toolchain {
    /// Whether its files are still those that were looked at, and would be found again. Some 50
    /// `lstat`s; cheap enough for every job.
    pub fn is_current(&self) -> bool {
        self.stamps.is_current()
    }

    /// A file of this machine that had this content when it was looked at; none when it is not
    /// of this toolchain.
    pub fn open_blob(&self, digest: &Digest) -> Option<&Path> {
        self.blobs.get(digest).map(PathBuf::as_path)
    }

    /// The contents of its files.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        self.blobs.keys()
    }

    /// This one and another in one list: a compiler and the files that it needs besides, or two compilers.
    ///
    /// # Errors
    /// When the two have different things at one place, or are too much together.
    pub(super) fn joined(self, other: Self) -> Result<Self, ManifestError> {
        let mut entries: BTreeMap<AbsPath, EntryKind> = BTreeMap::new();
        for entry in self
            .manifest
            .entries
            .into_iter()
            .chain(other.manifest.entries)
        {
            entries.insert(entry.path, entry.kind);
        }
        let entries = entries.into_iter();
        let manifest = Manifest {
            platform: self.manifest.platform,
            entries: entries.map(|(path, kind)| Entry { path, kind }).collect(),
        };
        manifest::check(&manifest)?;
        let mut blobs = self.blobs;
        blobs.extend(other.blobs);
        let mut stamps = self.stamps;
        stamps.extend(other.stamps);
        Ok(Self {
            digest: manifest::name(&manifest),
            manifest,
            blobs,
            stamps,
            _spool: None,
        })
    }

    pub(super) fn from_archive(
        manifest: Manifest,
        blobs: BTreeMap<Digest, PathBuf>,
        stamps: Stamps,
        spool: Spool,
    ) -> Self {
        Self {
            digest: manifest::name(&manifest),
            manifest,
            blobs,
            stamps,
            _spool: Some(spool),
        }
    }
}

/// A compiler within its toolchain.
#[derive(Clone, Debug)]
pub struct Located {
    /// The toolchain, shared by all its compilers.
    pub toolchain: Arc<Toolchain>,
    /// The program to execute: the compiler's path in the toolchain.
    pub program: AbsPath,
}

/// Looks at `compiler`, an absolute path that may be a symlink. `search_path` is the `PATH` of the
/// call: gcc looks for its assembler there. Blocks, for some 30 ms and the time to read the files.
pub fn probe(
    compiler: &Path,
    search_path: &[u8],
    digests: &Digests,
) -> Result<Located, ProbeError> {
    probe_with(compiler, &[], search_path, digests)
}

/// The same with other files in the toolchain, absolute paths; programs and libraries bring along
/// the libraries that they need.
pub(super) fn probe_with(
    compiler: &Path,
    files: &[PathBuf],
    search_path: &[u8],
    digests: &Digests,
) -> Result<Located, ProbeError> {
    let mut disk = Disk;
    let mut probe = Probe {
        compiler,
        search_path,
        closure: Closure::new(&mut disk, linker_directories()),
        stamps: Stamps::default(),
    };
    let spelled = compiler.as_os_str().as_bytes();
    // Before it is asked anything: a script is refused, not run.
    let driver = probe.closure.program(spelled)?;
    let program = probe.program(spelled)?;

    let cc1 = probe.ask_program(compiler, "cc1")?;
    let cc1plus = probe.ask_program(compiler, "cc1plus")?;
    let drivers = match (cc1, cc1plus) {
        (None, None) => probe.clang(driver.clone())?,
        (cc1, cc1plus) => probe.gcc(driver.clone(), [cc1, cc1plus])?,
    };
    probe.names(&program, &drivers)?;
    probe.locale();
    for file in files {
        let spelled = file.as_os_str().as_bytes();
        let is_program = AbsPath::parse(spelled).is_ok_and(|path| Disk.elf(&path).is_some());
        match is_program {
            true => probe.closure.program(spelled).map(drop)?,
            false => probe.closure.file(spelled).map(drop)?,
        }
    }

    let machine = Disk.elf(&driver).map(|elf| elf.machine);
    let platform = machine.and_then(|machine| machine.platform());
    let platform = platform.unwrap_or(std::env::consts::ARCH).to_owned();
    let found = probe.closure.finish()?;
    let toolchain = assemble(platform, found, probe.stamps, digests)?;
    Ok(Located {
        toolchain: Arc::new(toolchain),
        program,
    })
}

struct Probe<'a> {
    compiler: &'a Path,
    search_path: &'a [u8],
    closure: Closure<'a, Disk>,
    stamps: Stamps,
}

impl Probe<'_> {
    /// The compiler under the name by which it was called, in its canonical directory.
    fn program(&mut self, spelled: &[u8]) -> Result<AbsPath, ProbeError> {
        let absent = || ClosureError::Absent(spelled.into());
        let slash = spelled.iter().rposition(|&byte| byte == b'/');
        let (directory, name) = spelled.split_at(slash.ok_or_else(absent)?);
        let directory = self.closure.canonical(&[directory, b"/"].concat());
        let program = directory.and_then(|directory| directory.join(&name[1..]).ok());
        program.ok_or_else(|| absent().into())
    }

    /// gcc: the compilers proper, assembler, `objcopy` (for `-gsplit-dwarf`), plugin, specs. Returns the
    /// drivers.
    fn gcc(
        &mut self,
        driver: AbsPath,
        compilers: [Option<Bytes>; 2],
    ) -> Result<Vec<AbsPath>, ProbeError> {
        for path in compilers.iter().flatten() {
            self.closure.program(path)?;
        }
        let assembler = self.tool("as")?.ok_or_else(|| ProbeError::Missing {
            compiler: self.compiler.to_owned(),
            program: "as",
        })?;
        self.closure.program(&assembler)?;
        if let Some(path) = self.tool("objcopy")? {
            self.closure.program(&path)?;
        }
        if let Some(path) = self.ask_file("liblto_plugin.so")? {
            self.closure.program(&path)?;
        }
        if let Some(path) = self.ask_file("specs")? {
            self.closure.file(&path)?;
        }
        let mut drivers = vec![driver.clone()];
        let other = other_language(driver.file_name())
            .and_then(|name| driver.parent()?.join(&name).ok())
            .and_then(|path| self.closure.canonical(path.as_bytes()));
        if let Some(other) = other
            && Disk.elf(&other).is_some()
        {
            // Another version may stand beside it under that name.
            let known = compilers.iter().flatten().next();
            let asked = if compilers[0].is_some() {
                "cc1"
            } else {
                "cc1plus"
            };
            if self.ask_program(other.as_path(), asked)?.as_ref() == known {
                self.closure.program(other.as_bytes())?;
                drivers.push(other);
            }
        }
        Ok(drivers)
    }

    /// clang: an assembler for `-fno-integrated-as`, the default lists of the sanitizers, and the few
    /// files by which it recognises the distribution and finds a gcc's C++ headers. Returns the driver.
    fn clang(&mut self, driver: AbsPath) -> Result<Vec<AbsPath>, ProbeError> {
        let compiler = self.compiler;
        let resources = self.ask(compiler, "-print-resource-dir", Stream::Output)?;
        if resources.first() != Some(&b'/') {
            return Err(ProbeError::Unknown(compiler.to_owned()));
        }
        if let Some(path) = self.tool("as")? {
            self.closure.program(&path)?;
        }
        let share = [&resources[..], b"/share"].concat();
        for name in names_in(Path::new(OsStr::from_bytes(&share)), |_| true) {
            self.optional(&[&share[..], b"/", &name[..]].concat());
        }
        let described = self.ask(compiler, "-v", Stream::Messages)?;
        for line in described.split(|&byte| byte == b'\n') {
            if let Some(path) = line.strip_prefix(b"Configuration file: ") {
                self.closure.file(path)?;
            } else if let Some(path) = line.strip_prefix(b"Found candidate GCC installation: ") {
                for variant in ["", "/32", "/x32", "/64"] {
                    self.optional(&[path, variant.as_bytes(), b"/crtbegin.o"].concat());
                }
            }
        }
        for path in ["/etc/os-release", "/etc/lsb-release", "/etc/debian_version"] {
            self.optional(path.as_bytes());
        }
        Ok(vec![driver])
    }

    /// The names under which the drivers can be called, where the compiler was called and where it
    /// really lies. All of them, so that the list is the same whichever was called.
    fn names(&mut self, program: &AbsPath, drivers: &[AbsPath]) -> Result<(), ProbeError> {
        let mut directories: Vec<AbsPath> = drivers.iter().filter_map(AbsPath::parent).collect();
        directories.extend(program.parent());
        directories.sort();
        directories.dedup();
        for directory in directories {
            let names = names_in(directory.as_path(), |name| language(name).is_some());
            for name in names {
                let Ok(path) = directory.join(&name) else {
                    continue;
                };
                let target = self.closure.canonical(path.as_bytes());
                if target.is_some_and(|target| drivers.contains(&target)) {
                    self.closure.file(path.as_bytes())?;
                }
            }
        }
        Ok(())
    }

    /// What makes quotation marks in messages the same under `C.UTF-8`.
    fn locale(&mut self) {
        for path in ["LC_CTYPE", "LC_MESSAGES/SYS_LC_MESSAGES"] {
            self.optional(&[b"/usr/lib/locale/C.utf8/", path.as_bytes()].concat());
        }
    }

    /// Adds a file if it is there. Where it is not, that is remembered.
    fn optional(&mut self, path: &[u8]) {
        if self.closure.file(path).is_err() {
            self.stamps.add(Path::new(OsStr::from_bytes(path)), None);
        }
    }

    /// A program that the compiler looks for among its own and then in `PATH`.
    fn tool(&mut self, name: &'static str) -> Result<Option<Bytes>, ProbeError> {
        if let Some(path) = self.ask_program(self.compiler, name)? {
            return Ok(Some(path));
        }
        for directory in self.search_path.split(|&byte| byte == b':') {
            if directory.first() != Some(&b'/') {
                continue;
            }
            let path = [directory, b"/", name.as_bytes()].concat();
            if self.closure.canonical(&path).is_some() {
                return Ok(Some(path.into()));
            }
            self.stamps.add(Path::new(OsStr::from_bytes(&path)), None);
        }
        Ok(None)
    }

    fn ask_program(&self, compiler: &Path, name: &str) -> Result<Option<Bytes>, ProbeError> {
        let answer = self.ask(
            compiler,
            &format!("-print-prog-name={name}"),
            Stream::Output,
        )?;
        Ok(there(answer))
    }

    fn ask_file(&self, name: &str) -> Result<Option<Bytes>, ProbeError> {
        let answer = self.ask(
            self.compiler,
            &format!("-print-file-name={name}"),
            Stream::Output,
        )?;
        Ok(there(answer))
    }

    fn ask(&self, compiler: &Path, question: &str, stream: Stream) -> Result<Vec<u8>, ProbeError> {
        let answer = run(compiler, question, self.search_path, stream);
        answer.map_err(|error| ProbeError::Ask {
            compiler: compiler.to_owned(),
            error,
        })
    }
}

/// gcc answers with the bare name when it has no such file.
fn there(path: Vec<u8>) -> Option<Bytes> {
    let is_there = path.first() == Some(&b'/') && Path::new(OsStr::from_bytes(&path)).is_file();
    is_there.then(|| path.into())
}

/// Where a compiler's answer is awaited; the other stream is closed, so that it can't fill up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Output,
    Messages,
}

fn run(compiler: &Path, question: &str, search_path: &[u8], stream: Stream) -> io::Result<Vec<u8>> {
    let pipe = |at| match stream == at {
        true => Stdio::piped(),
        false => Stdio::null(),
    };
    let mut child = Command::new(compiler)
        .arg(question)
        .env_clear()
        .env("PATH", OsStr::from_bytes(search_path))
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(pipe(Stream::Output))
        .stderr(pipe(Stream::Messages))
        .spawn()?;
    let mut answer = Vec::new();
    let read = match (child.stdout.take(), child.stderr.take()) {
        (Some(pipe), _) => pipe.take(ANSWER_BYTES_MAX).read_to_end(&mut answer),
        (_, Some(pipe)) => pipe.take(ANSWER_BYTES_MAX).read_to_end(&mut answer),
        (None, None) => Ok(0),
    };
    child.wait()?;
    read?;
    while answer.last() == Some(&b'\n') {
        answer.pop();
    }
    Ok(answer)
}

fn assemble(
    platform: String,
    found: BTreeMap<AbsPath, Node>,
    mut stamps: Stamps,
    digests: &Digests,
) -> Result<Toolchain, ProbeError> {
    let mut blobs = BTreeMap::new();
    let mut entries = Vec::with_capacity(found.len());
    for (path, node) in found {
        let kind = match node {
            Node::File => {
                let hashed = digests.digest(path.as_path());
                let hashed = hashed.map_err(|error| ProbeError::Read {
                    path: path.clone(),
                    error,
                })?;
                stamps.add(path.as_path(), Some(hashed.stamp));
                blobs.insert(hashed.digest, path.as_path().to_owned());
                EntryKind::File {
                    digest: hashed.digest,
                    size: hashed.size,
                    executable: hashed.executable,
                    mtime: Mtime::default(),
                }
            }
            Node::Symlink(target) => {
                stamps.add(path.as_path(), Stamp::at(path.as_path()));
                EntryKind::Symlink(target)
            }
            Node::Directory => EntryKind::Directory,
        };
        entries.push(Entry { path, kind });
    }
    let manifest = Manifest { platform, entries };
    manifest::check(&manifest)?;
    Ok(Toolchain {
        digest: manifest::name(&manifest),
        manifest,
        blobs,
        stamps,
        _spool: None,
    })
}

fn names_in(directory: &Path, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().as_bytes().to_vec()));
    let mut names: Vec<_> = names.filter(|name| wanted(name)).collect();
    names.sort();
    names.truncate(NAMES_MAX);
    names
}

/// Pairs of names, C and C++.
const LANGUAGES: [[&[u8]; 2]; 3] = [[b"gcc", b"g++"], [b"cc", b"c++"], [b"clang", b"clang++"]];

/// Where in a compiler's name (`x86_64-linux-gnu-gcc-12`) the word for its language stands, and
/// the word for the other language.
pub(super) fn language(name: &[u8]) -> Option<(std::ops::Range<usize>, &'static [u8])> {
    let mut end = name.len();
    for part in name.rsplit(|&byte| byte == b'-') {
        let start = end - part.len();
        for [c, cxx] in LANGUAGES {
            if part == c {
                return Some((start..end, cxx));
            }
            if part == cxx {
                return Some((start..end, c));
            }
        }
        end = start.saturating_sub(1);
    }
    None
}

/// The name of the same compiler for C++ instead of C, or the other way round.
fn other_language(name: &[u8]) -> Option<Vec<u8>> {
    let (place, word) = language(name)?;
    Some([&name[..place.start], word, &name[place.end..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_compiler_has_a_name_for_the_other_language() {
        for (c, cxx) in [
            ("gcc", "g++"),
            ("x86_64-linux-gnu-gcc-12", "x86_64-linux-gnu-g++-12"),
            ("arm-none-eabi-gcc", "arm-none-eabi-g++"),
            ("cc", "c++"),
            ("clang-14", "clang++-14"),
        ] {
            let name = |text: &str| Some(text.as_bytes().to_vec());
            assert_eq!(other_language(c.as_bytes()), name(cxx));
            assert_eq!(other_language(cxx.as_bytes()), name(c));
        }
        for other in ["", "gccgo", "tcc", "clang-format", "gcc12", "-"] {
            let expect = (other == "clang-format").then(|| b"clang++-format".to_vec());
            assert_eq!(other_language(other.as_bytes()), expect, "{other}");
        }
    }
}
