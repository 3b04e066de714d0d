//! Running programs: each one is printed before it starts, and a failure names the command that failed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Moves to the folder of the workspace, so that the commands work from any folder of the checkout.
pub fn enter_workspace_root() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent folder")?;
    std::env::set_current_dir(root).with_context(|| format!("cannot enter {}", root.display()))
}

/// Says what happens now.
pub fn step(text: &str) {
    eprintln!("\n\x1b[1m▸ {text}\x1b[0m");
}

/// What compilers take their turns from, once [`share_cores`] was called.
static TURNS: OnceLock<jobserver::Client> = OnceLock::new();

/// From here on, builds side by side run together about as many compilers as one of them alone would.
pub fn share_cores() -> Result<()> {
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
    eprintln!("  $ {shown}");
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    took(start.elapsed());
    Ok(())
}

/// Says how long something took, if a person may have noticed.
pub fn took(time: Duration) {
    let seconds = time.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, 0) => {}
        (0, s) => eprintln!("  took {s} s"),
        (min, s) => eprintln!("  took {min} min {s} s"),
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
