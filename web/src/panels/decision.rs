//! α and p of the present slot, beside what the others would have done with it.

use client::protocol::worker::{SlotRecord, Tier};
use client::protocol::world::{Comparison, Decider, PolicyBackend};
use leptos::prelude::*;

use crate::ctx::{Ctx, ctx};
use crate::format::{self, or_na};
use crate::geometry::along;
use crate::panel::Panel;
use crate::url::wire_name;

/// The deciders with their names, in the order of the table and of the list.
pub const DECIDERS: [(Decider, &str); 7] = [
    (Decider::Policy, "Trained policy"),
    (Decider::Oracle, "Optimum (search)"),
    (Decider::ClosedForm, "Closed form"),
    (Decider::AlwaysLocal, "Always local"),
    (Decider::AlwaysOffload, "Always offload"),
    (Decider::Random, "Random"),
    (Decider::Manual, "By hand"),
];

/// Name of a decider.
pub fn name(decider: Decider) -> &'static str {
    DECIDERS.iter().find(|(d, _)| *d == decider).map_or("", |(_, name)| name)
}

/// α and power of this device, highest power.
fn own(ctx: Ctx) -> Option<(f64, f64, f64)> {
    ctx.state.with(|s| {
        let view = s.view.as_ref()?;
        let outcome = view.devices.first()?.outcome;
        Some((outcome.alpha, outcome.power_w, view.power_max_w))
    })
}

/// The share of the last answer, planned and done, and what changing hands cost.
fn done(record: &SlotRecord) -> String {
    let share = or_na(record.done_alpha, format::ratio);
    let (planned, times) = (format::ratio(record.alpha), format::count(record.handovers, "handover"));
    let waited = format::seconds(record.handover_s);
    format!("Last answer: α = {planned} planned, {share} of all tokens done; {times} took {waited}.")
}

/// The panel.
#[component]
pub fn Decision() -> impl IntoView {
    let ctx = ctx();
    let decider = Memo::new(move |_| ctx.state.with(|s| s.view.as_ref().map(|v| v.decider)));
    view! {
        <Panel id="decision" title="The decision" aside=move || view! {
            <span class="muted">{move || decider.get().map(|d| match d {
                Decider::Manual => "by hand".to_owned(),
                other => format!("by: {}", name(other).to_lowercase()),
            })}</span>
        }>
            <div class="dials">
                <div class="dial">
                    <p class="dial-value num" data-testid="decision-alpha">{move || or_na(own(ctx).map(|o| o.0), format::ratio)}</p>
                    <p class="dial-name"><var>"α"</var> " of the task goes to the server"</p>
                    <div class="split-bar" class:unknown=move || own(ctx).is_none() aria-hidden="true">
                        <div class="split-server" style:width=move || format!("{:.1}%", own(ctx).map_or(0.0, |o| along(o.0, 1.0)))></div>
                    </div>
                </div>
                <div class="dial">
                    <p class="dial-value num" data-testid="decision-power">{move || or_na(own(ctx).map(|o| o.1), format::watts)}</p>
                    <p class="dial-name">
                        <var>"p"</var> {move || format!(" of {}", or_na(own(ctx).map(|o| o.2), format::watts))}
                    </p>
                    <div class="power-bar" aria-hidden="true">
                        <div class="power-fill" style:width=move || format!("{:.1}%", own(ctx).map_or(0.0, |o| along(o.1, o.2)))></div>
                    </div>
                </div>
            </div>
            <p class="hint" data-testid="alpha-done">{move || ctx.with_run(|r| r.and_then(|r| r.record.as_ref()).map(done))}</p>
            <Comparisons />
            <Backend />
        </Panel>
    }
}

/// Every way to decide, on this same slot.
#[component]
fn Comparisons() -> impl IntoView {
    let ctx = ctx();
    let rows =
        Memo::new(move |_| ctx.state.with(|s| s.view.as_ref().map(|v| v.comparisons.clone()).unwrap_or_default()));
    let worst = Memo::new(move |_| rows.with(|r| r.iter().map(|c| c.mean_latency_s).fold(0.0, f64::max)));
    let power_max = Memo::new(move |_| ctx.state.with(|s| s.view.as_ref().map_or(0.0, |v| v.power_max_w)));
    let decider = Memo::new(move |_| ctx.state.with(|s| s.view.as_ref().map(|v| v.decider)));
    let row = move |who: Decider| move || rows.with(|r| r.iter().find(|c| c.decider == who).cloned());
    view! {
        <div class="scroll" tabindex="0" role="region" aria-label="Ways to decide on the present slot">
            <table class="compare">
                <caption class="sr-only">"Ways to decide on the present slot, side by side"</caption>
                <thead>
                    <tr>
                        <th scope="col">"Decided by"</th>
                        <th scope="col" title="Offloading ratio of this device"><var>"α"</var></th>
                        <th scope="col" title="Transmit power of this device"><var>"p"</var></th>
                        <th scope="col" title="Mean latency over all devices (eq. 29)">"Latency"</th>
                        <th scope="col" title="How far the quality limits are missed (eq. 48)">"Penalty"</th>
                        <th scope="col" title="Reward (eq. 47)">"Reward"</th>
                    </tr>
                </thead>
                <tbody>
                    <For
                        each=move || rows.with(|r| r.iter().map(|c| c.decider).collect::<Vec<_>>())
                        key=|d| *d
                        let(who)
                    >
                        <CompareRow who comparison=Signal::derive(row(who)) worst power_max active=Signal::derive(move || decider.get() == Some(who)) />
                    </For>
                </tbody>
            </table>
        </div>
        <p class="hint" hidden=move || rows.with(|r| !r.is_empty())>"The comparison needs the engine, which is not running."</p>
    }
}

