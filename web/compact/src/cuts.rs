//! What was cut of the original: blocks, heads and neurons, as bars; and what scored how, as heat maps.

use std::fmt::Write as _;

use crate::report::{Importance, Report, Variant};

/// Cells of a row of a heat map at most; more values are averaged.
const MOST_CELLS: usize = 96;

/// A count of what there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What is left.
    pub left: usize,
    /// What there was; 0 where the report does not say.
    pub of: usize,
}

impl Part {
    /// Share that is left, 0..=1; all where nobody knows what there was.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a bar")]
    pub fn share(self) -> f64 {
        if self.of == 0 { 1.0 } else { (self.left as f64 / self.of as f64).clamp(0.0, 1.0) }
    }
}

/// One block of the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub block: usize,
    /// Whether it is left at all.
    pub is_left: bool,
    /// Its query heads.
    pub heads: Part,
    /// Its neurons.
    pub neurons: Part,
}

/// What is left of the original in a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Blocks.
    pub blocks: Part,
    /// Neurons of a block that is left, on average.
    pub neurons: Part,
    /// Block by block; empty where the report does not say which.
    pub rows: Vec<Row>,
}

/// What is left in a variant; `None` without an original.
#[must_use]
pub fn cut(report: &Report, variant: &Variant) -> Option<Cut> {
    let [blocks, neurons] = report.original()?.sizes;
    let heads = report.teacher.heads;
    let rows = variant.kept.as_ref().map_or_else(Vec::new, |kept| {
        let row = |block: usize| {
            let place = kept.layers.iter().position(|layer| *layer == block);
            let count = |lists: &[Vec<usize>]| place.and_then(|place| lists.get(place)).map_or(0, Vec::len);
            Row {
                block,
                is_left: place.is_some(),
                heads: Part { left: count(&kept.heads), of: heads },
                neurons: Part { left: count(&kept.neurons), of: neurons },
            }
        };
        (0..blocks).map(row).collect()
    });
    let [left, width] = variant.sizes;
    Some(Cut { blocks: Part { left, of: blocks }, neurons: Part { left: width, of: neurons }, rows })
}

/// A heat map: a row a block, its label, and cells from 0 to 1 as shares of the highest score of all.
#[derive(Clone, Debug, PartialEq)]
pub struct Heat {
    /// What is scored.
    pub name: &'static str,
    /// How.
    pub how: &'static str,
    /// Cells by block.
    pub rows: Vec<Vec<f64>>,
    /// The highest score.
    pub highest: f64,
}

/// The heat maps that the scores allow.
#[must_use]
pub fn heats(scores: &Importance) -> Vec<Heat> {
    let single = |of: &[Option<f64>]| of.iter().map(|value| vec![*value]).collect::<Vec<_>>();
    [
        ("Blocks", "1 − cosine of what goes in and what comes out", single(&scores.influence)),
        ("Blocks, by the loss", "rise of the loss without the block, nats a token", single(&scores.loss_rise)),
        ("Heads", "norm of a head’s output", scores.heads.clone()),
        ("Neurons", "activation (l2) × norm of the down column; neighbours averaged", scores.neurons.clone()),
    ]
    .into_iter()
    .filter_map(|(name, how, values)| heat(name, how, &values))
    .collect()
}

fn heat(name: &'static str, how: &'static str, values: &[Vec<Option<f64>>]) -> Option<Heat> {
    let finite = |value: &Option<f64>| value.filter(|value| value.is_finite());
    let rows: Vec<Vec<f64>> = values
        .iter()
        .map(|row| {
            let size = row.len().div_ceil(MOST_CELLS).max(1);
            let mean = |cell: &[Option<f64>]| {
                let known: Vec<f64> = cell.iter().filter_map(finite).collect();
                #[expect(clippy::cast_precision_loss, reason = "a mean of a few")]
                let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
                mean.max(0.0)
            };
            row.chunks(size).map(mean).collect()
        })
        .collect();
    let highest = rows.iter().flatten().copied().fold(0.0, f64::max);
    let rows = rows.into_iter().map(|row| row.into_iter().map(|value| value / highest).collect()).collect();
    (highest > 0.0).then_some(Heat { name, how, rows, highest })
}

