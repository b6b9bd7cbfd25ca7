//! Names of things that cross a process or a wire: digests, nodes, leases, jobs, paths, bytes.
//!
//! Nothing here does anything. A name is a newtype so that a lease never meets a job, and a path
//! that came from outside is an [`AbsPath`] or an error, once, where it came in.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest path that is accepted from outside, in bytes (Linux's `PATH_MAX`).
pub const PATH_BYTES_MAX: usize = 4096;

/// A BLAKE3 digest: the name of a blob by its content, or of a toolchain by its file list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The first twelve hexadecimal digits: enough for a log line.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = (high * 16 + low) as u8;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($of:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $of);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A node, as long as its connection to this scheduler lasts.
    NodeId(u32)
);
number!(
    /// A lease, unique for the life of a scheduler.
    LeaseId(u64)
);
number!(
    /// A scheduler's process; it draws the number at random when it starts.
    SchedulerId(u64)
);
number!(
    /// A submitter's request for a lease; the submitter chooses it, unique on its connection.
    RequestId(u64)
);
impl RequestId {
    /// Bits of the number within one submitter; above them stands which submitter of a node it is.
    const NUMBER_BITS: u32 = 40;

    /// The request as its node tells it to the scheduler, where the requests of several submitters meet;
    /// none when the submitter has numbered it out of its range.
    pub fn of_agent(self, agent: u32) -> Option<Self> {
        let fits = self.0 >> Self::NUMBER_BITS == 0 && agent >> (64 - Self::NUMBER_BITS) == 0;
        fits.then_some(Self(u64::from(agent) << Self::NUMBER_BITS | self.0))
    }

    /// Which submitter of its node has made it.
    pub fn agent(self) -> u32 {
        (self.0 >> Self::NUMBER_BITS) as u32
    }

    /// The request as that submitter has numbered it.
    pub fn within_agent(self) -> Self {
        Self(self.0 & ((1 << Self::NUMBER_BITS) - 1))
    }
}

number!(
    /// A job; its submitter chooses it, unique in the submitter's process.
    JobId(u64)
);

/// How long a scheduler's word holds: from its election until the next one. A later term is greater, and a
/// lease of an earlier one is worth nothing where a later one is known.
///
/// The upper 20 bits count elections. The others are the time at which the scheduler started, turned
/// around, so that of two that were elected without knowing of each other the older one's term is greater.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Term(pub u64);

impl Term {
    const START_BITS: u32 = 44;
    const START_MAX: u64 = (1 << Self::START_BITS) - 1;

    /// The term of a scheduler that started at `started_ms`, in milliseconds since 1970, and follows on this
    /// one; always greater. After a million elections, which is a year of one every half minute,
    /// the count stands still and nothing is greater any more.
    #[must_use]
    pub fn next(self, started_ms: u64) -> Self {
        let round = (self.round() + 1).min(u64::MAX >> Self::START_BITS);
        let age = Self::START_MAX - started_ms.min(Self::START_MAX);
        Self(round << Self::START_BITS | age)
    }

    /// How many elections there were.
    pub fn round(self) -> u64 {
        self.0 >> Self::START_BITS
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.round().fmt(f)
    }
}

/// Bytes that the operating system calls text: an argument, a variable, a path as it was spelled.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// The bytes as the standard library's word for them.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// The bytes as a path.
    pub fn as_path(&self) -> &Path {
        Path::new(self.as_os_str())
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<OsString> for Bytes {
    fn from(text: OsString) -> Self {
        Self(text.into_vec())
    }
}

impl From<&Path> for Bytes {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }

        deserializer.deserialize_byte_buf(Visitor)
    }
}

/// An absolute path without `.`, `..`, empty components, NUL or trailing slash; `/` itself is one.
///
/// It names a place and can't climb out of one: joined below any root, it stays below it as long
/// as no symlink is followed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Bytes", into = "Bytes")]
pub struct AbsPath(Vec<u8>);

/// Why bytes are not an [`AbsPath`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a plain absolute path: {0}")]
pub struct BadPath(String);

