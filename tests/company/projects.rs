//! Complete builds of real projects with their own build systems.

use std::path::Path;

use crate::build::Build;
use crate::have;
use crate::support::package;
use crate::world::{World, copy_tree};

/// A project within a package.
struct Project {
    name: &'static str,
    tools: &'static [&'static str],
    package: &'static str,
    /// Where in the package.
    place: &'static str,
    script: &'static str,
    compiles_min: usize,
    /// Whether it is only built when `ICE_COMPANY` is `all`, or its own name.
    is_large: bool,
}

const PROJECTS: &[Project] = &[
    Project {
        name: "bzip2",
        tools: &["make"],
        package: "bzip2-sys",
        place: "bzip2-1.0.8",
        script: "cd src; make -j8 CC=\"$ICE gcc\" bzip2 bzip2recover
            make clean; make -f Makefile-libbz2_so CC=\"$ICE gcc\"",
        compiles_min: 16,
        is_large: false,
    },
    Project {
        name: "bzip2-mingw",
        tools: &["make", "x86_64-w64-mingw32-gcc"],
        package: "bzip2-sys",
        place: "bzip2-1.0.8",
        script: "cd src; make -j8 CC=\"$ICE x86_64-w64-mingw32-gcc\" AR=x86_64-w64-mingw32-ar \
            RANLIB=x86_64-w64-mingw32-ranlib CFLAGS='-O2 -g -Wall' libbz2.a bzip2.o",
        compiles_min: 8,
        is_large: false,
    },
    Project {
        name: "snappy",
        tools: &["cmake", "ninja"],
        package: "leveldb-sys",
        place: "deps/snappy-1.1.7",
        script: "cmake -S src -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DSNAPPY_BUILD_TESTS=OFF \
            -DCMAKE_C_COMPILER_LAUNCHER=$ICE -DCMAKE_CXX_COMPILER_LAUNCHER=$ICE
            ninja -C build -j8",
        compiles_min: 4,
        is_large: false,
    },
    Project {
        name: "zlib-ng",
        tools: &["cmake"],
        package: "libz-sys",
        place: "src/zlib-ng",
        script: "cmake -S src -B build -DCMAKE_C_COMPILER_LAUNCHER=$ICE -DZLIB_ENABLE_TESTS=OFF \
            -DZLIBNG_ENABLE_TESTS=OFF -DWITH_GTEST=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo
            make -C build -j8",
        compiles_min: 100,
        is_large: true,
    },
    Project {
        name: "zlib-ng-arm",
        tools: &["cmake", "arm-linux-gnueabihf-gcc"],
        package: "libz-sys",
        place: "src/zlib-ng",
        script: "cmake -S src -B build -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=arm \
            -DCMAKE_C_COMPILER=arm-linux-gnueabihf-gcc -DCMAKE_C_COMPILER_LAUNCHER=$ICE \
            -DZLIB_ENABLE_TESTS=OFF -DZLIBNG_ENABLE_TESTS=OFF -DWITH_GTEST=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo
            make -C build -j8",
        compiles_min: 40,
        is_large: true,
    },
    Project {
        name: "jemalloc",
        tools: &["make"],
        package: "tikv-jemalloc-sys",
        place: "",
        script: "cp src/configure/configure src/jemalloc/configure; touch src/jemalloc/configure; cd src/jemalloc
            echo 5.3.0-0-g0 >VERSION
            ./configure --disable-cxx CC=\"$ICE gcc\"
            make -j8 build_lib",
        compiles_min: 60,
        is_large: true,
    },
    Project {
        name: "leveldb",
        tools: &["cmake", "ninja"],
        package: "leveldb-sys",
        place: "deps/leveldb-1.22",
        script: "cmake -S src -B build -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DLEVELDB_BUILD_TESTS=OFF \
            -DLEVELDB_BUILD_BENCHMARKS=OFF -DCMAKE_CXX_COMPILER_LAUNCHER=$ICE -DCMAKE_C_COMPILER_LAUNCHER=$ICE
            ninja -C build -j8",
        compiles_min: 35,
        is_large: true,
    },
];

#[test]
fn real_projects_come_out_the_same_of_their_own_build_systems() {
    let wanted = std::env::var("ICE_COMPANY").unwrap_or_default();
    for project in PROJECTS {
        let is_wanted = match &wanted[..] {
            "" => !project.is_large,
            "all" => true,
            name => name == project.name,
        };
        if is_wanted && have(project.tools) {
            check(project);
        }
    }
}

fn check(project: &Project) {
    let root = package(project.package).join(project.place);
    let copy = |directory: &Path| copy_tree(&root, &directory.join("src"));
    let build = Build {
        name: project.name,
        prepare: &copy,
        script: project.script,
        with: &[],
        compiles_min: project.compiles_min,
    };
    build.check(&World::start());
}
