//! `reports/ecld.json`, as this view reads it. Reports of older commands lack fields, those of newer ones have more: what is
//! missing is not shown.

use client::protocol::manifest::ModelEntry;
use serde::Deserialize;

/// Where it lies, beside the page.
pub const PATH: &str = "reports/ecld.json";
/// What it says in words.
pub const TEXT: &str = "reports/ecld.md";

/// Names of the metrics, in the report's order.
pub const METRICS: [&str; 3] = ["single-hop accuracy", "two-hop accuracy", "hallucination"];

/// The report.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Every variant, the original first.
    pub variants: Vec<Variant>,
    /// Losses of every training, by name, nats a step.
    pub curves: Vec<(String, Vec<Option<f64>>)>,
    /// Sizes of the original.
    pub teacher: Sizes,
    /// What of the original scored how.
    pub importance: Option<Importance>,
}

/// Sizes of the original; 0 where the report does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Sizes {
    /// Query heads of a block.
    pub heads: usize,
}

/// A value with its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Interval {
    /// The value.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A row of Table I.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Variant {
    /// Short name.
    pub id: String,
    /// Name for people.
    pub title: String,
    /// What was done, by the report's words (`quantised`, `ecld`, …).
    pub group: String,
    /// Size of the file.
    pub bytes: u64,
    /// The same as a share of the original's in half precision.
    pub of_f16: f64,
    /// Whether the bytes are counted, since no file format has its quantiser.
    pub simulated: bool,
    /// Weights.
    pub parameters: u64,
    /// Blocks, FFN neurons of a block.
    pub sizes: [usize; 2],
    /// Of [`METRICS`]; what could not be measured is missing.
    pub metrics: Vec<Option<Interval>>,
    /// Energy of a question, as the report models it.
    pub joule_per_query: Option<f64>,
    /// Tokens that it was trained on, and seconds.
    pub trained: Vec<f64>,
    /// What is left of the original, where it was cut.
    pub kept: Option<Kept>,
}

/// What is left of the original, by the original's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// Blocks.
    pub layers: Vec<usize>,
    /// Query heads of each block that is left.
    pub heads: Vec<Vec<usize>>,
    /// FFN neurons of each block that is left.
    pub neurons: Vec<Vec<usize>>,
}

/// Scores of the original's parts (eq. 1).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Importance {
    /// Calibration tokens.
    pub tokens: usize,
    /// Of each block: 1 − cosine of what goes in and what comes out.
    pub influence: Vec<Option<f64>>,
    /// Of each block: rise of the loss without it, nats a token.
    pub loss_rise: Vec<Option<f64>>,
    /// Of each block's heads.
    pub heads: Vec<Vec<Option<f64>>>,
    /// Of each block's neurons.
    pub neurons: Vec<Vec<Option<f64>>>,
}

impl Report {
    /// Reads it.
    ///
    /// # Errors
    /// It is no report, or holds no variant; says what to do.
    pub fn parse(text: &str) -> Result<Self, String> {
        let report: Self = serde_json::from_str(text).map_err(|error| {
            format!("{PATH} is no report that this page can read ({error}). `tandem ecld report` writes it.")
        })?;
        if report.variants.is_empty() {
            return Err(format!("{PATH} holds no variant. `tandem ecld report` makes and measures them."));
        }
        Ok(report)
    }

    /// The variant that all others were made of.
    #[must_use]
    pub fn original(&self) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.group == "original")
    }

    /// Those of which blocks or neurons were cut.
    pub fn cut(&self) -> impl Iterator<Item = &Variant> {
        let whole = self.original().map_or([0, 0], |original| original.sizes);
        self.variants.iter().filter(move |variant| variant.kept.is_some() || variant.sizes != whole)
    }
}

impl Variant {
    /// A metric by its place in [`METRICS`].
    #[must_use]
    pub fn metric(&self, place: usize) -> Option<Interval> {
        *self.metrics.get(place)?
    }

    /// Tokens that it was trained on; 0 for none.
    #[must_use]
    pub fn tokens(&self) -> f64 {
        self.trained.first().copied().unwrap_or(0.0)
    }

