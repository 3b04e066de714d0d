//! The report in Markdown. All its numbers come from the measurements; sentences that judge are chosen by intervals.

use std::fmt::Write as _;

use lm::family::{Group, Interval, Ranked};

use super::{Report, Variant, paper, routing};

/// The whole report. `how` says where and how it was run.
pub fn markdown(report: &Report, how: &str) -> String {
    let mut out = String::from("# Compact models of the shipped teacher, step by step\n\n");
    let train = &report.settings.healing.train;
    let draws = report.draws.iter().map(|draws| draws.metrics.len()).max().unwrap_or(1);
    let luck = match draws {
        1 => "each was trained once".to_owned(),
        draws => format!("what was trained {draws} times, with other orders of documents, is below"),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "ECLD's stages on our own full model (Atlas), every row a file that was made and asked by `tandem ecld report`. {how}\n\n\
         Questions are held-out wordings (single-hop) and held-out pairs (two-hop), up to {} of each, the same for all, greedy; \
         hallucination is the share of unsupported sentences of all that say something new when up to {} articles are \
         continued. Brackets hold 95 % intervals by {} resamples of facts or articles; differences are paired. They say \
         nothing about another training's luck: {luck}. Students learned by L = (1−α)·CE + α·τ²·KL with α = {}, τ = {} from \
         the teacher's {} most likely tokens (all others as one), {} steps of up to {} tokens, then {} steps with Q4_0 in the \
         loop (straight-through). Energy is *model-counted*: 40 pJ a byte of weights read (once for the prompt, once for each \
         token of the answer), 1 pJ a multiply-add; only ratios are claims, and the machine's idle watts are not in it.\n",
        report.settings.limit,
        report.settings.limit,
        lm::family::DRAWS,
        report.settings.healing.alpha,
        report.settings.healing.tau,
        report.settings.healing.top_k,
        train.steps,
        train.rows * train.len,
        report.settings.loop_steps,
    );
    table(&mut out, report);
    out.push_str(
        "\n![Single-hop accuracy over bytes](ecld-single.svg)\n\n![Two-hop accuracy over bytes](ecld-two.svg)\n\n",
    );
    out.push_str("![Hallucination over bytes](ecld-hallucination.svg)\n\n");
    rankings(&mut out, report);
    comparisons(&mut out, report);
    repetitions(&mut out, report);
    routing::markdown(&mut out, report);
    efficiency(&mut out, report);
    papers(&mut out);
    out
}

fn interval(value: Option<&Interval>) -> String {
    value.map_or_else(|| "n/a".into(), |i| format!("{:.3} [{:.3}, {:.3}]", i.value, i.low, i.high))
}

fn signed(value: Option<&Interval>) -> String {
    value.map_or_else(|| "n/a".into(), |i| format!("{:+.3} [{:+.3}, {:+.3}]", i.value, i.low, i.high))
}

fn table(out: &mut String, report: &Report) {
    out.push_str("## Our Table I\n\n");
    out.push_str(
        "| variant | blocks × neurons | parameters | file, bytes | of f16 | single-hop | two-hop | hallucination | new sentences, \
         repeats, empty | NLL | mJ a query | tokens an answer | trained on |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for variant in &report.variants {
        let Variant { title, sizes: [layers, ffn], parameters, bytes, .. } = variant;
        let [single, two, wrong] = variant.metrics.each_ref().map(|metric| interval(metric.as_ref()));
        let [sentences, repeats, empty] = variant.sentences;
        let simulated = if variant.simulated { " (simulated)" } else { "" };
        let [tokens, _] = variant.trained;
        let trained = if tokens > 0.0 { format!("{:.2} M tokens", tokens / 1e6) } else { "–".into() };
        let _ = writeln!(
            out,
            "| {title}{simulated} | {layers} × {ffn} | {:.2} M | {bytes} | {:.1} % | {single} | {two} | {wrong} | {sentences}, \
             {repeats}, {empty} | {:.3} | {:.3} | {:.1} | {trained} |",
            *parameters as f64 / 1e6,
            100.0 * variant.of_f16,
            variant.mean_nll,
            1e3 * variant.joule_per_query,
            variant.tokens_per_query,
        );
    }
    out.push_str(
        "\n*Simulated*: the paper's uniform quantiser with minimised (a, b); bytes are those of its codes and scales, values were \
         computed in single precision. `ecld.json` holds everything, the loss of every step too.\n",
    );
}

/// What an interval of a difference says, when more is better or worse.
fn said(difference: Option<&Interval>, more_is_better: bool) -> &'static str {
    match difference {
        None => "not comparable",
        Some(interval) if !interval.excludes_zero() => "no difference that the interval shows",
        Some(interval) if (interval.value > 0.0) == more_is_better => "better",
        Some(_) => "worse",
    }
}

/// Every pair that answers a question.
fn comparisons(out: &mut String, report: &Report) {
    out.push_str(
        "## Against what\n\nPaired differences, left minus right. \"Quantised only\" is the variant of the teacher whose file is \
         nearest in bytes and not smaller, or the smallest that there is.\n\n\
         | left | right | bytes, left / right | single-hop | two-hop | hallucination |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for (left, right) in pairs(report) {
        let (Some(l), Some(r)) = (report.variants.get(left), report.variants.get(right)) else { continue };
        let [single, two, wrong] = report.differences(left, right);
        let cell =
            |value: Option<Interval>, more: bool| format!("{}: {}", signed(value.as_ref()), said(value.as_ref(), more));
        let _ = writeln!(
            out,
            "| {} | {} | {:.2} | {} | {} | {} |",
            l.title,
            r.title,
            l.bytes as f64 / r.bytes.max(1) as f64,
            cell(single, true),
            cell(two, true),
            cell(wrong, false)
        );
    }
    out.push('\n');
}

