//! The world's controls: who decides, how many devices, the seed, the simulator's settings, and how answers are sampled.

use client::cell::MAX_DEVICES;
use client::protocol::sampling;
use client::protocol::worker::Command;
use client::protocol::world::{Decider, QosSource};
use leptos::prelude::*;
use mec::settings::{Group, SETTINGS, Setting};

use crate::ctx::ctx;
use crate::panel::Panel;
use crate::panels::decision::DECIDERS;
use crate::settings::{MANUAL, PageSetting, Settings};
use crate::state::Kind;
use crate::url::{from_name, wire_name};
use crate::{dom, sliders};

/// The panel.
#[component]
pub fn Controls() -> impl IntoView {
    let ctx = ctx();
    let changed = move || ctx.settings.with(|s| !s.world.values.is_empty() || s.world.size_mbit.is_some());
    view! {
        <Panel id="controls" title="The world" aside=move || view! {
            <button
                class="quiet"
                hidden=move || !changed()
                on:click=move |_| ctx.set(|s| {
                    s.world.values.clear();
                    (s.world.size_mbit, s.world.calibrated) = (None, None);
                })
            >
                "All defaults"
            </button>
        }>
            <WorldRow />
            <ByHand />
            <div class="groups">
                {sliders::GROUPS.map(|(group, title)| view! { <SettingGroup group title /> }).collect_view()}
            </div>
            <Sampling />
        </Panel>
    }
}

/// Decider, number of devices, seed.
#[component]
fn WorldRow() -> impl IntoView {
    let ctx = ctx();
    let users = move || ctx.settings.with(|s| s.world.users);
    // A policy from a training run may be for more.
    let most = Memo::new(move |_| {
        let trained = ctx.state.with(|s| s.policies.keys().last().copied());
        MAX_DEVICES.max(trained.unwrap_or(0)).max(users())
    });
    let step = move |by: isize| {
        ctx.set(|s| s.world.users = s.world.users.saturating_add_signed(by).clamp(1, most.get_untracked()));
    };
    let set_seed = move |text: String| match text.trim().parse::<u64>() {
        Ok(seed) => ctx.set(|s| s.world.seed = seed),
        Err(_) => {
            ctx.notify(Kind::Problem, "A seed is a whole number, such as 7.");
            ctx.settings.notify();
        }
    };
    view! {
        <div class="world-row">
            <label class="field">
                <span>"Decided by"</span>
                <select
                    data-testid="decider"
                    on:change:target=move |event| {
                        if let Some(decider) = from_name::<Decider>(&event.target().value()) {
                            ctx.set(|s| s.world.decider = decider);
                        }
                    }
                >
                    {DECIDERS
                        .map(|(decider, label)| view! {
                            <option value=wire_name(decider) prop:selected=move || ctx.settings.with(|s| s.world.decider == decider)>{label}</option>
                        })
                        .collect_view()}
                </select>
            </label>
            <div class="field">
                <label for="users">"Devices "<var>"K"</var></label>
                <div class="stepper">
                    <button aria-label="One device fewer" disabled=move || { users() <= 1 } on:click=move |_| step(-1)>"−"</button>
                    <select
                        id="users"
                        data-testid="users"
                        on:change:target=move |event| {
                            if let Ok(users) = event.target().value().parse() {
                                ctx.set(|s| s.world.users = users);
                            }
                        }
                    >
                        {move || (1..=most.get())
                            .map(|k| view! { <option value=k.to_string() prop:selected=move || users() == k>{k}</option> })
                            .collect_view()}
                    </select>
                    <button aria-label="One device more" disabled=move || { users() >= most.get() } on:click=move |_| step(1)>"+"</button>
                </div>
            </div>
            <div class="field">
                <label for="seed">"Seed"</label>
                <div class="joined">
                    <input
                        id="seed"
                        class="num"
                        type="text"
                        inputmode="numeric"
                        autocomplete="off"
                        data-testid="seed"
                        prop:value=move || ctx.settings.with(|s| s.world.seed.to_string())
                        on:change:target=move |event| set_seed(event.target().value())
                    />
                    <button on:click=move |_| ctx.set(|s| s.world.seed = dom::random_seed())>"New"</button>
                    <button data-testid="reset" title="Start again from this seed" on:click=move |_| ctx.send(Command::ResetWorld)>"Reset"</button>
                </div>
            </div>
            <label class="field">
                <span>"Quality of the models"</span>
                <select on:change:target=move |event| {
                    if let Some(qos) = from_name::<QosSource>(&event.target().value()) {
                        ctx.set(|s| s.world.qos = qos);
                    }
                }>
                    {[(QosSource::Paper, "The paper’s Table I"), (QosSource::Shipped, "Measured, these models")]
                        .map(|(qos, label)| view! {
                            <option value=wire_name(qos) prop:selected=move || ctx.settings.with(|s| s.world.qos == qos)>{label}</option>
                        })
                        .collect_view()}
                </select>
            </label>
            <label class="switch" title="Hold the uplink back to the simulated rate, so that a bad channel is felt">
                <input
                    type="checkbox"
                    role="switch"
                    data-testid="pacing"
                    prop:checked=move || ctx.settings.with(|s| s.options.pacing)
                    on:change:target=move |event| {
                        let on = event.target().checked();
                        ctx.set(|s| s.options.pacing = on);
                    }
                />
                <span>"Feel the channel"</span>
            </label>
        </div>
    }
}

