//! Building the page beside the lints and the native tests: each of the two alone leaves cores idle while it waits for a
//! large crate or a linker.
//!
//! What builds is this program once more, in a process group of its own, with its output in a file. It ends with all that
//! it started when its standard input does, and that ends with this process, however that ends.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::browser;
use crate::build;
use crate::shell::{command, describe, step, took};

/// A build that is under way.
pub struct Build {
    child: Child,
    log: String,
}

impl Build {
    /// Begins; `None` on systems without process groups, where what is needed is built when its turn comes.
    ///
    /// # Errors
    /// The build cannot be started.
    pub fn start() -> Result<Option<Self>> {
        if !cfg!(unix) {
            return Ok(None);
        }
        let log = build::target_folder()?.join("page.log").to_string_lossy().into_owned();
        step(&format!("Meanwhile the page is built; what that prints is in {log}"));
        let program = std::env::current_exe().context("this program does not know where it is")?;
        let mut command = command(program, &[NAME]);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let out = File::create(&log).with_context(|| format!("{log} cannot be written"))?;
        command.stdin(Stdio::piped()).stderr(out.try_clone()?).stdout(out);
        let child = command.spawn().with_context(|| format!("cannot start `{}`", describe(&command)))?;
        Ok(Some(Self { child, log }))
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The build failed; the end of what it printed is in the text.
    pub fn finish(mut self) -> Result<()> {
        step("The rest of the page");
        let started = Instant::now();
        // Dropping it early would end the build.
        let guard = self.child.stdin.take();
        let status = self.child.wait().context("the build of the page cannot be waited for")?;
        drop(guard);
        if !status.success() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n");
            bail!("the page did not build; the end of {}:\n{tail}", self.log);
        }
        took(started.elapsed());
        Ok(())
    }
}

/// The command that [`Build::start`] runs.
pub const NAME: &str = "beside";

/// Builds what the browser tests need of the page, until standard input ends.
///
/// # Errors
/// Something does not build.
pub fn run() -> Result<()> {
    thread::spawn(|| {
        // Nothing ever comes: it ends when the other process does.
        let _ = std::io::stdin().read(&mut [0]);
        let group = format!("-{}", std::process::id());
        let _ = Command::new("kill").args(["-TERM", "--", &group]).status();
    });
    browser::build_page(false)
}
