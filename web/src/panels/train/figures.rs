//! The paper's control figures, from our own runs: what `tandem figures` wrote into the reports.

use leptos::prelude::*;

use crate::panel::Panel;
use crate::training::{FIGURES, REPORT};

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
        <Panel id="figures" title="The paper’s figures" aside=move || view! {
            <a href=REPORT target="_blank" rel="noopener">"Claim by claim"</a>
        }>
            <ul class="figures">{figures.collect_view()}</ul>
        </Panel>
    }
}
