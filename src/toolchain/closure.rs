//! Which files a compiler needs to run somewhere else: its programs, their libraries, and every
//! symlink on the way to them.
//!
//! Sees the file system through [`Files`] and touches nothing. Paths stay as the compiler spells
//! them, so symlinks (`/lib -> usr/lib`, `/usr/bin/gcc -> gcc-12`) become entries of their own,
//! each in its canonical directory.
//!
//! Two things differ where the files will be used, and both are mended here by a symlink beside the
//! dynamic linker, where it always looks: there is no `/etc/ld.so.cache`, so it would not find
//! what only `/etc/ld.so.conf` leads to; and there is no `/proc`, so a program's own `$ORIGIN` has no
//! meaning. Variants for better processors (`glibc-hwcaps`) are left out: the worker's may be
//! another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use crate::id::{AbsPath, Bytes};

pub use super::manifest::name;

use super::elf::{Elf, Machine};
use super::manifest::ENTRIES_MAX;

/// The most symlinks that one path may lead through; Linux's own limit.
const SYMLINKS_MAX: usize = 40;

/// Where dynamic linkers look when nothing else is said.
const DEFAULT_DIRECTORIES: [&[u8]; 4] = [b"/lib64", b"/usr/lib64", b"/lib", b"/usr/lib"];

/// The file system, as far as the closure asks.
pub trait Files {
    /// What stands at `path`, whose parent is known to be a true directory.
    fn look(&mut self, path: &AbsPath) -> Look;

    /// What the regular file at `path` asks of the dynamic linker; none when it is no ELF file.
    fn elf(&mut self, path: &AbsPath) -> Option<Elf>;
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing, or nothing that can be looked at.
    Absent,
    /// A directory.
    Directory,
    /// A symlink with its target.
    Symlink(Bytes),
    /// A regular file.
    File,
    /// A device, a socket, a pipe.
    Other,
}

/// An entry of the closure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A regular file of this machine.
    File,
    /// A symlink, of this machine or made up, with its target.
    Symlink(Bytes),
    /// A directory that a path leads through and back out of (`/a/b/..`).
    Directory,
}

/// Why there is no closure.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClosureError {
    /// There is no such file.
    #[error("{0} is not there")]
    Absent(Bytes),
    /// The path leads in a circle, or is none.
    #[error("{0} can't be followed")]
    Unfollowable(Bytes),
    /// It is not a regular file.
    #[error("{0} is not a regular file")]
    NotFile(Bytes),
    /// It is a script, or a program of another kind.
    #[error("{0} is not an ELF program; a wrapper script can't be shipped")]
    NotProgram(Bytes),
    /// A library is nowhere to be found.
    #[error("the library {library}, needed by {needed_by}, is not there")]
    Library {
        /// Its name.
        library: Bytes,
        /// Who needs it.
        needed_by: AbsPath,
    },
    /// Two programs need different libraries of one name, in one place.
    #[error("two different libraries would have to stand at {0}")]
    Ambiguous(AbsPath),
    /// The closure has too many entries.
    #[error("more than {ENTRIES_MAX} files")]
    TooMany,
}

/// A growing set of files.
pub struct Closure<'f, F> {
    files: &'f mut F,
    configured: Vec<Bytes>,
    found: BTreeMap<AbsPath, Node>,
    aliases: BTreeMap<AbsPath, AbsPath>,
    linker_directory: Option<AbsPath>,
}

impl<'f, F: Files> Closure<'f, F> {
    /// An empty set. `configured`: the directories of `/etc/ld.so.conf`, in their order.
    pub fn new(files: &'f mut F, configured: Vec<Bytes>) -> Self {
        Self {
            files,
            configured,
            found: BTreeMap::new(),
            aliases: BTreeMap::new(),
            linker_directory: None,
        }
    }

    /// Adds a file as it is, and what leads to it. Returns its canonical path.
    pub fn file(&mut self, path: &[u8]) -> Result<AbsPath, ClosureError> {
        let reached = self.follow(path)?;
        match reached.look {
            Look::File => self.keep(reached),
            _ => Err(ClosureError::NotFile(path.into())),
        }
    }

