//! Running programs: each one is printed before it starts, and a failure names the command that failed. In a [lane](lanes)
//! every line carries the lane's name.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Moves to the folder of the workspace, so that the commands work from any folder of the checkout.
pub fn enter_workspace_root() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent folder")?;
    std::env::set_current_dir(root).with_context(|| format!("cannot enter {}", root.display()))
}

thread_local! {
    /// The lane that this thread is.
    static LANE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Programs that are under way in lanes, by process id.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Whether a lane has failed, so that the others begin nothing more: for good, since the failure ends this program.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Says what happens now.
pub fn step(text: &str) {
    match LANE.get() {
        Some(lane) => eprintln!("\x1b[1m[{lane}] ▸ {text}\x1b[0m"),
        None => eprintln!("\n\x1b[1m▸ {text}\x1b[0m"),
    }
}

/// From here on, what this thread says and runs carries a name.
pub fn enter_lane(name: &'static str) {
    LANE.set(Some(name));
}

/// A lane's work.
pub type Work<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;

/// Does several things side by side; a lane may have lanes of its own. When one fails, the programs of all others are ended,
/// and its error is returned.
pub fn lanes(lanes: Vec<(&'static str, Work<'_>)>) -> Result<()> {
    let (sender, results) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        for (name, work) in lanes {
            let sender = sender.clone();
            scope.spawn(move || {
                enter_lane(name);
                // Whoever reads it has returned already if another lane failed.
                let _ = sender.send(work());
            });
        }
        drop(sender);
        let mut first = Ok(());
        for result in results {
            if first.is_ok() && result.is_err() {
                end_all();
                first = result;
            }
        }
        first
    })
}

/// Asks the programs of all lanes to end.
fn end_all() {
    ENDING.store(true, Ordering::SeqCst);
    let running: Vec<String> = running().iter().map(u32::to_string).collect();
    if cfg!(unix) && !running.is_empty() {
        let _ = Command::new("kill").arg("-TERM").args(running).status();
    }
}

fn running() -> std::sync::MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What compilers take their turns from, once [`share_cores`] was called.
static TURNS: OnceLock<jobserver::Client> = OnceLock::new();

/// From here on, builds side by side run together about as many compilers as one of them alone would.
pub fn share_cores() -> Result<()> {
    if TURNS.get().is_some() {
        return Ok(());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Every cargo has one turn of its own beside these.
    let turns = jobserver::Client::new((cores - 1).max(1)).context("the builds cannot share the cores")?;
    TURNS.get_or_init(|| turns);
    Ok(())
}

/// A program with its arguments.
pub fn command<S: AsRef<std::ffi::OsStr>>(program: impl AsRef<std::ffi::OsStr>, args: &[S]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    if let Some(turns) = TURNS.get() {
        turns.configure(&mut command);
    }
    command
}

/// Runs to the end with this terminal's output and says how long it took; an exit code other than 0 is an error.
pub fn run(mut command: Command) -> Result<()> {
    let shown = describe(&command);
    let start = Instant::now();
    command.stdin(Stdio::null());
    let started = || format!("cannot start `{shown}`");
    let status = match LANE.get() {
        None => {
            eprintln!("  $ {shown}");
            command.status().with_context(started)?
        }
        Some(lane) => {
            if ENDING.load(Ordering::SeqCst) {
                bail!("`{shown}` is not begun: something else failed");
            }
            eprintln!("[{lane}] $ {shown}");
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(started)?;
            in_lane(child, lane).with_context(|| format!("`{shown}` cannot be waited for"))?
        }
    };
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    took(start.elapsed());
    Ok(())
}

/// Waits for a program and prints what it says under the lane's name.
fn in_lane(mut child: Child, lane: &str) -> std::io::Result<ExitStatus> {
    running().push(child.id());
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
    ];
    thread::scope(|scope| {
        for stream in streams.into_iter().flatten() {
            scope.spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(std::io::Result::ok) {
                    eprintln!("[{lane}] {}", String::from_utf8_lossy(&line).trim_end());
                }
            });
        }
    });
    let status = child.wait();
    running().retain(|id| *id != child.id());
    status
}

/// Says how long something took, if a person may have noticed.
pub fn took(time: Duration) {
    let seconds = time.as_secs();
    let lane = LANE.get().map_or_else(String::new, |lane| format!("[{lane}]"));
    match (seconds / 60, seconds % 60) {
        (0, 0) => {}
        (0, s) => eprintln!("{lane}  took {s} s"),
        (min, s) => eprintln!("{lane}  took {min} min {s} s"),
    }
}

/// Standard output of a program that ran well; `None` when it is missing or failed.
pub fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// First file of this name on PATH.
pub fn find_on_path(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A command as people would type it.
pub fn describe(command: &Command) -> String {
    let mut shown = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        shown.push(' ');
        shown.push_str(&arg.to_string_lossy());
    }
    shown
}

/// Cargo's target folder, wherever the environment puts it.
pub fn target_folder() -> Result<PathBuf> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    if let Some(folder) = FOLDER.get() {
        return Ok(folder.clone());
    }
    let metadata =
        output("cargo", &["metadata", "--no-deps", "--format-version", "1"]).context("cargo metadata failed")?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let folder = metadata["target_directory"].as_str().context("cargo metadata names no target folder")?;
    Ok(FOLDER.get_or_init(|| folder.into()).clone())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A lane that fails ends what the other runs, which would take minutes otherwise.
    #[test]
    fn a_failure_ends_the_other_lanes() {
        lanes(vec![("fine", Box::new(|| run(command("true", &[] as &[&str]))))]).unwrap();
        let start = Instant::now();
        let result = lanes(vec![
            ("slow", Box::new(|| lanes(vec![("within", Box::new(|| run(command("sleep", &["600"]))))]))),
            (
                "failing",
                Box::new(|| {
                    while running().is_empty() {
                        thread::yield_now();
                    }
                    run(command("false", &[] as &[&str]))
                }),
            ),
        ]);
        assert!(result.unwrap_err().to_string().contains("`false` ended with"));
        assert!(start.elapsed() < Duration::from_secs(300) && running().is_empty());
    }
}
