//! Which of the user's variables travel with a job. Pure.
//!
//! The compiler's driver and its parts read these; nothing else of a user's environment leaves his
//! machine. Variables that name files or programs (`GCC_EXEC_PREFIX`, `COMPILER_PATH`, …) do not
//! travel either: with them set, the classifier keeps the job local. The list follows gcc's manual
//! ("Environment Variables Affecting GCC"), its sources' `getenv` calls, and clang's.

use crate::id::Bytes;

const TRAVELS: &[&[u8]] = &[
    // The working directory as the user spells it ends up in the debug information.
    b"PWD",
    // Search paths: they are part of what the scanner asks the compiler.
    b"CPATH",
    b"C_INCLUDE_PATH",
    b"CPLUS_INCLUDE_PATH",
    b"OBJC_INCLUDE_PATH",
    b"OBJCPLUS_INCLUDE_PATH",
    // Time.
    b"SOURCE_DATE_EPOCH",
    b"TZ",
    // The look of diagnostics.
    b"GCC_COLORS",
    b"GCC_URLS",
    b"TERM_URLS",
    b"TERM",
    b"COLUMNS",
    b"COLORTERM",
    b"TERM_PROGRAM",
    b"VTE_VERSION",
    b"NO_COLOR",
    b"GCC_EXTRA_DIAGNOSTIC_OUTPUT",
    // How options are told from files, by the assembler.
    b"POSIXLY_CORRECT",
    // What distributions' compilers ask.
    b"DEB_BUILD_OPTIONS",
    b"DEB_BUILD_MAINT_OPTIONS",
    b"FORCE_CLANG_DIAGNOSTICS_CRASH",
];

/// Language and character set of messages; `LC_*` belongs to them.
const LANGUAGE: &[&[u8]] = &[b"LANG", b"LANGUAGE"];

/// The job's whole environment. With `language`, a value for `LC_ALL` takes the place of everything
/// that the user's variables say of languages. `columns` is the width of his terminal, which counts
/// where no variable says it.
pub fn travelling(
    env: &[(Bytes, Bytes)],
    language: Option<&str>,
    columns: Option<u16>,
) -> Vec<(Bytes, Bytes)> {
    // What the driver execs it finds by its own prefix; a search path that says nothing of the
    // submitter is enough for the rest.
    let mut job = vec![(Bytes::from("PATH"), Bytes::from("/usr/bin:/bin"))];
    job.extend(language.map(|value| (Bytes::from("LC_ALL"), Bytes::from(value))));
    for (name, value) in env {
        let is_language = LANGUAGE.contains(&&name[..]) || name.starts_with(b"LC_");
        if TRAVELS.contains(&&name[..]) || (is_language && language.is_none()) {
            job.push((name.clone(), value.clone()));
        }
    }
    let is_columns = |(name, _): &(Bytes, Bytes)| &name[..] == b"COLUMNS";
    if let Some(columns) = columns.filter(|columns| *columns > 0 && !env.iter().any(is_columns)) {
        job.push((
            Bytes::from("COLUMNS"),
            Bytes::from(&columns.to_string()[..]),
        ));
    }
    job
}

/// A directory of `LD_LIBRARY_PATH` in which a library of the compiler's would be found before its own,
/// and that library. `libraries`: the names of the toolchain's; `exists` asks whether a path, relative
/// ones to the working directory, is there.
pub fn overridden<'a>(
    env: &[(Bytes, Bytes)],
    libraries: impl Iterator<Item = &'a [u8]> + Clone,
    exists: &dyn Fn(&[u8]) -> bool,
) -> Option<Bytes> {
    let (_, value) = env
        .iter()
        .find(|(name, value)| &name[..] == b"LD_LIBRARY_PATH" && !value.is_empty())?;
    value
        .split(|&b| matches!(b, b':' | b';'))
        .find_map(|place| {
            let place: &[u8] = if place.is_empty() { b"." } else { place };
            let mut paths = libraries.clone().map(|name| [place, b"/", name].concat());
            paths.find(|path| exists(path)).map(Bytes)
        })
}

/// A library of `LD_PRELOAD` that the dynamic linker may not find. `exists` as for [`overridden`].
pub fn not_loaded(env: &[(Bytes, Bytes)], exists: &dyn Fn(&[u8]) -> bool) -> Option<Bytes> {
    const DEFAULTS: [&[u8]; 4] = [b"/lib", b"/usr/lib", b"/lib64", b"/usr/lib64"];
    let value = |wanted: &[u8]| {
        let found = env.iter().find(|(name, _)| &name[..] == wanted);
        found.map(|(_, value)| &value[..]).unwrap_or_default()
    };
    let places = value(b"LD_LIBRARY_PATH").split(|&b| matches!(b, b':' | b';'));
    let places: Vec<&[u8]> = places.filter(|place| !place.is_empty()).collect();
    let is_there = |library: &[u8]| {
        let mut places = places.iter().chain(&DEFAULTS);
        match library.contains(&b'/') {
            true => exists(library),
            false => places.any(|place| exists(&[*place, b"/", library].concat())),
        }
    };
    value(b"LD_PRELOAD")
        .split(|&b| matches!(b, b':' | b' '))
        .find(|library| !library.is_empty() && !is_there(library))
        .map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_before_the_compilers_own_is_found() {
        let there = |path: &[u8]| matches!(path, b"/b/libm.so.6" | b"./libz.so.1");
        for (value, expect) in [
            ("", None),
            ("/a", None),
            ("/a:/b", Some("/b/libm.so.6")),
            ("/a:", Some("./libz.so.1")),
        ] {
            let env = [(Bytes::from("LD_LIBRARY_PATH"), Bytes::from(value))];
            let libraries = [&b"libz.so.1"[..], b"libm.so.6"];
            let found = overridden(&env, libraries.into_iter(), &there);
            assert_eq!(found, expect.map(Bytes::from), "{value}");
        }
    }

    #[test]
    fn a_library_that_is_not_there_is_complained_of() {
        let there = |path: &[u8]| matches!(path, b"/f/libfakeroot.so" | b"/usr/lib/a.so");
        for (preload, places, expect) in [
            ("", "", None),
            ("a.so", "", None),
            ("/f/libfakeroot.so a.so", "", None),
            ("libfakeroot.so", "/f:/g", None),
            ("libfakeroot.so", "/g", Some("libfakeroot.so")),
            ("a.so:/g/b.so", "", Some("/g/b.so")),
        ] {
            let env = [("LD_PRELOAD", preload), ("LD_LIBRARY_PATH", places)]
                .map(|(name, value)| (Bytes::from(name), Bytes::from(value)));
            let found = not_loaded(&env, &there);
            assert_eq!(found, expect.map(Bytes::from), "{preload} {places}");
        }
    }

    #[test]
    fn secrets_stay_at_home() {
        let env = [
            ("LC_ALL", "C"),
            ("AWS_SECRET", "x"),
            ("PATH", "/home/u/bin"),
            ("CPATH", "/inc"),
        ]
        .map(|(name, value)| (Bytes::from(name), Bytes::from(value)));
        let job = travelling(&env, None, None);
        let names: Vec<String> = job.iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["PATH", "LC_ALL", "CPATH"]);
        assert_eq!(job[0].1, Bytes::from("/usr/bin:/bin"));
        let job = travelling(&env, Some("C.UTF-8"), Some(80));
        let languages: Vec<_> = job
            .iter()
            .filter(|(name, _)| name.starts_with(b"L"))
            .collect();
        assert_eq!(
            languages,
            [&(Bytes::from("LC_ALL"), Bytes::from("C.UTF-8"))]
        );
    }
}
