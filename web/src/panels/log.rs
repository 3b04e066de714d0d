//! The log of slots: a row an ask, newest first, with CSV export.

use client::protocol::worker::SlotRecord;
use leptos::prelude::*;

use crate::ctx::ctx;
use crate::format::{self, or_na};
use crate::panel::Panel;
use crate::state::{Kind, LogRow};
use crate::{csv, dom};

const HEADINGS: [(&str, &str); 14] = [
    ("Slot", "Slot number"),
    ("Prompts", "Number of questions"),
    ("X", "Task size"),
    ("α", "Offloading ratio: planned / share of all tokens that the server wrote"),
    ("p", "Transmit power"),
    ("Rate", "Uplink rate (eq. 19)"),
    ("Latency, model", "Eq. 29"),
    ("measured", "From Enter to the last token"),
    ("Energy", "Modelled (eq. 15 + 21)"),
    ("A", "Effective accuracy: modelled / measured (eq. 28)"),
    ("H", "Effective hallucination: modelled / measured (eq. 28)"),
    ("Device", "First token, decode rate"),
    ("Server", "First token, decode rate"),
    ("", "What went differently"),
];

/// The panel.
#[component]
pub fn Log() -> impl IntoView {
    let ctx = ctx();
    let rows = Memo::new(move |_| ctx.state.with(|s| s.log.iter().rev().cloned().collect::<Vec<_>>()));
    let export = move |_| {
        let text = ctx.state.with_untracked(|s| csv::export(&s.log));
        if let Err(error) = dom::download("tandem-log.csv", "text/csv", &text) {
            ctx.notify(Kind::Problem, format!("The file could not be made ({}).", dom::error_text(&error)));
        }
    };
    view! {
        <Panel id="log" title="Log" aside=move || view! {
            <button class="quiet" data-testid="export-csv" disabled=move || rows.with(Vec::is_empty) on:click=export>"Export CSV"</button>
        }>
            <Show
                when=move || !rows.with(Vec::is_empty)
                fallback=|| view! { <p class="empty">"Each answered burst adds a row: what was modelled, what was measured."</p> }
            >
                <div class="scroll tall" tabindex="0" role="region" aria-label="Log of slots">
                    <table class="log">
                        <thead>
                            <tr>{HEADINGS.map(|(name, help)| view! { <th scope="col" title=help>{name}</th> }).collect_view()}</tr>
                        </thead>
                        <tbody>
                            <For each=move || rows.get() key=|row| (row.ask, row.compared.is_some()) let(row)>
                                <tr data-testid="log-row">{cells(&row).map(|text| view! { <td class="num">{text}</td> }).collect_view()}</tr>
                            </For>
                        </tbody>
                    </table>
                </div>
            </Show>
        </Panel>
    }
}

fn side(ttft_s: Option<f64>, rate: Option<f64>, tokens: usize) -> String {
    if tokens == 0 {
        return "—".to_owned();
    }
    format!("{}, {}", or_na(ttft_s, format::seconds), or_na(rate, format::tokens_per_s))
}

fn remarks(record: &SlotRecord) -> String {
    match (record.stopped, record.server_lost) {
        (true, true) => "stopped, server lost",
        (true, false) => "stopped",
        (false, true) => "server lost",
        (false, false) => "",
    }
    .to_owned()
}

fn cells(row: &LogRow) -> [String; 14] {
    let r = &row.record;
    let pair =
        |model: f64, measured: Option<f64>| format!("{} / {}", format::ratio(model), or_na(measured, format::ratio));
    [
        r.slot.to_string(),
        r.prompts.to_string(),
        format::bits(r.size_bits),
        pair(r.alpha, r.done_alpha),
        format::watts(r.power_w),
        format::rate(r.rate_bps),
        format::seconds(r.model_latency_s),
        format::seconds(r.measured_latency_s),
        format::joules(r.model_energy_j),
        pair(r.model_accuracy, row.compared.map(|c| c.accuracy)),
        pair(r.model_hallucination, row.compared.map(|c| c.hallucination)),
        side(r.device_ttft_s, r.device_tokens_per_s, r.device_tokens),
        side(r.server_ttft_s, r.server_tokens_per_s, r.server_tokens),
        remarks(r),
    ]
}