impl AbsPath {
    /// Accepts exactly the canonical spelling; nothing is repaired.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, BadPath> {
        let bytes = bytes.into();
        let plain = bytes == b"/"
            || (bytes.len() <= PATH_BYTES_MAX
                && bytes.first() == Some(&b'/')
                && !bytes.contains(&0)
                && bytes[1..]
                    .split(|&b| b == b'/')
                    .all(|part| !matches!(part, b"" | b"." | b"..")));
        if plain {
            Ok(Self(bytes))
        } else {
            Err(BadPath(String::from_utf8_lossy(&bytes).into_owned()))
        }
    }

    /// Joins `path` to `base` when it is relative and removes `.`, `..` and `//` **by text**, as if
    /// there were no symlinks.
    pub fn lexical(base: &Self, path: &[u8]) -> Result<Self, BadPath> {
        let mut parts: Vec<&[u8]> = Vec::new();
        if path.first() != Some(&b'/') {
            parts.extend(base.components());
        }
        for part in path.split(|&b| b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        let mut bytes = Vec::with_capacity(path.len() + base.0.len());
        for part in parts {
            bytes.push(b'/');
            bytes.extend_from_slice(part);
        }
        if bytes.is_empty() {
            bytes.push(b'/');
        }
        Self::parse(bytes)
    }

    /// The path's bytes, with the leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for the standard library.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The path without its leading slash, to be joined to a root; empty for `/`.
    pub fn relative(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0[1..]))
    }

    /// The components, from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|part| !part.is_empty())
    }

    /// The directory that holds it; none for `/`.
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|&b| b == b'/')?;
        match (slash, self.0.len()) {
            (0, 1) => None,
            (0, _) => Some(Self(b"/".to_vec())),
            _ => Some(Self(self.0[..slash].to_vec())),
        }
    }

    /// The last component; empty for `/`.
    pub fn file_name(&self) -> &[u8] {
        self.0.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }

    /// The path of `name` in this directory.
    pub fn join(&self, name: &[u8]) -> Result<Self, BadPath> {
        let mut bytes = self.0.clone();
        if bytes != b"/" {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self::parse(bytes)
    }

    /// Whether it is `directory` or lies below it.
    pub fn is_within(&self, directory: &Self) -> bool {
        match self.0.strip_prefix(&directory.0[..]) {
            Some(rest) => rest.is_empty() || rest[0] == b'/' || directory.0 == b"/",
            None => false,
        }
    }
}

impl TryFrom<Bytes> for AbsPath {
    type Error = BadPath;

    fn try_from(bytes: Bytes) -> Result<Self, BadPath> {
        Self::parse(bytes.0)
    }
}

impl From<AbsPath> for Bytes {
    fn from(path: AbsPath) -> Self {
        Self(path.0)
    }
}

impl fmt::Debug for AbsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for AbsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// Time since the process started, in microseconds. The shell reads the clock and hands it to
/// the cores, so that a trace replays; it means nothing on another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// This time plus `duration`, saturating.
    pub fn after(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(duration.as_micros() as u64))
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_path_is_plain_or_an_error() {
        for good in ["/", "/a", "/a/b.c", "/a b/\n", "/..."] {
            assert!(AbsPath::parse(good).is_ok(), "{good:?}");
        }
        for bad in [
            "", "a", "//", "/a/", "/a//b", "/./a", "/a/..", "/../x", "/a\0b",
        ] {
            assert!(AbsPath::parse(bad).is_err(), "{bad:?}");
        }
        assert!(AbsPath::parse(vec![b'/'; PATH_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn a_request_tells_whose_it_is() {
        let request = RequestId(77).of_agent(5).unwrap();
        assert_eq!(
            (request.agent(), request.within_agent()),
            (5, RequestId(77))
        );
        assert_eq!(RequestId(1 << 40).of_agent(5), None);
        assert_eq!(RequestId(1).of_agent(1 << 24), None);
    }

    #[test]
    fn lexical_paths_stay_below_the_root() {
        let base = AbsPath::parse("/home/u").unwrap();
        for (path, expect) in [
            ("a.c", "/home/u/a.c"),
            ("../x/./y", "/home/x/y"),
            ("../../../..", "/"),
            ("/q//r/", "/q/r"),
            (".", "/home/u"),
        ] {
            assert_eq!(
                AbsPath::lexical(&base, path.as_bytes())
                    .unwrap()
                    .to_string(),
                expect
            );
        }
    }

    #[test]
    fn parents_and_containment() {
        let path = AbsPath::parse("/a/b").unwrap();
        assert_eq!(path.parent().unwrap().to_string(), "/a");
        assert_eq!(path.parent().unwrap().parent().unwrap().to_string(), "/");
        assert_eq!(AbsPath::parse("/").unwrap().parent(), None);
        assert!(path.is_within(&AbsPath::parse("/a").unwrap()));
        assert!(path.is_within(&AbsPath::parse("/").unwrap()));
        assert!(
            !AbsPath::parse("/ab")
                .unwrap()
                .is_within(&AbsPath::parse("/a").unwrap())
        );
    }

    #[test]
    fn a_digest_reads_what_it_prints() {
        let digest = Digest([0xa5; 32]);
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(Digest::parse("a5"), None);
    }
}
