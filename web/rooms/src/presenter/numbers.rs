//! The room in numbers, and the latency of the last slots.

use client::protocol::rooms::down::RoomNumbers;
use leptos::prelude::*;
use web::format;
use web::geometry::axis_end;

use super::ctx::Ctx;
use super::state::HISTORY;
use super::words;
use crate::draw;

fn rate(value: Option<f64>) -> String {
    format::or_na(value, |rate| if rate < 99.95 { format!("{rate:.1}") } else { format!("{rate:.0}") })
}

/// The column of numbers.
#[component]
pub fn Numbers() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let row = move |id: &'static str, name: &'static str, read: fn(&RoomNumbers) -> String| {
        view! { <div><dt>{name}</dt><dd class="num" data-testid=id>{move || ctx.number(read)}</dd></div> }
    };
    let live = move || !ctx.is_replay();
    view! {
        <section class="numbers card" aria-label="The room in numbers">
            <div class="race">
                <div>
                    <p class="huge num device" data-testid="hall-rate">{move || rate(Some(ctx.number(|r| r.phones_tokens_per_s)))}</p>
                    <p class="muted">"tokens a second, the hall"</p>
                </div>
                <div hidden=move || !live()>
                    <p class="huge num server" data-testid="server-rate">{move || rate(ctx.number(|r| r.server_tokens_per_s))}</p>
                    <p class="muted">"tokens a second, the server"</p>
                </div>
            </div>
            <Latency />
            <dl class="figures">
                {row("median", "Latency, median", |r| format::or_na(r.latency_median_s, format::seconds))}
                {row("p95", "95th percentile", |r| format::or_na(r.latency_p95_s, format::seconds))}
                {row("offloaded", "Offloaded share", |r| format::or_na(r.offloaded, format::percent))}
                {row("energy", "Energy of a slot", |r| format::joules(r.energy_j))}
                {row("accuracy", "Accuracy", |r| format::or_na(r.accuracy, format::ratio))}
                {row("hallucination", "Hallucination", |r| format::or_na(r.hallucination, format::ratio))}
            </dl>
            <h2 class="figures-title" hidden=move || !live()>"Answers, measured"</h2>
            <dl class="figures" hidden=move || !live()>
                {row("answers", "Answers", |r| r.answers.to_string())}
                {row("measured", "Latency, median", |r| format::or_na(r.measured_latency_median_s, format::seconds))}
                {row("measured-accuracy", "Accuracy", |r| format::or_na(r.measured_accuracy, format::ratio))}
                {row("measured-hallucination", "Hallucination", |r| format::or_na(r.measured_hallucination, format::ratio))}
                {row("device-tokens", "Tokens by phones", |r| r.device_tokens.to_string())}
                {row("server-tokens", "Tokens by the server", |r| r.server_tokens.to_string())}
                {row("server-active", "Server answers", |r| r.server_active.to_string())}
                {row("queue", "Server’s queue", |r| r.server_queue.to_string())}
            </dl>
            <p class="hint" data-testid="own-references" hidden=move || !live() || ctx.number(words::own_references).is_none()>
                {move || ctx.number(words::own_references)}
            </p>
        </section>
    }
}

/// Median and 95th percentile over the last slots.
#[component]
fn Latency() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let past = Memo::new(move |_| {
        ctx.state.with(|s| s.past.iter().map(|past| (past.median_s, past.p95_s)).collect::<Vec<_>>())
    });
    let end =
        Memo::new(move |_| past.with(|past| axis_end(past.iter().filter_map(|(_, high)| *high).fold(0.0, f64::max))));
    view! {
        <div class="curve" role="img" aria-label="Latency of the last slots, median and 95th percentile">
            <p class="curve-head"><span>"Modelled latency, last "{HISTORY}" slots"</span><span class="num">{move || format::seconds(end.get())}</span></p>
            <div inner_html=move || past.with(|past| draw::band(past, HISTORY, end.get()))></div>
            <p class="curve-key"><span><i class="line low"></i>"median"</span><span><i class="line high"></i>"95th percentile"</span></p>
        </div>
    }
}
