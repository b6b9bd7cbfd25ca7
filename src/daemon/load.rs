//! How busy this machine is, as the kernel tells it.

use std::fs;

/// The one-minute load average times 1000, and the memory that is available in MiB. Zero where the
/// kernel does not tell.
pub fn pressure() -> (u32, u64) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    (
        load_milli(&read("/proc/loadavg")),
        available_mib(&read("/proc/meminfo")),
    )
}

fn load_milli(loadavg: &str) -> u32 {
    let first: Option<f64> = loadavg.split(' ').next().and_then(|word| word.parse().ok());
    first.map_or(0, |load| (load * 1000.0) as u32)
}

fn available_mib(meminfo: &str) -> u64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or(0u64) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        assert_eq!(load_milli("1.25 0.90 0.50 2/345 6789\n"), 1250);
        assert_eq!(load_milli(""), 0);
        let meminfo = "MemTotal:       24000000 kB\nMemAvailable:   2097152 kB\n";
        assert_eq!(available_mib(meminfo), 2048);
        assert_eq!(available_mib("MemTotal: 1 kB\n"), 0);
    }
}