/// α and p by hand, when that is what decides.
#[component]
fn ByHand() -> impl IntoView {
    let ctx = ctx();
    view! {
        <Show when=move || ctx.settings.with(|s| s.world.decider == Decider::Manual)>
            <div class="by-hand">
                {MANUAL.iter().map(|own| view! { <OwnSlider own /> }).collect_view()}
            </div>
        </Show>
    }
}

/// A slider for a number of the page's own.
#[component]
fn OwnSlider(own: &'static PageSetting) -> impl IntoView {
    let ctx = ctx();
    let value = move || ctx.settings.with(own.read);
    view! {
        <label class="slider">
            <span class="slider-head"><span>{own.label}</span><output class="num">{move || format!("{:.2}", value())}</output></span>
            <input
                type="range"
                min=own.min.to_string()
                max=own.max.to_string()
                step=own.step.to_string()
                data-testid=format!("slider-manual-{}", own.url)
                prop:value=move || value().to_string()
                on:input:target=move |event| {
                    if let Ok(value) = event.target().value().parse::<f64>() {
                        ctx.set(|s| (own.write)(s, value.clamp(own.min, own.max)));
                    }
                }
            />
        </label>
    }
}

/// Settings of one group: the important ones, and the rest on demand.
#[component]
fn SettingGroup(group: Group, title: &'static str) -> impl IntoView {
    let rest: Vec<_> = sliders::of_group(group, false).collect();
    view! {
        <details class="group" open=dom::media("(min-width: 720px)")>
            <summary><h3>{title}</h3></summary>
            {(group == Group::Task).then(|| view! { <TaskSize /> })}
            {sliders::of_group(group, true).map(|setting| view! { <Slider setting /> }).collect_view()}
            {(!rest.is_empty()).then(|| view! {
                <details class="more">
                    <summary>{format!("{} more", rest.len())}</summary>
                    {rest.into_iter().map(|setting| view! { <Slider setting /> }).collect_view()}
                </details>
            })}
        </details>
    }
}

/// The value that is in force: the page's, else the default.
fn value(settings: &Settings, setting: &Setting) -> f64 {
    settings.world.values.get(setting.key).copied().unwrap_or(setting.default)
}

