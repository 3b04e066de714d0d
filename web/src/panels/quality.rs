//! Accuracy and hallucination against their limits, energy against its budget.

use leptos::prelude::*;

use crate::ctx::ctx;
use crate::format::{self, or_na};
use crate::geometry::along;
use crate::panel::Panel;

/// One quantity and its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gauge {
    modelled: f64,
    limit: f64,
    /// Whether the limit is a floor.
    floor: bool,
}

impl Gauge {
    fn met(self) -> bool {
        if self.floor { self.modelled >= self.limit } else { self.modelled <= self.limit }
    }
}

/// The panel.
#[component]
pub fn Quality() -> impl IntoView {
    let ctx = ctx();
    let own = Memo::new(move |_| {
        ctx.state.with(|s| {
            let view = s.view.as_ref()?;
            let own = view.devices.first()?.outcome;
            let accuracy = Gauge { modelled: own.accuracy, limit: view.accuracy_min, floor: true };
            let hallucination = Gauge { modelled: own.hallucination, limit: view.hallucination_max, floor: false };
            let energy = Gauge { modelled: own.local_j + own.uplink_j, limit: view.energy_max_j, floor: false };
            Some([accuracy, hallucination, energy])
        })
    });
    let measured = Memo::new(move |_| ctx.with_run(|r| r.and_then(|r| r.compared)));
    let gauge = move |index: usize| Signal::derive(move || own.get().and_then(|g| g.get(index).copied()));
    view! {
        <Panel id="quality" title="Quality and energy">
            <GaugeRow name="Accuracy" gauge=gauge(0) show=format::ratio
                measured=Signal::derive(move || Some(or_na(measured.get().map(|m| m.accuracy), format::ratio))) />
            <GaugeRow name="Hallucination" gauge=gauge(1) show=format::ratio
                measured=Signal::derive(move || Some(or_na(measured.get().map(|m| m.hallucination), format::ratio))) />
            <GaugeRow name="Energy" gauge=gauge(2) show=format::joules measured=Signal::derive(|| None::<String>) />
            <p class="hint">
                "Modelled: this device in this slot (eq. 28). Measured: the last answer against the full model’s own, by the "
                "cosine of their contextual embeddings (eq. 26–27)."
            </p>
        </Panel>
    }
}

/// A bar with a mark at the limit.
#[component]
fn GaugeRow(
    name: &'static str,
    #[prop(into)] gauge: Signal<Option<Gauge>>,
    show: fn(f64) -> String,
    #[prop(into)] measured: Signal<Option<String>>,
) -> impl IntoView {
    // Shares end at 1; a budget at twice its limit, so that its mark stands in the middle.
    let end = move |g: Gauge| if g.limit <= 1.0 { 1.0 } else { 2.0 * g.limit };
    let met = move || gauge.get().map(Gauge::met);
    view! {
        <div class="gauge">
            <p class="gauge-head">
                <span>{name}</span>
                <strong class="num">{move || or_na(gauge.get().map(|g| g.modelled), show)}</strong>
                <span class="verdict" class:good=move || met() == Some(true) class:bad=move || met() == Some(false)>
                    {move || gauge.get().map(|g| {
                        let word = match (g.floor, g.met()) {
                            (true, true) => "at least",
                            (true, false) => "under",
                            (false, true) => "at most",
                            (false, false) => "over",
                        };
                        format!("{word} {}", show(g.limit))
                    })}
                </span>
                <span class="gauge-measured num">{move || measured.get().map(|m| format!("measured {m}"))}</span>
            </p>
            <div class="gauge-bar" aria-hidden="true">
                <span class="gauge-fill" style:width=move || format!("{:.1}%", gauge.get().map_or(0.0, |g| along(g.modelled, end(g))))></span>
                <span class="gauge-limit" hidden=move || gauge.get().is_none() style:left=move || format!("{:.1}%", gauge.get().map_or(0.0, |g| along(g.limit, end(g))))></span>
            </div>
        </div>
    }
}