/// A heat map as SVG, in the page's colours.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a drawing")]
pub fn svg(heat: &Heat) -> String {
    const WIDTH: f64 = 480.0;
    const LEFT: f64 = 56.0;
    const LINE: f64 = 20.0;
    let height = LINE * heat.rows.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" style=\"font:11px var(--font)\">"
    );
    for (block, row) in heat.rows.iter().enumerate() {
        let y = LINE * block as f64;
        // Writing to a String cannot fail.
        let _ = write!(out, "<text x=\"0\" y=\"{:.1}\" style=\"fill:var(--ink-3)\">block {block}</text>", y + 14.0);
        let width = (WIDTH - LEFT) / row.len().max(1) as f64;
        for (cell, value) in row.iter().enumerate() {
            // The eye sees differences of small shares best when they are spread.
            let _ = write!(
                out,
                "<rect x=\"{:.2}\" y=\"{:.1}\" width=\"{:.2}\" height=\"{:.1}\" style=\"fill:var(--device);opacity:{:.3}\"/>",
                LEFT + width * cell as f64,
                y + 1.0,
                width,
                LINE - 2.0,
                0.06 + 0.94 * value.clamp(0.0, 1.0).sqrt()
            );
        }
    }
    out.push_str("</svg>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;
    use crate::report::{Kept, Sizes};

    #[test]
    fn what_is_left_is_counted_block_by_block_where_the_report_says_so() {
        let original = Variant { group: "original".into(), sizes: [3, 4], ..Variant::default() };
        let kept = Kept { layers: vec![0, 2], heads: vec![vec![1], vec![0, 1]], neurons: vec![vec![0, 1, 3], vec![2]] };
        let small = Variant { sizes: [2, 2], kept: Some(kept), ..Variant::default() };
        let teacher = Sizes { heads: 2 };
        let report = Report { variants: vec![original, small.clone()], teacher, ..Report::default() };
        let found = cut(&report, &small).expect("an original");
        assert_eq!((found.blocks, found.neurons), (Part { left: 2, of: 3 }, Part { left: 2, of: 4 }));
        let row = |block, is_left, heads, neurons| Row {
            block,
            is_left,
            heads: Part { left: heads, of: 2 },
            neurons: Part { left: neurons, of: 4 },
        };
        assert_eq!(found.rows, [row(0, true, 1, 3), row(1, false, 0, 0), row(2, true, 2, 1)]);
        let unknown = Variant { kept: None, ..small };
        assert_eq!(cut(&report, &unknown).map(|cut| cut.rows), Some(Vec::new()));
        assert_eq!(cut(&Report::default(), &unknown), None);
    }

    #[test]
    fn the_shipped_report_has_cuts() {
        let report = report();
        for variant in report.cut() {
            let found = cut(&report, variant).expect("an original");
            assert!(found.blocks.share() < 1.0 || found.neurons.share() < 1.0, "{}", variant.id);
        }
    }

    #[test]
    fn heat_maps_are_shares_of_the_highest() {
        let neurons = vec![(0..200).map(|n| Some(f64::from(n))).collect(), vec![None, Some(f64::NAN), Some(-1.0)]];
        let scores = Importance { influence: vec![Some(0.5), Some(1.0)], neurons, ..Importance::default() };
        let all = heats(&scores);
        assert_eq!(all.iter().map(|heat| heat.name).collect::<Vec<_>>(), ["Blocks", "Neurons"]);
        assert_eq!((&all[0].rows, all[0].highest), (&vec![vec![0.5], vec![1.0]], 1.0));
        assert!(all[1].rows[0].len() <= MOST_CELLS && all[1].rows[1] == [0.0, 0.0, 0.0]);
        let drawn = svg(&all[1]);
        assert!(drawn.contains("block 1") && !drawn.contains("NaN") && drawn.matches("<rect").count() < 220);
        assert!(heats(&Importance::default()).is_empty());
    }
}