    /// Adds a program or a plugin, what leads to it, its dynamic linker, and its libraries.
    /// Returns its canonical path.
    pub fn program(&mut self, path: &[u8]) -> Result<AbsPath, ClosureError> {
        let canonical = self.file(path)?;
        let elf = self.files.elf(&canonical);
        let elf = elf.ok_or_else(|| ClosureError::NotProgram(path.into()))?;
        self.libraries(Object {
            origin: canonical.parent(),
            path: canonical.clone(),
            elf: Rc::new(elf),
            loader: None,
        })?;
        Ok(canonical)
    }

    /// Where `path` leads, without adding it; none when it is not there.
    pub fn canonical(&mut self, path: &[u8]) -> Option<AbsPath> {
        self.follow(path).ok().map(|reached| reached.path)
    }

    /// The set, by path. Parents that are plain directories are not named.
    pub fn finish(mut self) -> Result<BTreeMap<AbsPath, Node>, ClosureError> {
        for (place, target) in std::mem::take(&mut self.aliases) {
            let is_taken = self.found.contains_key(&place);
            if is_taken && self.canonical(place.as_bytes()).as_ref() != Some(&target) {
                return Err(ClosureError::Ambiguous(place));
            }
            let link = Node::Symlink(target.as_bytes().into());
            self.found.entry(place).or_insert(link);
        }
        let implied: BTreeSet<AbsPath> = self
            .found
            .keys()
            .flat_map(|path| std::iter::successors(path.parent(), AbsPath::parent))
            .collect();
        self.found
            .retain(|path, node| *node != Node::Directory || !implied.contains(path));
        if self.found.len() > ENTRIES_MAX {
            return Err(ClosureError::TooMany);
        }
        Ok(self.found)
    }

    /// Breadth first and once a name, as the dynamic linker does.
    fn libraries(&mut self, program: Object) -> Result<(), ClosureError> {
        let mut loaded: BTreeSet<Bytes> = BTreeSet::new();
        if let Some(interpreter) = &program.elf.interpreter {
            let linker = self.file(interpreter)?;
            let name = interpreter.rsplit(|&byte| byte == b'/').next();
            loaded.extend(name.map(Bytes::from));
            loaded.insert(Bytes::from(linker.file_name()));
            self.linker_directory = linker.parent();
        }
        let mut queue = VecDeque::from([Rc::new(program)]);
        while let Some(object) = queue.pop_front() {
            for name in &object.elf.needed {
                if !loaded.insert(name.clone()) {
                    continue;
                }
                let library = self.library(name, &object)?;
                queue.push_back(Rc::new(library));
            }
        }
        Ok(())
    }

    fn library(&mut self, name: &Bytes, object: &Rc<Object>) -> Result<Object, ClosureError> {
        let machine = object.elf.machine;
        for place in self.places(name, object) {
            let Some((reached, elf)) = self.loadable(&place.path, machine) else {
                continue;
            };
            let origin = reached.spelled_directory.clone();
            let path = self.keep(reached)?;
            if !place.is_certain {
                self.alias(name, &path)?;
            }
            return Ok(Object {
                path,
                origin,
                elf: Rc::new(elf),
                loader: Some(object.clone()),
            });
        }
        Err(ClosureError::Library {
            library: name.clone(),
            needed_by: object.path.clone(),
        })
    }

    /// Where `name` may lie, in the dynamic linker's order.
    fn places(&self, name: &Bytes, object: &Object) -> Vec<Place> {
        if name.contains(&b'/') {
            return vec![Place {
                path: name.0.clone(),
                is_certain: true,
            }];
        }
        let mut places = object.searched();
        let directories = self.configured.iter().map(|directory| &directory[..]);
        let linker = self.linker_directory.iter().map(AbsPath::as_bytes);
        let uncertain = directories.map(|directory| (directory, false));
        let certain = linker.map(|directory| (directory, true));
        let defaults = DEFAULT_DIRECTORIES
            .iter()
            .map(|&directory| (directory, false));
        for (directory, is_certain) in uncertain.chain(certain).chain(defaults) {
            places.push(Place {
                path: directory.to_vec(),
                is_certain,
            });
        }
        for place in &mut places {
            place.path.push(b'/');
            place.path.extend_from_slice(name);
        }
        places
    }

