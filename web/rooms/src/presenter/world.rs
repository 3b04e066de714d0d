//! What the room runs on: who decides, sliders, the task mix, simulated phones.

use client::protocol::rooms::up::Command;
use leptos::prelude::*;
use mec::settings::{self, Setting};
use web::{format, sliders};

use super::ctx::Ctx;
use super::words;

/// The simulator's settings that have a slider.
const SLIDERS: [&str; 3] = ["bandwidth_hz", "noise_dbm", "server_hz"];
/// Task mixes: name, smallest and largest task in Mbit; the first is the simulator's own.
const MIXES: [(&str, f64, f64); 4] =
    [("mixed", 1.0, 2.5), ("small", 0.5, 0.5), ("medium", 1.5, 1.5), ("large", 4.0, 4.0)];
/// Slot periods that a slider reaches, seconds.
const PERIODS: [f64; 5] = [0.2, 0.5, 1.0, 2.0, 5.0];

fn value(ctx: Ctx, setting: &'static Setting) -> f64 {
    ctx.state.with(|s| s.settings.values.get(setting.key).copied().unwrap_or(setting.default))
}

/// The controls.
#[component]
pub fn World() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let known: Vec<&'static Setting> = SLIDERS.iter().filter_map(|key| settings::find(key).ok()).collect();
    let decider = Memo::new(move |_| ctx.state.with(|s| s.settings.decider));
    let period = Memo::new(move |_| ctx.state.with(|s| s.settings.period_s));
    let mix = Memo::new(move |_| {
        ctx.state.with(|s| {
            let of = |key: &str| {
                let default = settings::find(key).map_or(0.0, |setting| setting.default);
                s.settings.values.get(key).copied().unwrap_or(default)
            };
            let (least, most) = (of("size_min_mbit"), of("size_max_mbit"));
            MIXES.iter().position(|(_, a, b)| (a - least).abs() < 1e-9 && (b - most).abs() < 1e-9)
        })
    });
    let set_mix = move |name: &str| {
        if let Some((_, least, most)) = MIXES.iter().find(|(known, ..)| *known == name) {
            ctx.set(|s| {
                s.values.insert("size_min_mbit".to_owned(), *least);
                s.values.insert("size_max_mbit".to_owned(), *most);
            });
        }
    };
    view! {
        <section class="card world" aria-label="What the room runs on">
            <div class="line-fields">
                <label class="field">
                    "Who decides"
                    <select data-testid="decider" on:change:target=move |event| {
                        let name = event.target().value();
                        if let Some(chosen) = words::DECIDERS.into_iter().find(|decider| words::decider(*decider) == name) {
                            ctx.set(|s| s.decider = chosen);
                        }
                    }>
                        {words::DECIDERS
                            .map(|one| view! { <option value=words::decider(one) prop:selected=move || decider.get() == one>{words::decider(one)}</option> })
                            .collect_view()}
                    </select>
                </label>
                <label class="field">
                    "Tasks"
                    <select data-testid="mix" on:change:target=move |event| set_mix(&event.target().value())>
                        {MIXES
                            .iter()
                            .enumerate()
                            .map(|(at, (name, ..))| view! { <option value=*name prop:selected=move || mix.get() == Some(at)>{*name}</option> })
                            .collect_view()}
                    </select>
                </label>
                <label class="field">
                    "A slot every"
                    <select data-testid="slot-period" on:change:target=move |event| {
                        if let Ok(period) = event.target().value().parse() {
                            ctx.set(|s| s.period_s = period);
                        }
                    }>
                        {PERIODS
                            .map(|s| view! { <option value=s.to_string() prop:selected=move || (period.get() - s).abs() < 1e-9>{format!("{s} s")}</option> })
                            .collect_view()}
                    </select>
                </label>
            </div>
            {known.into_iter().map(|setting| view! { <Slider setting /> }).collect_view()}
            <Quality />
            <Rehearsal />
        </section>
    }
}

#[component]
fn Slider(setting: &'static Setting) -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let (min, max, step) = sliders::range(setting);
    view! {
        <label class="slider" title=setting.help>
            <span>{setting.label}</span>
            <output>{move || sliders::text(setting, value(ctx, setting))}</output>
            <input
                type="range"
                min=min.to_string()
                max=max.to_string()
                step=step.to_string()
                data-testid=format!("slider-{}", setting.key)
                prop:value=move || sliders::position(setting, value(ctx, setting)).to_string()
                on:input:target=move |event| {
                    if let Ok(place) = event.target().value().parse() {
                        let value = sliders::value_at(setting, place);
                        ctx.set(|s| {
                            s.values.insert(setting.key.to_owned(), value);
                        });
                    }
                }
            />
        </label>
    }
}

/// Whether phones measure how good their answers are, and the threshold for it.
#[component]
fn Quality() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let measure = Memo::new(move |_| ctx.state.with(|s| s.settings.measure));
    let gamma = Memo::new(move |_| ctx.state.with(|s| s.settings.gamma));
    view! {
        <label class="check" title="Each phone asks the full model for its own answer afterwards and compares (eq. 26–28): twice the work for the server">
            <input
                type="checkbox" data-testid="measure"
                prop:checked=move || measure.get()
                on:change:target=move |event| {
                    let on = event.target().checked();
                    ctx.set(|s| s.measure = on);
                }
            />
            <span>"Phones measure quality"</span>
        </label>
        <label class="slider" hidden=move || !measure.get() title="Tokens less alike than this count as hallucinated (eq. 27)">
            <span>"Threshold γ"</span>
            <output>{move || format::ratio(gamma.get())}</output>
            <input
                type="range" min="0" max="1" step="0.05" data-testid="slider-gamma"
                prop:value=move || gamma.get().to_string()
                on:input:target=move |event| {
                    if let Ok(gamma) = event.target().value().parse() {
                        ctx.set(|s| s.gamma = gamma);
                    }
                }
            />
        </label>
    }
}

/// Simulated phones.
#[component]
fn Rehearsal() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let count = RwSignal::new(12u32);
    let simulated = move || ctx.state.with(|s| s.members.values().filter(|member| member.simulated).count());
    view! {
        <div class="rehearsal">
            <span>"Rehearsal"</span>
            <input
                type="number" min="1" max="500" aria-label="Simulated phones" data-testid="rehearse-count"
                prop:value=move || count.get().to_string()
                on:change:target=move |event| count.set(event.target().value().parse().unwrap_or(12).clamp(1, 500))
            />
            <button data-testid="rehearse" on:click=move |_| ctx.command(Command::Rehearse { phones: count.get_untracked() })>"simulated phones"</button>
            <button data-testid="rehearse-none" hidden=move || simulated() == 0 on:click=move |_| ctx.command(Command::Rehearse { phones: 0 })>"Send them home"</button>
        </div>
    }
}
