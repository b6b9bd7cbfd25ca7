//! Complete builds of real projects with their own build systems, and the table of what ran where.
//!
//! What makes a project large is that its two builds take more than some seconds; a large one is
//! built when `ICE_COMPANY` is `all`, or its name, or names it among others with commas between.

use std::io::Write;
use std::path::Path;

use crate::build::{Build, Outcome};
use crate::have;
use crate::support::package;
use crate::world::{World, copy_tree};

/// A project.
struct Project {
    name: &'static str,
    /// Its build system, for the table.
    system: &'static str,
    /// Programs, and other files by their absolute paths, without which it can't be built.
    needs: &'static [&'static str],
    source: Source,
    /// Builds what is in `src`.
    script: &'static str,
    compiles_min: usize,
    is_large: bool,
}

/// Where the sources are.
enum Source {
    /// A directory in a package of `tests/projects`.
    In(&'static str, &'static str),
    /// A directory of this machine, as a distribution's package puts it there.
    Installed(&'static str),
}

const KERNEL: &str = "/usr/src/linux-headers-6.1.0-56-amd64";
const LTTNG: &str = "/usr/src/lttng-modules-2.13.9";

const PROJECTS: &[Project] = &[
    Project {
        name: "bzip2",
        system: "make",
        needs: &["make"],
        source: Source::In("bzip2-sys", "bzip2-1.0.8"),
        script: "cd src; make -j8 CC=\"$ICE gcc\" bzip2 bzip2recover
            make clean; make -f Makefile-libbz2_so CC=\"$ICE gcc\"",
        compiles_min: 16,
        is_large: false,
    },
    Project {
        name: "bzip2-mingw",
        system: "make, for Windows",
        needs: &["make", "x86_64-w64-mingw32-gcc"],
        source: Source::In("bzip2-sys", "bzip2-1.0.8"),
        script: "cd src; make -j8 CC=\"$ICE x86_64-w64-mingw32-gcc\" AR=x86_64-w64-mingw32-ar \
            RANLIB=x86_64-w64-mingw32-ranlib CFLAGS='-O2 -g -Wall' libbz2.a bzip2.o",
        compiles_min: 8,
        is_large: false,
    },
    Project {
        name: "snappy",
        system: "CMake, Ninja",
        needs: &["cmake", "ninja"],
        source: Source::In("leveldb-sys", "deps/snappy-1.1.7"),
        script: "cmake -S src -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DSNAPPY_BUILD_TESTS=OFF \
            -DCMAKE_C_COMPILER_LAUNCHER=$ICE -DCMAKE_CXX_COMPILER_LAUNCHER=$ICE
            ninja -C build -j8",
        compiles_min: 4,
        is_large: false,
    },
    Project {
        name: "zlib-ng",
        system: "CMake, make",
        needs: &["cmake"],
        source: Source::In("libz-sys", "src/zlib-ng"),
        script: "cmake -S src -B build -DCMAKE_C_COMPILER_LAUNCHER=$ICE -DBUILD_TESTING=OFF \
            -DBUILD_SHARED_LIBS=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo
            make -C build -j8",
        compiles_min: 45,
        is_large: true,
    },
    Project {
        name: "zlib-ng-arm",
        system: "CMake, make, for arm",
        needs: &["cmake", "arm-linux-gnueabihf-gcc"],
        source: Source::In("libz-sys", "src/zlib-ng"),
        script: "cmake -S src -B build -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=arm \
            -DCMAKE_C_COMPILER=arm-linux-gnueabihf-gcc -DCMAKE_C_COMPILER_LAUNCHER=$ICE \
            -DBUILD_TESTING=OFF -DBUILD_SHARED_LIBS=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo
            make -C build -j8",
        compiles_min: 30,
        is_large: true,
    },
    Project {
        name: "leveldb",
        system: "CMake, Ninja; C++",
        needs: &["cmake", "ninja"],
        source: Source::In("leveldb-sys", "deps/leveldb-1.22"),
        script: "cmake -S src -B build -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DLEVELDB_BUILD_TESTS=OFF \
            -DLEVELDB_BUILD_BENCHMARKS=OFF -DCMAKE_CXX_COMPILER_LAUNCHER=$ICE -DCMAKE_C_COMPILER_LAUNCHER=$ICE
            ninja -C build -j8",
        compiles_min: 35,
        is_large: true,
    },
    Project {
        name: "jemalloc",
        system: "autoconf",
        needs: &["make"],
        source: Source::In("tikv-jemalloc-sys", ""),
        script: "cp src/configure/configure src/jemalloc/configure; touch src/jemalloc/configure; cd src/jemalloc
            echo 5.3.0-0-g0 >VERSION
            ./configure --disable-cxx CC=\"$ICE gcc\"
            make -j8 build_lib",
        compiles_min: 60,
        is_large: true,
    },
    Project {
        name: "jemalloc-arm",
        system: "autoconf, for arm",
        needs: &["make", "arm-linux-gnueabihf-gcc"],
        source: Source::In("tikv-jemalloc-sys", ""),
        script: "cp src/configure/configure src/jemalloc/configure; touch src/jemalloc/configure; cd src/jemalloc
            echo 5.3.0-0-g0 >VERSION
            ./configure --host=arm-linux-gnueabihf --disable-cxx CC=\"$ICE arm-linux-gnueabihf-gcc\"
            make -j8 build_lib",
        compiles_min: 60,
        is_large: true,
    },
    Project {
        name: "lttng-modules",
        system: "Linux's kbuild",
        needs: &["make", "gcc-12", KERNEL, LTTNG],
        source: Source::Installed(LTTNG),
        // Later kernels of the series have changed what one of the modules watches.
        script: "cd src; sed -i /lttng-probe-timer/d src/probes/Kbuild
            make -j8 KERNELDIR=/usr/src/linux-headers-6.1.0-56-amd64 CC=\"$ICE gcc-12\"",
        compiles_min: 140,
        is_large: true,
    },
];

#[test]
fn real_projects_come_out_the_same_of_their_own_build_systems() {
    let wanted = std::env::var("ICE_COMPANY").unwrap_or_default();
    let is_wanted = |project: &&Project| match &wanted[..] {
        "" => !project.is_large,
        "all" => true,
        names => names.split(',').any(|name| name == project.name),
    };
    let mut table = format!(
        "| {:<14} | {:<26} | {:>8} | {:>6} | {:>6} | {:>15} |\n",
        "project", "build system", "compiles", "remote", "share", "files identical"
    );
    let projects: Vec<_> = PROJECTS.iter().filter(is_wanted).collect();
    assert!(!projects.is_empty(), "no project is called {wanted}");
    for project in projects {
        if have(project.needs) {
            table += &line(project, &check(project));
        }
    }
    let _ = std::io::stderr().write_all(table.as_bytes());
}

/// A line of the table. That all files are the same was asserted.
fn line(project: &Project, outcome: &Outcome) -> String {
    let (remote, compiles) = (outcome.remote, outcome.compiles);
    let share = remote as f64 * 100.0 / compiles as f64;
    format!(
        "| {:<14} | {:<26} | {compiles:>8} | {remote:>6} | {share:>4.1} % | {:>15} |\n",
        project.name, project.system, outcome.files
    )
}

fn check(project: &Project) -> Outcome {
    let prepare = |directory: &Path| project.source.copy(&directory.join("src"));
    let build = Build {
        name: project.name,
        prepare: &prepare,
        script: project.script,
        with: &[],
        compiles_min: project.compiles_min,
    };
    build.check(&World::start())
}

impl Source {
    fn copy(&self, to: &Path) {
        match self {
            Self::In(name, place) => copy_tree(&package(name).join(place), to),
            Self::Installed(place) => copy_tree(Path::new(place), to),
        }
    }
}