/// One way to decide.
#[component]
fn CompareRow(
    who: Decider,
    #[prop(into)] comparison: Signal<Option<Comparison>>,
    worst: Memo<f64>,
    power_max: Memo<f64>,
    #[prop(into)] active: Signal<bool>,
) -> impl IntoView {
    let cell = move |read: fn(&Comparison) -> f64, show: fn(f64) -> String| {
        move || or_na(comparison.with(|c| c.as_ref().map(read)), show)
    };
    let bar = move |read: fn(&Comparison) -> f64, end: fn(f64, f64) -> f64| {
        move || {
            let value = comparison.with(|c| c.as_ref().map(read)).unwrap_or(0.0);
            format!("{:.1}%", along(value, end(power_max.get(), worst.get())))
        }
    };
    view! {
        <tr data-testid=format!("compare-row-{}", wire_name(who)) class:active=move || active.get() aria-current=move || active.get().then_some("true")>
            <th scope="row">{name(who)}</th>
            <td class="bar-cell">
                <span class="num">{cell(|c| c.own.alpha, format::ratio)}</span>
                <span class="bar server" aria-hidden="true"><span style:width=bar(|c| c.own.alpha, |_, _| 1.0)></span></span>
            </td>
            <td class="bar-cell">
                <span class="num">{cell(|c| c.own.power_w, format::watts)}</span>
                <span class="bar" aria-hidden="true"><span style:width=bar(|c| c.own.power_w, |power, _| power)></span></span>
            </td>
            <td class="bar-cell">
                <span class="num">{cell(|c| c.mean_latency_s, format::seconds)}</span>
                <span class="bar" aria-hidden="true"><span style:width=bar(|c| c.mean_latency_s, |_, worst| worst)></span></span>
            </td>
            <td class="num">{cell(|c| c.penalty, format::ratio)}</td>
            <td class="num">{cell(|c| c.reward, format::ratio)}</td>
        </tr>
    }
}

/// Which code decided, how fast, and the switch to the other.
#[component]
fn Backend() -> impl IntoView {
    let ctx = ctx();
    let backend = Memo::new(move |_| {
        ctx.state.with(|s| s.view.as_ref().and_then(|v| v.decision.as_ref().map(|d| d.backend)).or(s.backend))
    });
    let text = move || {
        ctx.state.with(|s| match s.view.as_ref().map(|v| (v.decider, v.decision.as_ref())) {
            None => "No decision yet.".to_owned(),
            Some((_, Some(d))) => {
                let who = match d.backend {
                    PolicyBackend::Flex => "burn flex on the CPU",
                    PolicyBackend::BurnWgpu => "burn-wgpu on WebGPU",
                };
                format!("{who} decided in {} with policy “{}”.", format::millis(d.millis), d.policy)
            }
            Some((decider, None)) => format!("{} decided this slot.", name(decider)),
        })
    };
    // A policy from a training run, where one stands in for the shipped one.
    let chosen = Memo::new(move |_| {
        let users = ctx.settings.with(|s| s.world.users);
        ctx.state.with(|s| s.policies.get(&users).map(|name| (users, name.clone())))
    });
    // The switch follows the finger at once, and the worker's word when it comes.
    let wanted = RwSignal::new(false);
    let told = Memo::new(move |_| ctx.state.with(|s| (s.backend, s.backend_told)));
    Effect::new(move |_| wanted.set(told.get().0 == Some(PolicyBackend::BurnWgpu)));
    let gpu_possible = move || {
        ctx.gpu_policy_there.get() && ctx.state.with(|s| s.tier.as_ref().is_some_and(|t| t.tier == Tier::WebGpu))
    };
    view! {
        <div class="backend">
            <p class="hint" data-testid="policy-backend" data-backend=move || backend.get().map(wire_name)>{text}</p>
            <p class="hint" data-testid="policy-chosen" hidden=move || chosen.with(Option::is_none)>
                {move || chosen.get().map(|(users, name)| format!("“{name}” stands in for the shipped policy at K = {users}. "))}
                <button
                    class="textual"
                    on:click=move |_| {
                        if let Some((users, _)) = chosen.get_untracked() {
                            ctx.send(client::protocol::worker::Command::DropPolicy { users });
                        }
                    }
                >
                    "Shipped policy again"
                </button>
            </p>
            <label class="switch">
                <input
                    type="checkbox"
                    role="switch"
                    data-testid="policy-backend-switch"
                    disabled=move || !gpu_possible()
                    prop:checked=move || wanted.get()
                    on:change:target=move |event| {
                        wanted.set(event.target().checked());
                        let backend = if wanted.get_untracked() { PolicyBackend::BurnWgpu } else { PolicyBackend::Flex };
                        ctx.send(client::protocol::worker::Command::UsePolicyBackend { backend });
                    }
                />
                <span>"Policy on WebGPU"</span>
            </label>
        </div>
    }
}
