//! The kernel's style: long command lines, `-Wp,-MMD`, `-include`, `-nostdinc`, many small files.

use std::fmt::Write as _;
use std::path::Path;

use crate::build::{Build, write};
use crate::have;
use crate::world::World;

const FILES: usize = 120;

fn tree(directory: &Path) {
    write(
        directory,
        &[
            (
                "include/linux/kconfig.h",
                "#ifndef KCONFIG\n#define KCONFIG\n#include <generated/autoconf.h>\n#endif\n",
            ),
            (
                "include/linux/compiler_types.h",
                "#define __user\n#define noinline __attribute__((__noinline__))\n",
            ),
            (
                "include/generated/autoconf.h",
                "#define CONFIG_SMP 1\n#define CONFIG_NAME \"tree\"\n",
            ),
            (
                "include/uapi/linux/types.h",
                "typedef unsigned int u32;\ntypedef unsigned long long u64;\n",
            ),
            (
                "include/linux/list.h",
                "#include <linux/types.h>\nstruct list_head { struct list_head *next, *prev; };\n\
                 static inline void init(struct list_head *l) { l->next = l->prev = l; }\n",
            ),
            (
                "include/linux/module.h",
                "#define EXPORT_SYMBOL(s) extern typeof(s) s; static const void *const __k_##s __attribute__((__section__(\"___ksymtab+\" #s), __used__)) = &s\n",
            ),
            (
                "arch/x86/include/asm/bits.h",
                "#include <stdarg.h>\n#include <stddef.h>\n#define BITS 64\n",
            ),
            (
                "arch/x86/entry.S",
                "#include <linux/kconfig.h>\n#include <asm/bits.h2>\n\t.text\n\t.globl entry\nentry:\n\tmov $BITS, %eax\n\tret\n",
            ),
            ("arch/x86/include/asm/bits.h2", "#define BITS 64\n"),
        ],
    );
    let mut objects = String::new();
    for index in 0..FILES {
        let path = format!("drivers/d{}/f{index}.c", index % 10);
        let text = format!(
            "#include <linux/list.h>\n#include <linux/module.h>\n#include <asm/bits.h>\n\
             #include \"local.h\"\nnoinline u32 f{index}(struct list_head *l, u64 x) {{ init(l); \
             return (u32)(x >> {}) + BITS + LOCAL; }}\nEXPORT_SYMBOL(f{index});\n\
             const char *name{index}(void) {{ return CONFIG_NAME KBUILD_MODNAME __FILE__; }}\n",
            index % 31
        );
        let local = format!("drivers/d{}/local.h", index % 10);
        write(directory, &[(&path, &text), (&local, "#define LOCAL 3\n")]);
        let _ = write!(objects, " {}", path.replace(".c", ".o"));
    }
    let makefile = format!(
        "CC = $(CROSS)gcc
COMMON = -nostdinc -isystem $(shell $(CROSS)gcc -print-file-name=include) -I./arch/x86/include \\
  -I./include -I./include/uapi -include ./include/linux/kconfig.h
FLAGS = $(COMMON) -include ./include/linux/compiler_types.h -D__KERNEL__ -Wall -Wundef \\
  -Wstrict-prototypes -Wno-trigraphs -fno-strict-aliasing -fno-common -fshort-wchar -std=gnu11 \\
  -mno-sse -mno-mmx -mno-80387 -m64 -mno-red-zone -mcmodel=kernel -fno-asynchronous-unwind-tables \\
  -fno-delete-null-pointer-checks -fno-PIE -O2 -fno-allow-store-data-races -fno-stack-protector \\
  -fno-stack-clash-protection -pg -mfentry -DCC_USING_FENTRY -fno-inline-functions-called-once \\
  -Wdeclaration-after-statement -Wvla -Wno-pointer-sign -fno-strict-overflow -fconserve-stack \\
  -Werror=date-time -Werror=incompatible-pointer-types -g
OBJECTS ={objects} arch/x86/entry.o
built-in.a: $(OBJECTS)
\trm -f $@; ar cDPrST $@ $(OBJECTS)
%.o: %.c
\t$(ICE) $(CC) -Wp,-MMD,$(@D)/.$(@F).d $(FLAGS) -DKBUILD_MODFILE='\"$*\"' -DKBUILD_BASENAME='\"$(*F)\"' \\
  -DKBUILD_MODNAME='\"$(*F)\"' -D__KBUILD_MODNAME=kmod_$(*F) -c -o $@ $<
%.o: %.S
\t$(ICE) $(CC) -Wp,-MMD,$(@D)/.$(@F).d $(COMMON) -D__ASSEMBLY__ -fno-PIE -m64 -c -o $@ $<
"
    );
    write(directory, &[("Makefile", &makefile)]);
}

#[test]
fn a_tree_in_the_kernels_style_is_compiled_elsewhere() {
    if !have(&["gcc", "make"]) {
        return;
    }
    let build = Build {
        name: "kernel",
        prepare: &tree,
        script: "make -j8",
        with: &[],
        compiles_min: FILES + 1,
    };
    build.check(&World::start());
}