    /// The file of the server's list that this row was measured on: by its name, else by its size to the byte, which no two
    /// files of a family have in common by chance.
    #[must_use]
    pub fn offered<'m>(&self, models: &'m [ModelEntry]) -> Option<&'m ModelEntry> {
        let by_name = models.iter().find(|entry| entry.id == self.id);
        by_name.or_else(|| models.iter().find(|entry| !self.simulated && entry.bytes == self.bytes))
    }
}

/// A colour of the page's tokens for what was done to a variant.
#[must_use]
pub fn colour(group: &str) -> &'static str {
    match group {
        "original" => "--ink",
        "original_trained" => "--ink-3",
        "quantised" => "--run-1",
        "quantised_trained" => "--run-6",
        "pruned" => "--run-4",
        "distilled" => "--run-3",
        "ecld" => "--run-2",
        "lora" => "--uplink",
        "random" => "--run-5",
        _ => "--line-strong",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The report as it is in the repository.
    pub(crate) fn report() -> Report {
        Report::parse(include_str!("../../../public/reports/ecld.json")).expect("the report can be read")
    }

    #[test]
    fn the_report_is_read() {
        let report = report();
        let original = report.original().expect("an original");
        assert!(original.bytes > 1_000_000 && original.metric(0).is_some_and(|metric| metric.value > 0.9));
        assert!(original.metric(9).is_none());
        let cut: Vec<&str> = report.cut().map(|variant| variant.group.as_str()).collect();
        assert!(cut.contains(&"pruned") && cut.contains(&"ecld") && !cut.contains(&"quantised"), "{cut:?}");
        assert!(report.curves.iter().any(|(_, losses)| losses.len() > 100));
        for variant in &report.variants {
            assert!(variant.metrics.len() >= METRICS.len() && variant.bytes > 0, "{}", variant.id);
        }
    }

    #[test]
    fn older_and_newer_reports_are_read_and_nonsense_is_told() {
        let text = r#"{"variants":[{"id":"a","group":"ecld","metrics":[null],"news":1,
            "kept":{"layers":[0,2],"heads":[[0],[1]],"neurons":[[0,5],[1]]}}],"curves":[["a",[1.5,null]]],
            "importance":{"influence":[0.1,null],"heads":[[1.0]]}}"#;
        let report = Report::parse(text).expect("a report");
        assert_eq!(report.variants[0].kept.as_ref().map(|kept| kept.layers.as_slice()), Some(&[0, 2][..]));
        assert_eq!((report.variants[0].metric(0), report.curves[0].1[1]), (None, None));
        assert_eq!(report.importance.map(|scores| scores.influence), Some(vec![Some(0.1), None]));
        for text in ["", "[]", "{}", "{\"variants\":3}"] {
            assert!(Report::parse(text).is_err_and(|problem| problem.contains("tandem ecld report")), "{text}");
        }
    }

    #[test]
    fn a_row_is_found_among_the_servers_files() {
        let entry = |id: &str, bytes| ModelEntry { id: id.into(), bytes, ..entry() };
        let models = [entry("full", 3_000), entry("small", 1_000)];
        let row = |id: &str, bytes, simulated| Variant { id: id.into(), bytes, simulated, ..Variant::default() };
        let found = |row: Variant| row.offered(&models).map(|entry| entry.id.clone());
        assert_eq!(found(row("small", 7, false)).as_deref(), Some("small"));
        assert_eq!(found(row("x", 3_000, false)).as_deref(), Some("full"));
        assert_eq!(found(row("x", 3_000, true)), None, "a counted size is no file's");
        assert_eq!(found(row("x", 7, false)), None);
    }

    fn entry() -> ModelEntry {
        ModelEntry {
            id: String::new(),
            name: String::new(),
            file: String::new(),
            bytes: 0,
            sha256: String::new(),
            parameters: 0,
            quantisation: String::new(),
            context_length: 0,
            cache_width: 0,
            accuracy: client::protocol::manifest::Accuracy::default(),
            hallucination: 0.0,
            licence: String::new(),
            corpus_seed: 0,
            preferred: false,
        }
    }
}
