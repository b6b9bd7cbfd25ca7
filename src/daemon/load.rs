//! How busy this machine is, as the kernel tells it.

use std::fs;

/// What burdens this machine. Zero where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// The one-minute load average, times 1000.
    pub load_milli: u32,
    /// The memory that is available, in MiB.
    pub memory_mib: u64,
    /// The share of the last ten seconds in which something waited for a processor, in thousandths.
    pub processor_stall_milli: u16,
    /// The same for memory.
    pub memory_stall_milli: u16,
}

impl Pressure {
    /// The pressure now.
    pub fn now() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            load_milli: load_milli(&read("/proc/loadavg")),
            memory_mib: available_mib(&read("/proc/meminfo")),
            processor_stall_milli: stall_milli(&read("/proc/pressure/cpu")),
            memory_stall_milli: stall_milli(&read("/proc/pressure/memory")),
        }
    }

    /// Whether the difference would change a placement. All of it wanders all the time.
    pub fn differs_much(&self, before: &Self) -> bool {
        self.load_milli.abs_diff(before.load_milli) >= 250
            || self.memory_mib.abs_diff(before.memory_mib) * 10 >= before.memory_mib.max(1)
            || self
                .processor_stall_milli
                .abs_diff(before.processor_stall_milli)
                >= 100
            || self.memory_stall_milli.abs_diff(before.memory_stall_milli) >= 20
    }
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

/// The line of those moments in which *some* tasks waited, while others may have run.
fn stall_milli(pressure: &str) -> u16 {
    let line = pressure.lines().find_map(|line| line.strip_prefix("some "));
    let percent: Option<f64> = line.and_then(|line| {
        let mut words = line.split(' ');
        words
            .find_map(|word| word.strip_prefix("avg10="))?
            .parse()
            .ok()
    });
    percent.map_or(0, |percent| (percent * 10.0).clamp(0.0, 1000.0) as u16)
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
        let pressure = "some avg10=12.34 avg60=8.00 avg300=1.00 total=77\n\
                        full avg10=99.00 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!(stall_milli(pressure), 123);
        assert_eq!(stall_milli("some avg10=nonsense\n"), 0);
        assert_eq!(stall_milli("some avg10=1e9\n"), 1000);
        assert_eq!(stall_milli(""), 0);
    }

    #[test]
    fn only_what_matters_is_worth_a_word() {
        let before = Pressure {
            load_milli: 1000,
            memory_mib: 8000,
            processor_stall_milli: 100,
            memory_stall_milli: 0,
        };
        assert!(!before.differs_much(&before));
        let now = |change: fn(&mut Pressure)| {
            let mut now = before;
            change(&mut now);
            now.differs_much(&before)
        };
        assert!(!now(|now| now.load_milli = 1200) && now(|now| now.load_milli = 1300));
        assert!(!now(|now| now.memory_mib = 7500) && now(|now| now.memory_mib = 4000));
        assert!(now(|now| now.processor_stall_milli = 250));
        assert!(now(|now| now.memory_stall_milli = 20));
    }
}