/// The places of what is compared with what.
fn pairs(report: &Report) -> Vec<(usize, usize)> {
    let all = &report.variants;
    let mut pairs = Vec::new();
    let find = |group: Group, like: &Variant| {
        all.iter().position(|other| other.group == group && other.sizes == like.sizes && other.draw == like.draw)
    };
    for (place, variant) in all.iter().enumerate() {
        match variant.group {
            Group::Quantised | Group::QuantisedTrained | Group::OriginalTrained => pairs.push((place, 0)),
            Group::Ecld => {
                pairs.push((place, 0));
                let quantised = all.iter().enumerate().filter(|(_, other)| other.group == Group::Quantised);
                let not_smaller = quantised.clone().filter(|(_, other)| other.bytes >= variant.bytes);
                let nearest = not_smaller.min_by_key(|(_, other)| other.bytes);
                let nearest = nearest.or_else(|| quantised.min_by_key(|(_, other)| other.bytes));
                pairs.extend(nearest.map(|(other, _)| (place, other)));
                // Whatever they learned with: the best of them is what is hard to beat.
                let trained = all.iter().enumerate();
                let trained =
                    trained.filter(|(_, other)| other.group == Group::QuantisedTrained && other.draw == variant.draw);
                pairs.extend(trained.map(|(other, _)| (place, other)));
                for group in [Group::Distilled, Group::Pruned, Group::Lora, Group::Random] {
                    pairs.extend(find(group, variant).map(|other| (place, other)));
                }
            }
            _ => {}
        }
    }
    pairs
}

/// How each cut was split between blocks and neurons.
fn rankings(out: &mut String, report: &Report) {
    if report.rankings.iter().all(|(_, ranked)| ranked.is_empty()) {
        return;
    }
    out.push_str(
        "## How the cuts were split\n\nThe two splits of each cut that lose least unhealed, ranked again by the mean NLL (calibration set: \
         questions in words of the training, and articles) after a short distillation; the first was taken.\n\n\
         | cut | blocks × neurons | mean NLL unhealed | after the short distillation | steps of it |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for (cut, ranked) in &report.rankings {
        for Ranked { sizes: [layers, ffn], unhealed, after, steps } in ranked {
            let _ = writeln!(out, "| −{cut} % | {layers} × {ffn} | {unhealed:.3} | {after:.3} | {steps} |");
        }
    }
    out.push('\n');
}

/// The same trainings with other seeds.
fn repetitions(out: &mut String, report: &Report) {
    if report.draws.is_empty() {
        return;
    }
    out.push_str(
        "## Trained again\n\nThe same, with other orders of documents (and another seed of everything random). Mean, and from the \
         least to the most.\n\n| variant | trainings | single-hop | two-hop | hallucination |\n| --- | --- | --- | --- | --- |\n",
    );
    for draws in &report.draws {
        let title = report.variants.iter().find(|variant| variant.id == draws.id).map_or("", |variant| &variant.title);
        let cell = |which: usize| -> String {
            let values: Vec<f64> = draws.metrics.iter().filter_map(|metrics| metrics[which]).collect();
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if values.is_empty() { "n/a".into() } else { format!("{mean:.3} ({low:.3} to {high:.3})") }
        };
        let _ = writeln!(out, "| {title} | {} | {} | {} | {} |", draws.metrics.len(), cell(0), cell(1), cell(2));
    }
    out.push('\n');
}

fn efficiency(out: &mut String, report: &Report) {
    out.push_str(
        "## Fig. 6: HRE and ARE\n\nHarmonic means of hallucination (HRE) or accuracy (ARE, the mean of single- and two-hop), bytes \
         and energy a query, each normalised over the rows. The paper's \"max normalisation\" can be read as min(x)/x or as \
         1 − x/max(x), which gives 0 to the worst row of any column: both are here.\n\n\
         ![HRE and ARE](ecld-fig6.svg)\n\n\
         | variant | HRE, min(x)/x | ARE, min(x)/x | HRE, 1 − x/max(x) | ARE, 1 − x/max(x) |\n| --- | --- | --- | --- | --- |\n",
    );
    for Variant { title, efficiency: [[hre, are], [hre_most, are_most]], .. } in &report.variants {
        let _ = writeln!(out, "| {title} | {hre:.3} | {are:.3} | {hre_most:.3} | {are_most:.3} |");
    }
    out.push('\n');
}

fn papers(out: &mut String) {
    out.push_str(
        "## The paper's Table I, as printed\n\n| backbone | method | hallucination | accuracy % | MB | Wh |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for (backbone, method, wrong, right, size, energy) in paper::TABLE {
        let _ = writeln!(out, "| {backbone} | {method} | {wrong:.2} | {right:.2} | {size:.2} | {energy:.2} |");
    }
    let _ = writeln!(out, "\n{}", paper::WHAT);
}
