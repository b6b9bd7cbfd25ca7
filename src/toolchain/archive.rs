//! Toolchains as files: the archives that `ice build-native` writes and `ICECC_VERSION` names, and
//! those that icecream made.
//!
//! An archive is read entry by entry into a list and a directory of blobs; nothing is ever unpacked
//! at the place that it names. Ours differ from icecream's only in that symlinks stay symlinks, so
//! that the compiler keeps all its names and its own paths.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tar::EntryType;

use crate::id::{AbsPath, Bytes, Digest, PATH_BYTES_MAX};
use crate::message::{Entry, EntryKind, Manifest, Mtime};

use super::elf;
use super::gzip;
use super::manifest::{self, ENTRIES_MAX, ManifestError, TOTAL_BYTES_MAX};
use super::probe::{ProbeError, Toolchain, language, probe_with};
use super::stamp::{Digests, Stamps};

/// The most headers of an archive, directories and extended ones included.
const HEADERS_MAX: usize = 4 * ENTRIES_MAX;

/// The most bytes of an archive once it is decompressed.
const UNPACKED_BYTES_MAX: u64 = TOTAL_BYTES_MAX + ((HEADERS_MAX as u64) << 10);

/// The longest extended header (pax) that is read.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;

/// Why an archive was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file can't be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What came of it.
        error: io::Error,
    },
    /// Its name ends in no suffix that is known.
    #[error("{0}: not the name of an archive")]
    Suffix(PathBuf),
    /// A compression that can't be written.
    #[error("no compression is called {0} (none, gzip, bzip2, xz, zstd)")]
    Compression(Bytes),
    /// It is damaged, or of a kind of `tar` that is not read.
    #[error("the archive can't be read: {0}")]
    Damaged(#[from] io::Error),
    /// It has an entry that no toolchain needs, or an impossible one.
    #[error("the archive's entry {path} is refused: {why}")]
    Entry {
        /// As it is spelled.
        path: Bytes,
        /// Why.
        why: &'static str,
    },
    /// Its list is no toolchain's.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// There is no toolchain to write.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, icecream's default.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz: the smallest, and by far the slowest to write.
    Xz,
    /// zstd, at its fastest level.
    Zstd,
}

impl Compression {
    /// The meaning of `ICECC_ENV_COMPRESSION`; empty is gzip.
    pub fn parse(text: &[u8]) -> Result<Self, ArchiveError> {
        Ok(match text {
            b"none" => Self::None,
            b"" | b"gzip" | b"gz" => Self::Gzip,
            b"bzip2" | b"bz2" => Self::Bzip2,
            b"xz" => Self::Xz,
            b"zstd" | b"zst" => Self::Zstd,
            other => return Err(ArchiveError::Compression(other.into())),
        })
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::None => ".tar",
            Self::Gzip => ".tar.gz",
            Self::Bzip2 => ".tar.bz2",
            Self::Xz => ".tar.xz",
            Self::Zstd => ".tar.zst",
        }
    }

    fn of(file: &Path) -> Option<Self> {
        let name = file.file_name()?.as_bytes();
        let ends = |suffix: &str| name.ends_with(suffix.as_bytes());
        Some(match () {
            () if ends(".tar") => Self::None,
            () if ends(".tar.gz") || ends(".tgz") => Self::Gzip,
            () if ends(".tar.bz2") => Self::Bzip2,
            () if ends(".tar.xz") => Self::Xz,
            () if ends(".tar.zst") || ends(".tar.zstd") => Self::Zstd,
            () => return None,
        })
    }
}

/// Writes the toolchain of `compiler` into `directory` and returns the archive's path: its name is
/// the toolchain's digest. Blocks for seconds.
pub fn build_native(
    compiler: &Path,
    search_path: &[u8],
    compression: Compression,
    directory: &Path,
) -> Result<PathBuf, ArchiveError> {
    build(&[compiler], &[], search_path, compression, directory)
}

/// The same of several compilers, one at least, in one archive with `files` besides (absolute paths).
pub fn build(
    compilers: &[&Path],
    files: &[PathBuf],
    search_path: &[u8],
    compression: Compression,
    directory: &Path,
) -> Result<PathBuf, ArchiveError> {
    let digests = Digests::default();
    let mut whole: Option<Toolchain> = None;
    for compiler in compilers {
        let files = if whole.is_none() { files } else { &[] };
        let located = probe_with(compiler, files, search_path, &digests)?;
        let part = Arc::into_inner(located.toolchain).expect("it was just made");
        whole = Some(match whole {
            Some(whole) => whole.joined(part)?,
            None => part,
        });
    }
    let toolchain = whole.expect("there is a compiler");
    let digest = toolchain.digest;
    let path = directory.join(format!("{digest}{}", compression.suffix()));
    let partial = directory.join(format!("{digest}.{}.partial", std::process::id()));
    let failed = |error| ArchiveError::File {
        path: path.clone(),
        error,
    };
    let written = write(&toolchain, compression, &partial);
    let written = written.and_then(|()| fs::rename(&partial, &path));
    if let Err(error) = written {
        // What is half written is of no use to anyone, and its loss is not worth a second error.
        let _ = fs::remove_file(&partial);
        return Err(failed(error));
    }
    Ok(path)
}

