//! Table I, and the way of a variant into the tab.

use client::protocol::manifest::ModelEntry;
use leptos::prelude::*;
use web::format;

use crate::report::{Interval, Report, Variant, colour};

/// The table.
#[component]
pub(crate) fn Table(report: Report, models: Vec<ModelEntry>) -> impl IntoView {
    let rows =
        report.variants.into_iter().map(|variant| view! { <Row variant models=models.clone() /> }).collect_view();
    view! {
        // It scrolls: the keyboard has to reach it.
        <div class="compact-wide" tabindex="0" role="region" aria-label="Table I, scrolls sideways">
            <table class="compact-table" data-testid="compact-table">
                <thead>
                    <tr>
                        <th scope="col">"Variant"</th>
                        <th scope="col" class="right">"File"</th>
                        <th scope="col" class="right" title="Of the original’s weights in half precision">"of f16"</th>
                        <th scope="col" class="right" title="Eq. 23, held-out wordings">"One fact"</th>
                        <th scope="col" class="right" title="Eq. 23, held-out pairs">"Two facts"</th>
                        <th scope="col" class="right" title="Eq. 24: share of sentences that nothing supports">"Unsupported"</th>
                        <th scope="col" class="right" title="As the report models it">"Energy"</th>
                        <th scope="col" class="right" title="Tokens that it was trained on to heal">"Taught"</th>
                        <th scope="col">"In this tab"</th>
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
        <p class="hint">
            "Brackets hold 95 % intervals. Counted: no file format has that quantiser, so there is no file of it. Whatever can be tried says how large it is before anything is fetched; the conversation in the chat stays."
        </p>
    }
}

#[component]
fn Row(variant: Variant, models: Vec<ModelEntry>) -> impl IntoView {
    let metric = |place: usize| {
        variant.metric(place).map_or_else(
            || view! { <span>{format::NA}</span> }.into_any(),
            |Interval { value, low, high }| {
                view! { {format::ratio(value)}<small>{format!("[{}, {}]", format::ratio(low), format::ratio(high))}</small> }.into_any()
            },
        )
    };
    let swatch = format!("background:var({})", colour(&variant.group));
    let offered = variant.offered(&models).cloned();
    #[expect(clippy::cast_precision_loss, reason = "a count for people")]
    let parameters = format::si(variant.parameters as f64, "");
    let taught = if variant.tokens() > 0.0 { format::si(variant.tokens(), "") } else { "–".to_owned() };
    view! {
        <tr data-testid=format!("compact-row-{}", variant.id)>
            <th scope="row">
                <span class="compact-swatch" style=swatch aria-hidden="true"></span>
                {variant.title.clone()}
                <small>{format!("{} blocks × {} neurons · {parameters} parameters", variant.sizes[0], variant.sizes[1])}</small>
            </th>
            <td class="right">{format::bytes(variant.bytes)}{variant.simulated.then(|| view! { <small>"counted"</small> })}</td>
            <td class="right">{format::percent(variant.of_f16)}</td>
            <td class="right">{metric(0)}</td>
            <td class="right">{metric(1)}</td>
            <td class="right">{metric(2)}</td>
            <td class="right">{format::or_na(variant.joule_per_query, format::joules)}</td>
            <td class="right">{taught}</td>
            <td>{offered.map_or_else(|| view! { <span class="muted">"–"</span> }.into_any(), |entry| view! { <Take entry /> }.into_any())}</td>
        </tr>
    }
}

/// The way into the tab: the page follows its link.
#[component]
pub(crate) fn Take(entry: ModelEntry) -> impl IntoView {
    let id = entry.id.clone();
    let take = move |_| {
        let location = window().location();
        let now = location.hash().unwrap_or_default();
        let _ = location.set_hash(&into_tab(&now, &id));
    };
    view! {
        <button class="quiet compact-take" data-testid=format!("compact-take-{}", entry.id) title="Opens the chat with it; nothing is fetched before you say so" on:click=take>
            {format!("Use it · {}", format::bytes(entry.bytes))}
        </button>
    }
}

/// A link like this one to the chat with another model in the tab.
fn into_tab(fragment: &str, id: &str) -> String {
    let kept = fragment.trim_start_matches('#').split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        !matches!(name, "" | "view" | "model" | "compact" | "chat" | "train")
    });
    let mut pairs = vec!["view=chat".to_owned()];
    pairs.extend(kept.map(str::to_owned));
    pairs.push(format!("model={id}"));
    pairs.join("&")
}
