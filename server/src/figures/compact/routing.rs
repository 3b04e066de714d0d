//! The offloading rows: device and server together.

use std::fmt::Write as _;

use lm::family::Interval;

use super::Report;

/// The part of the report about them.
pub fn markdown(out: &mut String, report: &Report) {
    if report.routing.is_empty() {
        return;
    }
    out.push_str(
        "## Device and server together\n\nThe compact model answers on the device, the original what is sent to the server. By the \
         *known* number of hops, as the second paper does, needs a label that nobody has when a question comes: an oracle. A \
         *predictor* is a logistic regression on what the device knows once it has read the question: entropy of its first \
         token, that token's probability, its margin to the second, the question's length. The device reads the question \
         anyway, so that costs nothing and needs no second model, and it says what *this* device knows, where an encoder would \
         know the question's form. Predictors are fitted on held-out questions that are not among those asked here: to tell two \
         hops from one, or to tell what the device gets wrong. \"Over random\" is accuracy minus what is to be expected when the same \
         share is sent at random. Articles are sent by the predictor as it reads their opening; an article has no hops, so the \
         oracle's row sends the same share of them at random.\n\n",
    );
    for routing in &report.routing {
        let title = report.variants.iter().find(|variant| variant.id == routing.device).map_or("", |v| &v.title);
        let _ = writeln!(
            out,
            "On the device: {title}, {} bytes.\n\n| who answers | sent to the server | accuracy | single-hop | two-hop | \
             hallucination | over random |\n| --- | --- | --- | --- | --- | --- | --- |",
            routing.device_bytes
        );
        let plain = |value: Option<&Interval>| value.map_or_else(|| "n/a".into(), |i| format!("{:.3}", i.value));
        let full = |value: Option<&Interval>, sign: bool| match value {
            None => "n/a".into(),
            Some(i) if sign => format!("{:+.3} [{:+.3}, {:+.3}]", i.value, i.low, i.high),
            Some(i) => format!("{:.3} [{:.3}, {:.3}]", i.value, i.low, i.high),
        };
        for route in &routing.routes {
            let oracle = if route.oracle { " (oracle)" } else { "" };
            let mixed = route.offloaded > 0.0 && route.offloaded < 1.0;
            let over = if mixed { full(route.over_random.as_ref(), true) } else { "–".into() };
            let [all, single, two] = route.accuracy.each_ref().map(Option::as_ref);
            let _ = writeln!(
                out,
                "| {}{oracle} | {:.1} % | {} | {} | {} | {} | {over} |",
                route.name,
                100.0 * route.offloaded,
                full(all, false),
                plain(single),
                plain(two),
                plain(route.hallucination.as_ref()),
            );
        }
        let told = routing.predictors.iter().map(|predictor| {
            let ranked = predictor.ranked_right.map_or_else(|| "n/a".into(), |share| format!("{share:.3}"));
            format!("\"{}\" {ranked} ({} questions to fit on)", predictor.of, predictor.questions)
        });
        let told: Vec<String> = told.collect();
        let _ = writeln!(
            out,
            "\nPairs of questions that predictors rank right (½ would be chance): {}.\n",
            told.join(", ")
        );
    }
}