fn write(toolchain: &Toolchain, compression: Compression, path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    let out = BufWriter::with_capacity(64 << 10, &mut file);
    match compression {
        Compression::None => write_tar(toolchain, out)?.flush()?,
        Compression::Gzip => {
            let packer = gzip::Writer::new(out)?;
            write_tar(toolchain, packer)?.finish()?.flush()?;
        }
        Compression::Bzip2 => {
            let packer = bzip2::write::BzEncoder::new(out, bzip2::Compression::best());
            write_tar(toolchain, packer)?.finish()?.flush()?;
        }
        Compression::Xz => {
            let packer = lzma_rust2::XzWriter::new(out, lzma_rust2::XzOptions::with_preset(6))?;
            write_tar(toolchain, packer)?.finish()?.flush()?;
        }
        Compression::Zstd => {
            // The encoder knows no `Write` and panics where reading or writing fails: it is
            // given memory on both sides.
            let plain = write_tar(toolchain, Vec::new())?;
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            let packed = ruzstd::encoding::compress_to_vec(&plain[..], level);
            let mut out = out;
            out.write_all(&packed)?;
            out.flush()?;
        }
    }
    Ok(())
}

fn write_tar<W: Write>(toolchain: &Toolchain, out: W) -> io::Result<W> {
    let mut builder = tar::Builder::new(out);
    for Entry { path, kind } in &toolchain.manifest.entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(0);
        let name = path.relative();
        match kind {
            EntryKind::File {
                digest,
                size,
                executable,
                ..
            } => {
                let source = toolchain.open_blob(digest).ok_or(io::ErrorKind::NotFound)?;
                let source = File::open(source)?;
                if source.metadata()?.len() != *size {
                    return Err(io::Error::other("a file changed while it was packed"));
                }
                header.set_mode(if *executable { 0o755 } else { 0o644 });
                header.set_size(*size);
                builder.append_data(&mut header, name, source.take(*size))?;
            }
            EntryKind::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                builder.append_link(&mut header, name, target.as_path())?;
            }
            EntryKind::Directory => {
                header.set_entry_type(EntryType::Directory);
                builder.append_data(&mut header, name, io::empty())?;
            }
        }
    }
    builder.into_inner()
}

/// Reads the archive `file` into a directory of its own below `spool`. `stamps`: of the file, taken
/// before this call.
pub fn open(file: &Path, spool: &Path, stamps: Stamps) -> Result<Toolchain, ArchiveError> {
    let failed = |error| ArchiveError::File {
        path: file.to_owned(),
        error,
    };
    let compression = Compression::of(file).ok_or_else(|| ArchiveError::Suffix(file.to_owned()))?;
    let opened = File::open(file).map_err(failed)?;
    if !opened.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    let spool = Spool::create(spool).map_err(failed)?;
    let input = BufReader::with_capacity(64 << 10, opened);
    let (manifest, blobs) = match compression {
        Compression::None => read(input, &spool)?,
        Compression::Gzip => read(gzip::Reader::new(input), &spool)?,
        Compression::Bzip2 => read(bzip2::read::MultiBzDecoder::new(input), &spool)?,
        Compression::Xz => read(lzma_rust2::XzReader::new(input, true), &spool)?,
        Compression::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(input);
            let decoder = decoder.map_err(|error| io::Error::other(error.to_string()))?;
            read(decoder, &spool)?
        }
    };
    Ok(Toolchain::from_archive(manifest, blobs, stamps, spool))
}

