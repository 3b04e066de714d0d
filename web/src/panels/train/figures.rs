//! The paper's control figures, from our own runs: what `tandem figures` wrote into the reports.

use leptos::prelude::*;

use crate::app::Panel;

/// Name of the files, and what is drawn.
const FIGURES: [(&str, &str); 7] = [
    ("fig8", "Fig. 8: reward over episodes, every algorithm as printed"),
    ("fig8-tuned", "Reward over episodes, tuned"),
    ("fig9a", "Fig. 9a: latency over the number of users"),
    ("fig9b", "Fig. 9b: reward over the task size"),
    ("fig10", "Fig. 10: accuracy and hallucination rate"),
    ("fig8-backlog-k2", "Reward over episodes where the server’s queue carries over"),
    ("fig8-delayed-k2", "Reward over episodes where the channel is seen a slot late"),
];
const REPORT: &str = "reports/control.md";

/// The panel.
#[component]
pub fn Figures() -> impl IntoView {
    let figures = FIGURES.map(|(name, what)| {
        let picture = || format!("reports/{name}.svg");
        view! {
            <li>
                <figure>
                    <a href=picture() target="_blank" rel="noopener">
                        <img src=picture() alt=what loading="lazy" width="760" height="400" />
                    </a>
                    <figcaption>{what}" · "<a href=format!("reports/{name}.json") target="_blank" rel="noopener">"data"</a></figcaption>
                </figure>
            </li>
        }
    });
    view! {
        <Panel id="figures" title="The paper’s figures, reproduced" aside=move || view! {
            <a class="quiet" href=REPORT target="_blank" rel="noopener">"Claim by claim"</a>
        }>
            <ul class="figures">{figures.collect_view()}</ul>
        </Panel>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_in_the_reports() {
        let public = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../public");
        let pictures = FIGURES.iter().flat_map(|(name, _)| ["svg", "json"].map(|end| format!("reports/{name}.{end}")));
        for file in pictures.chain([REPORT.to_owned()]) {
            assert!(public.join(&file).is_file(), "{file}");
        }
    }
}