    /// A library of another machine is passed over, not an error.
    fn loadable(&mut self, path: &[u8], machine: Machine) -> Option<(Reached, Elf)> {
        let reached = self.follow(path).ok()?;
        if reached.look != Look::File {
            return None;
        }
        let elf = self.files.elf(&reached.path)?;
        (elf.machine == machine).then_some((reached, elf))
    }

    /// Makes sure that the dynamic linker finds `library` as `name` in its own directory.
    fn alias(&mut self, name: &Bytes, library: &AbsPath) -> Result<(), ClosureError> {
        let Some(directory) = &self.linker_directory else {
            return Ok(());
        };
        let Ok(place) = directory.join(name) else {
            return Err(ClosureError::Unfollowable(name.clone()));
        };
        if place == *library {
            return Ok(());
        }
        if self.canonical(place.as_bytes()).as_ref() == Some(library) {
            // It is there already, as a symlink of this machine.
            return self.file(place.as_bytes()).map(drop);
        }
        match self.aliases.insert(place.clone(), library.clone()) {
            Some(other) if other != *library => Err(ClosureError::Ambiguous(place)),
            _ => Ok(()),
        }
    }

    fn keep(&mut self, reached: Reached) -> Result<AbsPath, ClosureError> {
        self.found.extend(reached.trail);
        let node = match reached.look {
            Look::File => Node::File,
            _ => Node::Directory,
        };
        self.found.insert(reached.path.clone(), node);
        if self.found.len() > ENTRIES_MAX {
            return Err(ClosureError::TooMany);
        }
        Ok(reached.path)
    }

    /// Follows `path` as the kernel would, component by component.
    fn follow(&mut self, path: &[u8]) -> Result<Reached, ClosureError> {
        let absent = || ClosureError::Absent(path.into());
        let unfollowable = || ClosureError::Unfollowable(path.into());
        if path.first() != Some(&b'/') {
            return Err(unfollowable());
        }
        let mut reached = Reached {
            path: root(),
            look: Look::Directory,
            trail: Vec::new(),
            spelled_directory: spelled_directory(path),
        };
        let mut symlinks = 0;
        let mut rest: Vec<Vec<u8>> = components(path);
        while let Some(part) = rest.pop() {
            if reached.look != Look::Directory {
                return Err(absent());
            }
            if part == b".." {
                let parent = reached.path.parent().unwrap_or_else(root);
                let through = std::mem::replace(&mut reached.path, parent);
                if through.parent().is_some() {
                    reached.trail.push((through, Node::Directory));
                }
                continue;
            }
            let next = reached.path.join(&part).map_err(|_| unfollowable())?;
            match self.files.look(&next) {
                Look::Absent => return Err(absent()),
                Look::Symlink(target) => {
                    symlinks += 1;
                    if symlinks > SYMLINKS_MAX {
                        return Err(unfollowable());
                    }
                    if target.first() == Some(&b'/') {
                        reached.path = root();
                    }
                    rest.extend(components(&target));
                    reached.trail.push((next, Node::Symlink(target)));
                }
                look => {
                    reached.path = next;
                    reached.look = look;
                }
            }
        }
        Ok(reached)
    }
}

/// The end of a path that was followed.
struct Reached {
    path: AbsPath,
    look: Look,
    trail: Vec<(AbsPath, Node)>,
    /// The directory as the path spells it: a library's `$ORIGIN`.
    spelled_directory: Option<AbsPath>,
}

/// Something that is loaded into a process, and who asked for it.
struct Object {
    path: AbsPath,
    origin: Option<AbsPath>,
    elf: Rc<Elf>,
    loader: Option<Rc<Self>>,
}