/// The program of a list that a call of `compiler` means: the one at its own path (our archives), else
/// the one where icecream's archives have it.
pub fn program(manifest: &Manifest, compiler: &Path) -> Option<AbsPath> {
    let stands = |path: &AbsPath| manifest.entries.iter().any(|entry| entry.path == *path);
    let own = AbsPath::parse(compiler.as_os_str().as_bytes()).ok();
    if let Some(own) = own.filter(|path| stands(path)) {
        return Some(own);
    }
    let name = compiler.file_name()?.as_bytes();
    let (place, _) = language(name)?;
    let names: &[&str] = match &name[place] {
        b"gcc" | b"cc" => &["gcc"],
        b"g++" | b"c++" => &["g++"],
        b"clang" => &["clang"],
        // icecream ships one clang; it goes by `argv[0]`.
        _ => &["clang++", "clang"],
    };
    let directory = AbsPath::parse("/usr/bin").ok()?;
    let mut paths = names
        .iter()
        .filter_map(|name| directory.join(name.as_bytes()).ok());
    paths.find(|path| stands(path))
}

/// A directory that is removed with everything in it when it is no longer used.
#[derive(Debug)]
pub struct Spool(PathBuf);

impl Spool {
    /// Removes what an earlier process left in `parent`.
    pub fn clear(parent: &Path) -> io::Result<()> {
        match fs::read_dir(parent) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if entry.file_name().as_bytes().starts_with(b"archive-") {
                        fs::remove_dir_all(entry.path())?;
                    }
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn create(parent: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        fs::create_dir_all(parent)?;
        let path = parent.join(format!("archive-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("remove {}: {error}", self.0.display());
        }
    }
}

type Contents = (Manifest, BTreeMap<Digest, PathBuf>);

fn read<R: Read>(input: R, spool: &Spool) -> Result<Contents, ArchiveError> {
    let input = Bounded {
        inner: input,
        left: UNPACKED_BYTES_MAX,
    };
    let mut archive = tar::Archive::new(input);
    let mut listing = Listing {
        spool,
        entries: BTreeMap::new(),
        blobs: BTreeMap::new(),
        total: 0,
    };
    let mut extension = Extension::default();
    for (number, entry) in archive.entries()?.raw(true).enumerate() {
        if number >= HEADERS_MAX {
            return Err(ManifestError::TooMany(number).into());
        }
        let entry = entry?;
        // Extended headers are read here rather than by the library, which knows no limit for them.
        if let Some(entry) = extension.take_in(entry)? {
            listing.add(entry, std::mem::take(&mut extension))?;
        }
    }
    let manifest = Manifest {
        platform: listing.platform(),
        entries: listing.finish(),
    };
    manifest::check(&manifest)?;
    Ok((manifest, listing.blobs))
}

/// What extended headers say of the entry that follows.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

impl Extension {
    /// Takes in an extended header, or gives an ordinary entry back.
    fn take_in<'a, R: Read>(
        &mut self,
        mut entry: tar::Entry<'a, R>,
    ) -> Result<Option<tar::Entry<'a, R>>, ArchiveError> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName | EntryType::GNULongLink => {
                let mut name = extended(&mut entry)?;
                while name.last() == Some(&0) {
                    name.pop();
                }
                if kind == EntryType::GNULongName {
                    self.path = Some(name);
                } else {
                    self.target = Some(name);
                }
            }
            EntryType::XHeader => {
                let text = extended(&mut entry)?;
                for pair in tar::PaxExtensions::new(&text) {
                    let pair = pair?;
                    match pair.key_bytes() {
                        b"path" => self.path = Some(pair.value_bytes().to_vec()),
                        b"linkpath" => self.target = Some(pair.value_bytes().to_vec()),
                        b"size" => return Err(refuse(&text, "a file of more than 8 GiB")),
                        key if key.starts_with(b"GNU.sparse") => {
                            return Err(refuse(&text, "a sparse file"));
                        }
                        _ => {}
                    }
                }
            }
            EntryType::XGlobalHeader => drop(extended(&mut entry)?),
            _ => return Ok(Some(entry)),
        }
        Ok(None)
    }
}

fn extended<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Vec<u8>, ArchiveError> {
    if entry.size() > EXTENSION_BYTES_MAX {
        return Err(refuse(&entry.path_bytes(), "a header that is too long"));
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text)?;
    Ok(text)
}

/// The list as it grows.
struct Listing<'a> {
    spool: &'a Spool,
    entries: BTreeMap<AbsPath, EntryKind>,
    blobs: BTreeMap<Digest, PathBuf>,
    total: u64,
}

