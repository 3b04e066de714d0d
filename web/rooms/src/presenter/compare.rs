//! Live A/B: ways to decide in turn, and by how much they differ.

use client::protocol::rooms::down::{Arm, Interval};
use client::protocol::rooms::settings::{CompareRequest, TURN_SLOTS};
use client::protocol::rooms::up::Command;
use client::protocol::world::Decider;
use leptos::prelude::*;
use web::format;

use super::ctx::Ctx;
use super::words;

/// What may be compared with the policy.
const OTHERS: [Decider; 4] = [Decider::AlwaysLocal, Decider::AlwaysOffload, Decider::ClosedForm, Decider::Oracle];

/// The comparison.
#[component]
pub fn Compare() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let chosen = RwSignal::new(vec![Decider::AlwaysLocal, Decider::AlwaysOffload]);
    let turn = RwSignal::new(5u32);
    let running = Memo::new(move |_| ctx.state.with(|s| s.comparison.as_ref().is_some_and(|c| c.running)));
    let start = move |_| {
        let deciders = std::iter::once(Decider::Policy).chain(chosen.get_untracked()).collect();
        ctx.command(Command::Compare(CompareRequest { deciders, turn_slots: turn.get_untracked() }));
    };
    let summary = move || {
        ctx.state.with(|s| {
            s.comparison.as_ref().map(|c| {
                let state = if c.running { "runs" } else { "is over" };
                format!("It {state}: {} slots each in turn, {} whole turns", c.request.turn_slots, c.cycles)
            })
        })
    };
    view! {
        <section class="card" aria-label="Comparison">
            <div class="card-head">
                <h2>"Policy against"</h2>
                <label class="turns">
                    <input
                        type="number"
                        min="1"
                        max=TURN_SLOTS.to_string()
                        data-testid="turn-slots"
                        prop:value=move || turn.get().to_string()
                        on:change:target=move |event| turn.set(event.target().value().parse().unwrap_or(5).clamp(1, TURN_SLOTS))
                    />
                    " slots each"
                </label>
                <button class="primary" data-testid="compare" hidden=move || running.get() disabled=move || chosen.with(Vec::is_empty) on:click=start>"Start"</button>
                <button data-testid="end-compare" hidden=move || !running.get() on:click=move |_| ctx.command(Command::EndCompare)>"Stop"</button>
            </div>
            <div class="checks">
                {OTHERS
                    .map(|other| view! {
                        <label class="check">
                            <input
                                type="checkbox"
                                prop:checked=move || chosen.with(|c| c.contains(&other))
                                on:change:target=move |event| {
                                    let wanted = event.target().checked();
                                    chosen.update(|chosen| {
                                        chosen.retain(|known| *known != other);
                                        if wanted {
                                            chosen.push(other);
                                        }
                                    });
                                }
                            />
                            {words::decider(other)}
                        </label>
                    })
                    .collect_view()}
            </div>
            <div hidden=move || summary().is_none()>
                <table class="arms" data-testid="arms">
                    <thead><tr><th></th><th>"latency"</th><th>"less the policy’s"</th><th>"reward"</th></tr></thead>
                    <tbody>
                        {move || ctx.state.with(|s| {
                            s.comparison.as_ref().map(|c| c.arms.iter().map(arm).collect_view())
                        })}
                    </tbody>
                </table>
                <p class="hint">{summary}". Differences with their 95 % intervals."</p>
            </div>
        </section>
    }
}

fn arm(arm: &Arm) -> impl IntoView + use<> {
    let less = arm.latency_less_s.as_ref().map(interval);
    // An interval that holds no zero is a difference.
    let sure = arm.latency_less_s.is_some_and(|less| less.low > 0.0 || less.high < 0.0);
    view! {
        <tr>
            <th>{words::decider(arm.decider)}</th>
            <td class="num">{format::or_na(arm.latency_s, format::seconds)}</td>
            <td class="num" class:sure=sure>{less.unwrap_or_default()}</td>
            <td class="num">{format::or_na(arm.reward, |reward| format!("{reward:.2}").replace('-', "−"))}</td>
        </tr>
    }
}

fn interval(less: &Interval) -> String {
    let sign = |value: f64| format!("{:+.0}", value * 1e3).replace('-', "−");
    format!("{} ms [{}, {}]", sign(less.mean), sign(less.low), sign(less.high))
}