impl Object {
    /// The directories that it names itself, then those that its loaders name for it.
    fn searched(&self) -> Vec<Place> {
        if !self.elf.runpath.is_empty() {
            return self.replaced(&self.elf.runpath);
        }
        std::iter::successors(Some(self), |object| object.loader.as_deref())
            .filter(|object| object.elf.runpath.is_empty())
            .flat_map(|object| object.replaced(&object.elf.rpath))
            .collect()
    }

    fn replaced(&self, directories: &[Bytes]) -> Vec<Place> {
        let mut places = Vec::new();
        for directory in directories {
            let rest = [&b"$ORIGIN"[..], b"${ORIGIN}"]
                .iter()
                .find_map(|token| directory.strip_prefix(*token));
            let path = match (rest, &self.origin) {
                (Some(rest), Some(origin)) => [origin.as_bytes(), rest].concat(),
                (Some(_), None) => continue,
                (None, _) => directory.0.clone(),
            };
            // A relative directory depends on who runs it where; other tokens are not in use.
            if path.first() == Some(&b'/') && !path.contains(&b'$') {
                places.push(Place {
                    path,
                    is_certain: rest.is_none() || self.loader.is_some(),
                });
            }
        }
        places
    }
}

/// Where a library may lie.
struct Place {
    path: Vec<u8>,
    /// Whether the worker's dynamic linker looks there too.
    is_certain: bool,
}

fn root() -> AbsPath {
    AbsPath::parse("/").expect("the root is a path")
}

/// The components of `path` without empty ones and `.`, the first one last.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|&byte| byte == b'/');
    let parts = parts.filter(|part| !matches!(*part, b"" | b"."));
    parts.rev().map(<[u8]>::to_vec).collect()
}

