//! Building beside something else: the page beside the lints and the native tests, each of which alone leaves cores idle
//! while it waits for a large crate or a linker; and what a demo does without at first beside its server.
//!
//! What builds is this program once more, in a process group of its own. It ends with all that it started when its standard
//! input does, and that ends with this process, however that ends.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::lints::LINT_PAGE;
use crate::shell::{command, describe, find_on_path, step, target_folder, took};

/// What can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// All that the browser tests need of the page, linted.
    Page,
    /// What a demo does without at first.
    Late,
}

/// Arguments of the command that [`Build::start`] runs.
#[derive(clap::Args)]
pub struct Args {
    /// What to build.
    #[arg(value_enum)]
    pub what: What,
}

/// A build that is under way. Dropping it ends it.
pub struct Build {
    child: Child,
    /// Where its output is, if that is not the terminal.
    log: Option<String>,
}

impl Build {
    /// Begins, with the output in a file for the page; `None` on systems without process groups, where what is needed is
    /// built when its turn comes.
    ///
    /// # Errors
    /// The build cannot be started.
    pub fn start(what: What) -> Result<Option<Self>> {
        if !cfg!(unix) {
            return Ok(None);
        }
        let program = std::env::current_exe().context("this program does not know where it is")?;
        let mut command = match what {
            What::Page => command(program, &[NAME, "page"]),
            // What the demo is for goes first.
            What::Late if find_on_path("nice").is_some() => {
                command("nice", &[program.as_os_str(), NAME.as_ref(), "late".as_ref()])
            }
            What::Late => command(program, &[NAME, "late"]),
        };
        let mut log = None;
        if what == What::Page {
            let file = target_folder()?.join("page.log").to_string_lossy().into_owned();
            step(&format!("Meanwhile the page is built and linted; what that prints is in {file}"));
            command.env(LINT_PAGE, "1");
            let out = File::create(&file).with_context(|| format!("{file} cannot be written"))?;
            command.stderr(out.try_clone()?).stdout(out);
            log = Some(file);
        }
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.stdin(Stdio::piped()).spawn();
        let child = child.with_context(|| format!("cannot start `{}`", describe(&command)))?;
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
            let file = self.log.unwrap_or_default();
            let log = std::fs::read_to_string(&file).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n");
            bail!("the page did not build; the end of {file}:\n{tail}");
        }
        took(started.elapsed());
        Ok(())
    }
}

/// The command that [`Build::start`] runs.
pub const NAME: &str = "beside";

/// Ends this process, and all that it started, when its standard input does.
pub fn end_with_standard_input() {
    thread::spawn(|| {
        // Nothing ever comes: it ends when the other process does.
        let _ = std::io::stdin().read(&mut [0]);
        let group = format!("-{}", std::process::id());
        let _ = Command::new("kill").args(["-TERM", "--", &group]).status();
    });
}