impl Listing<'_> {
    fn add<R: Read>(
        &mut self,
        mut entry: tar::Entry<'_, R>,
        extension: Extension,
    ) -> Result<(), ArchiveError> {
        let header = entry.header();
        let kind = header.entry_type();
        let name = extension
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let target = match extension.target {
            Some(target) => target,
            None => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        let executable = header.mode()? & 0o111 != 0;
        let path = plain(&name).map_err(|why| refuse(&name, why))?;
        // Before there was a type for them, directories were files whose name ends so.
        let is_directory =
            kind == EntryType::Directory || (kind == EntryType::Regular && name.ends_with(b"/"));
        let kind = match kind {
            _ if is_directory => EntryKind::Directory,
            EntryType::Regular | EntryType::Continuous => {
                self.file(&mut entry, &name, executable)?
            }
            EntryType::Link => {
                let source = plain(&target).map_err(|why| refuse(&name, why))?;
                match self.entries.get(&source) {
                    Some(file @ EntryKind::File { .. }) => file.clone(),
                    _ => return Err(refuse(&name, "a link to nothing that came before")),
                }
            }
            EntryType::Symlink => EntryKind::Symlink(target.into()),
            _ => return Err(refuse(&name, "not a file, a symlink or a directory")),
        };
        if path.parent().is_none() {
            // `./`, as `tar -C DIR .` has it.
            return match kind {
                EntryKind::Directory => Ok(()),
                _ => Err(refuse(&name, "it would be the root")),
            };
        }
        if let Some(before) = self.entries.insert(path, kind.clone())
            && (before, kind) != (EntryKind::Directory, EntryKind::Directory)
        {
            return Err(refuse(&name, "it comes twice"));
        }
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        name: &[u8],
        executable: bool,
    ) -> Result<EntryKind, ArchiveError> {
        let size = entry.size();
        self.total = self.total.saturating_add(size);
        if self.total > TOTAL_BYTES_MAX {
            return Err(ManifestError::TooLarge.into());
        }
        let partial = self.spool.0.join("partial");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 64 << 10];
        let mut left = size;
        loop {
            let length = entry.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            left = left.saturating_sub(length as u64);
            hasher.update(&buffer[..length]);
            file.write_all(&buffer[..length])?;
        }
        if left != 0 {
            return Err(refuse(name, "it is cut short"));
        }
        let digest = Digest(*hasher.finalize().as_bytes());
        let blob = self.spool.0.join(digest.to_string());
        fs::rename(&partial, &blob)?;
        self.blobs.insert(digest, blob);
        Ok(EntryKind::File {
            digest,
            size,
            executable,
            mtime: Mtime::default(),
        })
    }

    /// The platform of the compiler if it is where icecream has it, else of any program.
    fn platform(&self) -> String {
        let is_compiler = |path: &AbsPath| language(path.file_name()).is_some();
        let mut files: Vec<_> = self.entries.iter().collect();
        files.sort_by_key(|(path, _)| !is_compiler(path));
        let platform = files.into_iter().find_map(|(_, kind)| match kind {
            EntryKind::File {
                digest,
                executable: true,
                ..
            } => platform_of(self.blobs.get(digest)?),
            _ => None,
        });
        platform.unwrap_or(std::env::consts::ARCH).to_owned()
    }

    /// The list, without the directories that others imply.
    fn finish(&mut self) -> Vec<Entry> {
        let entries = std::mem::take(&mut self.entries);
        let implied: BTreeSet<AbsPath> = entries.keys().filter_map(AbsPath::parent).collect();
        entries
            .into_iter()
            .filter(|(path, kind)| *kind != EntryKind::Directory || !implied.contains(path))
            .map(|(path, kind)| Entry { path, kind })
            .collect()
    }
}

fn platform_of(blob: &Path) -> Option<&'static str> {
    let cache = object::ReadCache::new(File::open(blob).ok()?);
    elf::parse(&cache)?.machine.platform()
}

/// The place of an entry: relative, and never leading out.
fn plain(name: &[u8]) -> Result<AbsPath, &'static str> {
    if name.first() == Some(&b'/') {
        return Err("an absolute path");
    }
    if name.len() > PATH_BYTES_MAX || name.contains(&0) {
        return Err("an impossible path");
    }
    if name.split(|&byte| byte == b'/').any(|part| part == b"..") {
        return Err("a path with `..`");
    }
    let root = AbsPath::parse("/").map_err(|_| "no root")?;
    AbsPath::lexical(&root, name).map_err(|_| "an impossible path")
}

fn refuse(path: &[u8], why: &'static str) -> ArchiveError {
    ArchiveError::Entry {
        path: path[..path.len().min(PATH_BYTES_MAX)].into(),
        why,
    }
}