fn spelled_directory(path: &[u8]) -> Option<AbsPath> {
    // The dynamic linker leaves `..` in; the kernel resolves them. Textual removal agrees as long
    // as what stands before a `..` is no symlink, and where it isn't the library is not found,
    // loudly.
    AbsPath::lexical(&root(), path).ok()?.parent()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system in a table.
    #[derive(Default)]
    struct Table(BTreeMap<AbsPath, (Look, Option<Elf>)>);

    impl Table {
        fn put(&mut self, path: &str, look: Look, elf: Option<Elf>) {
            let path = AbsPath::parse(path).unwrap();
            for parent in std::iter::successors(path.parent(), AbsPath::parent) {
                self.0.entry(parent).or_insert((Look::Directory, None));
            }
            self.0.insert(path, (look, elf));
        }

        fn link(mut self, path: &str, target: &str) -> Self {
            self.put(path, Look::Symlink(Bytes::from(target)), None);
            self
        }

        fn file(mut self, path: &str) -> Self {
            self.put(path, Look::File, None);
            self
        }

        fn directory(mut self, path: &str) -> Self {
            self.put(path, Look::Directory, None);
            self
        }

        fn elf(mut self, path: &str, elf: Elf) -> Self {
            self.put(path, Look::File, Some(elf));
            self
        }
    }

    impl Files for Table {
        fn look(&mut self, path: &AbsPath) -> Look {
            let found = self.0.get(path);
            found.map_or(Look::Absent, |(look, _)| look.clone())
        }

        fn elf(&mut self, path: &AbsPath) -> Option<Elf> {
            self.0.get(path)?.1.clone()
        }
    }

    fn needs(names: &[&str]) -> Elf {
        Elf {
            needed: names.iter().map(|name| Bytes::from(*name)).collect(),
            ..Elf::default()
        }
    }

    fn program(names: &[&str]) -> Elf {
        Elf {
            interpreter: Some(Bytes::from("/lib64/ld.so")),
            ..needs(names)
        }
    }

    /// A machine with `/lib64` merged into `/usr/lib64`, where the dynamic linker is.
    fn merged() -> Table {
        Table::default()
            .link("/lib64", "usr/lib64")
            .elf("/usr/lib64/ld.so", needs(&[]))
            .elf("/usr/lib64/libc.so", needs(&["ld.so"]))
    }

    fn shown(found: BTreeMap<AbsPath, Node>) -> Vec<String> {
        let show = |(path, node): (AbsPath, Node)| match node {
            Node::File => path.to_string(),
            Node::Symlink(target) => format!("{path} -> {target}"),
            Node::Directory => format!("{path}/"),
        };
        found.into_iter().map(show).collect()
    }

    fn closure(
        mut table: Table,
        configured: &[&str],
        programs: &[&str],
    ) -> Result<Vec<String>, ClosureError> {
        let configured = configured.iter().map(|d| Bytes::from(*d)).collect();
        let mut closure = Closure::new(&mut table, configured);
        for program in programs {
            closure.program(program.as_bytes())?;
        }
        closure.finish().map(shown)
    }

    #[test]
    fn symlinks_stand_in_canonical_directories() {
        let table = merged()
            .link("/usr/bin/cc", "/etc/alternatives/cc")
            .link("/etc/alternatives/cc", "/usr/bin/gcc")
            .link("/usr/bin/gcc", "./gcc-12")
            .elf("/usr/bin/gcc-12", program(&["libc.so"]));
        assert_eq!(
            closure(table, &[], &["/usr/bin/cc"]).unwrap(),
            [
                "/etc/alternatives/cc -> /usr/bin/gcc",
                "/lib64 -> usr/lib64",
                "/usr/bin/cc -> /etc/alternatives/cc",
                "/usr/bin/gcc -> ./gcc-12",
                "/usr/bin/gcc-12",
                "/usr/lib64/ld.so",
                "/usr/lib64/libc.so",
            ]
        );
    }

    #[test]
    fn a_directory_that_a_path_only_passes_through_is_kept() {
        let table = Table::default()
            .directory("/usr/lib/gcc/12")
            .directory("/usr/lib/other")
            .file("/usr/bin/as");
        let mut table = table;
        let mut closure = Closure::new(&mut table, Vec::new());
        closure.file(b"/usr/lib/gcc/12/../../../bin/as").unwrap();
        assert_eq!(
            shown(closure.finish().unwrap()),
            ["/usr/bin/as", "/usr/lib/gcc/12/"]
        );
    }

    #[test]
    fn libraries_are_searched_as_the_dynamic_linker_does() {
        let with = |rpath: &[&str], runpath: &[&str]| Elf {
            rpath: rpath.iter().map(|d| Bytes::from(*d)).collect(),
            runpath: runpath.iter().map(|d| Bytes::from(*d)).collect(),
            ..program(&["libx.so"])
        };
        let table = |elf: Elf| {
            merged()
                .elf("/opt/bin/p", elf)
                .elf("/opt/one/libx.so", needs(&["liby.so"]))
                .elf("/opt/one/liby.so", needs(&[]))
                .elf("/opt/two/libx.so", needs(&["liby.so"]))
                .elf("/usr/lib64/libx.so", needs(&["liby.so"]))
                .elf("/usr/lib64/liby.so", needs(&[]))
                .elf("/conf/libx.so", needs(&[]))
        };
        for (rpath, runpath, configured, expect) in [
            (
                &[][..],
                &[][..],
                &[][..],
                &["/usr/lib64/libx.so", "/usr/lib64/liby.so"][..],
            ),
            (
                &["/opt/one"],
                &[],
                &[],
                &["/opt/one/libx.so", "/opt/one/liby.so"],
            ),
            // A RUNPATH doesn't count for what the library needs itself, and takes the RPATH's place.
            (
                &["/opt/two"],
                &["/opt/one"],
                &[],
                &["/opt/one/libx.so", "/usr/lib64/liby.so"],
            ),
            (
                &["one", "/absent", "$LIB/x"],
                &[],
                &[],
                &["/usr/lib64/libx.so", "/usr/lib64/liby.so"],
            ),
            // No cache on the worker, hence a symlink; it takes the place of a file that is not needed.
            (
                &[],
                &[],
                &["/conf"],
                &["/conf/libx.so", "/usr/lib64/libx.so -> /conf/libx.so"],
            ),
            // Nor an $ORIGIN.
            (
                &[],
                &["${ORIGIN}/../one"],
                &[],
                &[
                    "/opt/bin/",
                    "/opt/one/libx.so",
                    "/usr/lib64/libx.so -> /opt/one/libx.so",
                    "/usr/lib64/liby.so",
                ],
            ),
        ] {
            let found = closure(table(with(rpath, runpath)), configured, &["/opt/bin/p"]).unwrap();
            let found: Vec<_> = found
                .iter()
                .filter(|line| {
                    line.contains("/lib") && !line.ends_with("lib64") && !line.ends_with("ld.so")
                })
                .collect();
            let expect: Vec<_> = expect.iter().filter(|line| line.contains("/lib")).collect();
            assert_eq!(found, expect, "{rpath:?} {runpath:?} {configured:?}");
        }
    }

    #[test]
    fn a_librarys_own_origin_holds_on_the_worker() {
        let library = Elf {
            runpath: vec![Bytes::from("$ORIGIN/private")],
            ..needs(&["liby.so"])
        };
        let table = merged()
            .elf("/bin/p", program(&["libx.so"]))
            .elf("/usr/lib64/libx.so", library)
            .elf("/usr/lib64/private/liby.so", needs(&[]));
        let found = closure(table, &[], &["/bin/p"]).unwrap();
        assert!(
            found.contains(&"/usr/lib64/private/liby.so".to_owned()),
            "{found:?}"
        );
        assert!(
            !found.iter().any(|line| line.contains("liby.so ->")),
            "{found:?}"
        );
    }

    #[test]
    fn a_library_of_another_machine_is_passed_over() {
        let narrow = Elf {
            machine: Machine {
                number: 3,
                ..Machine::default()
            },
            ..needs(&[])
        };
        let table = merged()
            .elf("/bin/p", program(&["libx.so"]))
            .elf("/conf/libx.so", narrow)
            .elf("/usr/lib64/libx.so", needs(&[]));
        let found = closure(table, &["/conf"], &["/bin/p"]).unwrap();
        assert!(!found.contains(&"/conf/libx.so".to_owned()), "{found:?}");
    }

    #[test]
    fn what_has_no_closure_says_why() {
        use ClosureError::*;
        let path = |text: &str| AbsPath::parse(text).unwrap();
        let own = |directory: &str| Elf {
            runpath: vec![Bytes::from(directory)],
            ..program(&["libx.so"])
        };
        let table = || {
            merged()
                .file("/bin/script")
                .link("/bin/loop", "loop")
                .link("/bin/dangling", "/nowhere")
                .elf("/bin/lost", program(&["libno.so"]))
                .elf("/one/bin/p", own("$ORIGIN"))
                .elf("/one/bin/libx.so", needs(&[]))
                .elf("/two/bin/p", own("$ORIGIN"))
                .elf("/two/bin/libx.so", needs(&[]))
        };
        for (programs, expect) in [
            (&["/bin/script"][..], NotProgram("/bin/script".into())),
            (&["/bin/loop"], Unfollowable("/bin/loop".into())),
            (&["bin/relative"], Unfollowable("bin/relative".into())),
            (&["/bin/dangling"], Absent("/bin/dangling".into())),
            (&["/bin/script/x"], Absent("/bin/script/x".into())),
            (&["/bin"], NotFile("/bin".into())),
            (
                &["/bin/lost"],
                Library {
                    library: "libno.so".into(),
                    needed_by: path("/bin/lost"),
                },
            ),
            (
                &["/one/bin/p", "/two/bin/p"],
                Ambiguous(path("/usr/lib64/libx.so")),
            ),
        ] {
            assert_eq!(closure(table(), &[], programs), Err(expect));
        }
    }
}
