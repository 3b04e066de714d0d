//! How much memory is free for a model: what the system could hand out without swapping, and no more than this process's
//! control group allows.

use std::fs::read_to_string;

/// What a model may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes that are free; not known on every system.
    pub available: Option<u64>,
    /// Tokens of the longest conversation that is asked for.
    pub context: Option<usize>,
}

impl Room {
    /// What is free now.
    #[must_use]
    pub fn now(context: Option<usize>) -> Self {
        Self { available: available(), context }
    }
}

/// Bytes that are free; `None` where the system does not say.
fn available() -> Option<u64> {
    let read = |path: &str| read_to_string(path).ok();
    let system = read("/proc/meminfo").and_then(|text| of_system(&text));
    let group = read("/proc/self/cgroup").and_then(|text| {
        let folder = format!("/sys/fs/cgroup{}", group_of(&text)?);
        let file = |name: &str| read(&format!("{folder}/{name}"));
        of_group(&file("memory.max")?, &file("memory.current")?, &file("memory.stat")?)
    });
    match (system, group) {
        (Some(system), Some(group)) => Some(system.min(group)),
        (system, group) => system.or(group),
    }
}

/// `MemAvailable` of `/proc/meminfo`, in kB there.
fn of_system(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The control group of a process, version 2: the line of hierarchy 0.
fn group_of(cgroup: &str) -> Option<&str> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(if path == "/" { "" } else { path })
}

/// What a control group has left: its limit less what it uses, but for pages of files, which are given back.
fn of_group(max: &str, current: &str, stat: &str) -> Option<u64> {
    // "max" where there is no limit.
    let max: u64 = max.trim().parse().ok()?;
    let current: u64 = current.trim().parse().ok()?;
    let file = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let file: u64 = file.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0);
    Some(max.saturating_sub(current.saturating_sub(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_and_groups_are_read() {
        let meminfo = "MemTotal:       24689764 kB\nMemFree:          500000 kB\nMemAvailable:   22000000 kB\n";
        assert_eq!(of_system(meminfo), Some(22_000_000 * 1024));
        for other in ["", "MemAvailable: many kB", "MemAvailable: 5 MB", "MemTotal: 5 kB"] {
            assert_eq!(of_system(other), None, "{other}");
        }
        assert_eq!(group_of("1:name=systemd:/\n0::/user.slice/a\n"), Some("/user.slice/a"));
        assert_eq!((group_of("0::/\n"), group_of("1:cpu:/x\n")), (Some(""), None));
        for (max, current, stat, left) in [
            ("1000\n", "400\n", "anon 1\ninactive_file 100\n", Some(700)),
            ("1000", "1200", "", Some(0)),
            ("max\n", "400\n", "", None),
        ] {
            assert_eq!(of_group(max, current, stat), left, "{max}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_says_it() {
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