/// A stream that ends in an error after so many bytes: what stops a small archive that
/// decompresses without end.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(out)?;
        match self.left.checked_sub(length as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::other(
                    "it unpacks to more than a toolchain may have",
                ));
            }
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::Located;
    use super::*;

    /// A toolchain of two files, one of them twice, a symlink and an empty directory.
    fn small(directory: &Path) -> Toolchain {
        let spool = Spool::create(directory).unwrap();
        let mut blobs = BTreeMap::new();
        let mut file = |path: &str, content: &[u8], executable| {
            let digest = Digest(*blake3::hash(content).as_bytes());
            let blob = spool.0.join(digest.to_string());
            fs::write(&blob, content).unwrap();
            blobs.insert(digest, blob);
            Entry {
                path: AbsPath::parse(path).unwrap(),
                kind: EntryKind::File {
                    digest,
                    size: content.len() as u64,
                    executable,
                    mtime: Mtime::default(),
                },
            }
        };
        let long = format!("/{}/name", "long".repeat(40));
        let mut entries = vec![
            file("/usr/bin/gcc", b"the compiler", true),
            file("/usr/lib/copy", b"the compiler", false),
            file("/usr/lib/empty", b"", false),
            file(&long, &vec![b'x'; 100_000], false),
        ];
        for (path, kind) in [
            ("/lib", EntryKind::Symlink("usr/lib".into())),
            ("/long", EntryKind::Symlink(long.as_str().into())),
            ("/usr/lib/gcc/12", EntryKind::Directory),
        ] {
            let path = AbsPath::parse(path).unwrap();
            entries.push(Entry { path, kind });
        }
        entries.sort();
        let manifest = Manifest {
            platform: std::env::consts::ARCH.into(),
            entries,
        };
        Toolchain::from_archive(manifest, blobs, Stamps::default(), spool)
    }

    #[test]
    fn what_is_written_is_read_again_in_every_compression() {
        let directory = tempfile::tempdir().unwrap();
        let toolchain = small(directory.path());
        let located = Located {
            program: toolchain.manifest.entries[1].path.clone(),
            toolchain: toolchain.into(),
        };
        for text in ["none", "gzip", "bzip2", "xz", "zstd"] {
            let compression = Compression::parse(text.as_bytes()).unwrap();
            let path = directory.path().join(format!("a{}", compression.suffix()));
            write(&located.toolchain, compression, &path).unwrap();
            let read = open(&path, directory.path(), Stamps::default()).unwrap();
            assert_eq!(read.manifest, located.toolchain.manifest, "{text}");
            assert_eq!(read.digest, located.toolchain.digest);
            for digest in read.blobs() {
                let [ours, theirs] = [&read, &*located.toolchain]
                    .map(|toolchain| fs::read(toolchain.open_blob(digest).unwrap()).unwrap());
                assert!(ours == theirs, "{text}");
            }
            // Cut in the middle, it is an error and not a smaller toolchain.
            let whole = fs::read(&path).unwrap();
            fs::write(&path, &whole[..whole.len() / 2]).unwrap();
            assert!(
                open(&path, directory.path(), Stamps::default()).is_err(),
                "{text}"
            );
        }
        drop(located);
        let left = fs::read_dir(directory.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            left.iter()
                .all(|name| !name.as_bytes().starts_with(b"archive-")),
            "{left:?}"
        );
    }

    #[test]
    fn an_endless_stream_ends_in_an_error() {
        let mut bounded = Bounded {
            inner: io::repeat(0),
            left: 1000,
        };
        let mut out = Vec::new();
        assert!(bounded.read_to_end(&mut out).is_err());
        assert!(out.len() <= 1000);
    }

    #[test]
    fn a_call_finds_its_program() {
        let list = |paths: &[&str]| {
            let entry = |path: &&str| Entry {
                path: AbsPath::parse(*path).unwrap(),
                kind: EntryKind::Symlink("x".into()),
            };
            Manifest {
                platform: "x".into(),
                entries: paths.iter().map(entry).collect(),
            }
        };
        let icecream = ["/usr/bin/clang", "/usr/bin/g++", "/usr/bin/gcc"];
        for (paths, compiler, expect) in [
            (&icecream[..], "/usr/bin/cc", Some("/usr/bin/gcc")),
            (
                &icecream,
                "/opt/arm/bin/arm-linux-g++-12",
                Some("/usr/bin/g++"),
            ),
            (&icecream, "/usr/bin/clang++-14", Some("/usr/bin/clang")),
            (&icecream, "/usr/bin/tcc", None),
            (
                &["/opt/bin/gcc", "/usr/bin/gcc"],
                "/opt/bin/gcc",
                Some("/opt/bin/gcc"),
            ),
            (&["/opt/bin/gcc"], "/usr/bin/gcc", None),
        ] {
            let found = program(&list(paths), Path::new(compiler));
            assert_eq!(
                found.map(|path| path.to_string()).as_deref(),
                expect,
                "{compiler}"
            );
        }
    }
}