/// A setting of the simulator.
#[component]
fn Slider(setting: &'static Setting) -> impl IntoView {
    let ctx = ctx();
    let (min, max, step) = sliders::range(setting);
    let now = Memo::new(move |_| ctx.settings.with(|s| value(s, setting)));
    let text = move || sliders::text(setting, now.get());
    let change = move |place: f64| {
        let value = sliders::value_at(setting, place);
        ctx.set(|s| {
            if value == setting.default {
                s.world.values.remove(setting.key);
            } else {
                s.world.values.insert(setting.key.to_owned(), value);
            }
        });
    };
    let help = format!("help-{}", setting.key);
    view! {
        <div class="slider" class:changed=move || now.get() != setting.default title=format!("{} {}", setting.help, setting.reason)>
            <label class="slider-head" for=format!("set-{}", setting.key)>
                <span>{setting.label}</span>
                <output class="num">{text}</output>
            </label>
            <input
                id=format!("set-{}", setting.key)
                type="range"
                min=min.to_string()
                max=max.to_string()
                step=step.to_string()
                data-testid=format!("slider-{}", setting.key)
                aria-valuetext=text
                aria-describedby=help.clone()
                prop:value=move || sliders::position(setting, now.get()).to_string()
                on:input:target=move |event| {
                    if let Ok(place) = event.target().value().parse() {
                        change(place);
                    }
                }
                on:dblclick=move |_| change(sliders::position(setting, setting.default))
            />
            <span class="sr-only" id=help>{setting.help}</span>
        </div>
    }
}

/// Task size of every device: mixed, or one size.
#[component]
fn TaskSize() -> impl IntoView {
    let ctx = ctx();
    let find = |key: &str| SETTINGS.iter().find(|s| s.key == key).map(|s| s.default);
    let (low, high) = (find("size_min_mbit").unwrap_or(1.0), find("size_max_mbit").unwrap_or(2.5));
    let size = move || ctx.settings.with(|s| s.world.size_mbit);
    view! {
        <div class="slider" class:changed=move || size().is_some() title="The text of a question stands for a payload of this size.">
            <label class="slider-head" for="set-size_mbit">
                <span>"Task size "<var>"X"</var></span>
                <output class="num">{move || size().map_or("mixed".to_owned(), |x| format!("{x:.2} Mbit"))}</output>
            </label>
            <input
                id="set-size_mbit"
                type="range"
                min=low.to_string()
                max=high.to_string()
                step="0.05"
                data-testid="slider-size_mbit"
                aria-valuetext=move || size().map_or("mixed".to_owned(), |x| format!("{x:.2} megabit"))
                prop:value=move || size().unwrap_or(f64::midpoint(low, high)).to_string()
                on:input:target=move |event| {
                    if let Ok(value) = event.target().value().parse::<f64>() {
                        ctx.set(|s| s.world.size_mbit = Some(value));
                    }
                }
            />
            <button class="textual" hidden=move || size().is_none() on:click=move |_| ctx.set(|s| s.world.size_mbit = None)>
                "Mixed sizes again"
            </button>
        </div>
    }
}

/// How tokens are chosen.
#[component]
fn Sampling() -> impl IntoView {
    let ctx = ctx();
    view! {
        <details class="group sampling">
            <summary><h3>"Sampling"</h3></summary>
            <div class="sampling-row">
                {sampling::SETTINGS
                    .iter()
                    .filter(|setting| !setting.url.is_empty())
                    .map(|setting| view! { <Number setting /> })
                    .collect_view()}
                <label class="switch" title="Ask the full model for its own answer afterwards and compare (eq. 26–27)">
                    <input
                        type="checkbox"
                        role="switch"
                        prop:checked=move || ctx.settings.with(|s| s.options.compare)
                        on:change:target=move |event| {
                            let on = event.target().checked();
                            ctx.set(|s| s.options.compare = on);
                        }
                    />
                    <span>"Compare with the full model"</span>
                </label>
            </div>
        </details>
    }
}

/// A number that is typed.
#[component]
fn Number(setting: &'static sampling::Setting) -> impl IntoView {
    let ctx = ctx();
    let change = move |text: String| match setting.nearest(&text) {
        Some(text) => ctx.set(|s| {
            // What is no whole number where one is needed changes nothing, and the value in force is shown again.
            let _ = setting.write(&mut s.options.sampling, &text);
        }),
        None => ctx.settings.notify(),
    };
    view! {
        <label class="field" title=setting.help>
            <span>{setting.label}</span>
            <input
                class="num"
                type="number"
                min=setting.range.0.to_string()
                max=setting.range.1.to_string()
                step=setting.step.to_string()
                data-testid=format!("sampling-{}", setting.key)
                prop:value=move || ctx.settings.with(|s| setting.read(&s.options.sampling))
                on:change:target=move |event| change(event.target().value())
            />
        </label>
    }
}
