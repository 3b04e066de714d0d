//! The form of the next run.

use client::protocol::runs::{AlgoView, HyperKind, HyperParameter};
use leptos::prelude::*;
use serde_json::Value;

use crate::ctx::ctx;
use crate::panel::Panel;
use crate::state::Kind;
use crate::training::{LOG_PLACES, SHARES, VARIANTS, hyper_text, log_place, log_range, log_value, rate_key};
use crate::training_link::Link;
use crate::url::{from_name, wire_name};
use crate::{dom, format};

/// Where the slider of the steps begins; it ends at the server's limit.
const FEWEST_STEPS: f64 = 1e3;
/// Sizes of a task, Mbit, as in the paper's figures.
const SIZES: (f64, f64, f64) = (1.0, 2.5, 0.1);

/// The panel.
#[component]
pub fn NewRun(link: Link, off: Memo<Option<String>>) -> impl IntoView {
    let ctx = ctx();
    let algo = Memo::new(move |_| {
        ctx.training.with(|t| {
            let algorithms = &t.list.as_ref()?.training.algorithms;
            algorithms.iter().find(|a| a.name == t.form.request.algo && a.preset == t.form.request.preset).cloned()
        })
    });
    let algorithms = Memo::new(move |_| {
        ctx.training.with(|t| t.list.as_ref().map(|l| l.training.algorithms.clone()).unwrap_or_default())
    });
    let limits =
        Memo::new(move |_| ctx.training.with(|t| t.list.as_ref().map(|l| l.training.limits).unwrap_or_default()));
    let request = Memo::new(move |_| ctx.training.with(|t| t.form.request.clone()));
    let rate = Memo::new(move |_| algo.with(|a| a.as_ref().and_then(rate_key)));
    // The ends of its slider, and what it does.
    let declared_rate = Memo::new(move |_| {
        let (algo, rate) = (algo.get()?, rate.get()?);
        ctx.training.with(|t| {
            let declared = t.declared(&algo.name).iter().find(|parameter| parameter.key == rate)?;
            Some((log_range(&declared.kind)?, declared.help.clone()))
        })
    });
    let rates = move || declared_rate.with(|declared| declared.as_ref().map_or((1e-5, 1.0), |(range, _)| *range));
    let learning_rate =
        move || ctx.training.with(|t| algo.get().and_then(|a| t.form.hyper(&a, &rate.get()?).and_then(Value::as_f64)));
    let changed_rate = move || rate.get().is_some_and(|rate| request.with(|r| r.hyper.contains_key(&rate)));
    let most_steps = move || limits.get().steps as f64;
    let choose = move |name: String, preset: String| {
        if let Some(chosen) =
            algorithms.with_untracked(|all| all.iter().find(|a| a.name == name && a.preset == preset).cloned())
        {
            ctx.training.update(|t| t.form.set_algo(&chosen));
        }
    };
    let names = Memo::new(move |_| {
        let preset = request.with(|r| r.preset.clone());
        algorithms.with(|all| all.iter().filter(|a| a.preset == preset).map(|a| a.name.clone()).collect::<Vec<_>>())
    });
    let presets = Memo::new(move |_| {
        let name = request.with(|r| r.algo.clone());
        algorithms.with(|all| all.iter().filter(|a| a.name == name).map(|a| a.preset.clone()).collect::<Vec<_>>())
    });
    let set_seed = move |text: String| match text.trim().parse::<u64>() {
        Ok(seed) => ctx.training.update(|t| t.form.request.seed = seed),
        Err(_) => {
            ctx.notify(Kind::Problem, "A seed is a whole number, such as 7.");
            ctx.training.notify();
        }
    };
    view! {
        <Panel id="new-run" title="New run">
            <form
                class="new-run"
                on:submit=move |event| {
                    event.prevent_default();
                    link.create();
                }
            >
                <div class="train-row">
                    <label class="field">
                        <span>"Algorithm"</span>
                        <select
                            data-testid="train-algo"
                            on:change:target=move |event| choose(event.target().value(), request.with_untracked(|r| r.preset.clone()))
                        >
                            <For each=move || names.get() key=Clone::clone let(name)>
                                {
                                    let this = name.clone();
                                    view! { <option value=name.clone() prop:selected=move || request.with(|r| r.algo == this)>{name.clone()}</option> }
                                }
                            </For>
                        </select>
                    </label>
                    <label class="field">
                        <span>"Hyper-parameters"</span>
                        <select
                            data-testid="train-preset"
                            on:change:target=move |event| choose(request.with_untracked(|r| r.algo.clone()), event.target().value())
                        >
                            <For each=move || presets.get() key=Clone::clone let(preset)>
                                {
                                    let this = preset.clone();
                                    let text = match preset.as_str() {
                                        "paper" => "the paper’s".to_owned(),
                                        "tuned" => "tuned".to_owned(),
                                        other => other.to_owned(),
                                    };
                                    view! { <option value=preset.clone() prop:selected=move || request.with(|r| r.preset == this)>{text}</option> }
                                }
                            </For>
                        </select>
                    </label>
                    <div class="field">
                        <label for="train-seed">"Seed"</label>
                        <div class="joined">
                            <input
                                id="train-seed"
                                class="num"
                                type="text"
                                inputmode="numeric"
                                autocomplete="off"
                                data-testid="train-seed"
                                prop:value=move || request.with(|r| r.seed.to_string())
                                on:change:target=move |event| set_seed(event.target().value())
                            />
                            <button type="button" on:click=move |_| ctx.training.update(|t| t.form.request.seed = dom::random_seed())>"New"</button>
                        </div>
                    </div>
                </div>
                <Slider
                    key="users" label="Users K" low=Signal::derive(|| 1.0) high=Signal::derive(move || limits.get().users as f64) step=1.0
                    place=Signal::derive(move || request.with(|r| r.users as f64))
                    text=Signal::derive(move || request.with(|r| r.users.to_string()))
                    set=move |place: f64| ctx.training.update(|t| t.form.request.users = whole(place) as usize)
                />
                <Slider
                    key="steps" label="Environment steps" low=Signal::derive(|| 0.0) high=Signal::derive(|| LOG_PLACES) step=1.0
                    place=Signal::derive(move || log_place(request.with(|r| r.steps as f64), FEWEST_STEPS, most_steps()))
                    text=Signal::derive(move || request.with(|r| format::thousands(r.steps)))
                    set=move |place: f64| {
                        let steps = whole(log_value(place, FEWEST_STEPS, most_steps()));
                        ctx.training.update(|t| t.form.request.steps = steps);
                    }
                />
                <Show when=move || learning_rate().is_some() && declared_rate.with(Option::is_some)>
                    <Slider
                        key="learning-rate" label="Learning rate" low=Signal::derive(|| 0.0) high=Signal::derive(|| LOG_PLACES) step=1.0
                        changed=Signal::derive(changed_rate)
                        help=Signal::derive(move || declared_rate.with(|declared| declared.as_ref().map_or(String::new(), |(_, help)| help.clone())))
                        place=Signal::derive(move || {
                            let (low, high) = rates();
                            log_place(learning_rate().unwrap_or(low), low, high)
                        })
                        text=Signal::derive(move || format::or_na(learning_rate(), |rate| format!("{rate:.1e}").replace('-', "−")))
                        set=move |place: f64| {
                            let (Some(algo), Some(rate)) = (algo.get_untracked(), rate.get_untracked()) else { return };
                            let (low, high) = rates();
                            let value = Value::from(log_value(place, low, high));
                            ctx.training.update(|t| t.form.set_hyper(&algo, &rate, value));
                        }
                    />
                </Show>
                <div class="train-row">
                    <label class="field">
                        <span>"The state between slots"</span>
                        <select
                            data-testid="train-variant"
                            on:change:target=move |event| {
                                if let Some(variant) = from_name(&event.target().value()) {
                                    ctx.training.update(|t| t.form.request.variant = variant);
                                }
                            }
                        >
                            {VARIANTS.map(|(variant, text)| view! {
                                <option value=wire_name(variant) prop:selected=move || request.with(|r| r.variant == variant)>{text}</option>
                            }).collect_view()}
                        </select>
                    </label>
                    <label class="field">
                        <span>"Sharing the server"</span>
                        <select on:change:target=move |event| {
                            if let Some(share) = from_name(&event.target().value()) {
                                ctx.training.update(|t| t.form.request.f_mode = share);
                            }
                        }>
                            {SHARES.map(|(share, text)| view! {
                                <option value=wire_name(share) prop:selected=move || request.with(|r| r.f_mode == share)>{text}</option>
                            }).collect_view()}
                        </select>
                    </label>
                </div>
                <Slider
                    key="size" label="Task size X" low=Signal::derive(|| SIZES.0) high=Signal::derive(|| SIZES.1) step=SIZES.2
                    changed=Signal::derive(move || request.with(|r| r.size_mbit.is_some()))
                    place=Signal::derive(move || request.with(|r| r.size_mbit.unwrap_or(f64::midpoint(SIZES.0, SIZES.1))))
                    text=Signal::derive(move || request.with(|r| r.size_mbit.map_or("mixed".to_owned(), |size| format!("{size:.1} Mbit"))))
                    set=move |place: f64| ctx.training.update(|t| t.form.request.size_mbit = Some((place * 10.0).round() / 10.0))
                />
                <button
                    type="button"
                    class="textual muted"
                    hidden=move || request.with(|r| r.size_mbit.is_none())
                    on:click=move |_| ctx.training.update(|t| t.form.request.size_mbit = None)
                >
                    "Mixed sizes again"
                </button>
                <Show when=move || algo.with(Option::is_some)>
                    <Hyper algo envs=Signal::derive(move || request.with(|r| r.envs)) most_envs=Signal::derive(move || limits.get().envs) />
                </Show>
                <div class="train-start">
                    <button class="primary" type="submit" data-testid="train-start" disabled=move || off.with(Option::is_some) || link.asking.get()>
                        "Train"
                    </button>
                    <p class="hint">{move || {
                        let limits = limits.get();
                        let at_once = format::count(limits.concurrent, "run");
                        format!("{at_once} at a time on the server’s own threads; others wait.")
                    }}</p>
                </div>
            </form>
        </Panel>
    }
}

/// A slider's place as a count.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sliders have positive, small places")]
fn whole(place: f64) -> u64 {
    place.round() as u64
}

/// A labelled slider.
#[component]
fn Slider(
    key: &'static str,
    label: &'static str,
    #[prop(into)] low: Signal<f64>,
    #[prop(into)] high: Signal<f64>,
    step: f64,
    #[prop(into)] place: Signal<f64>,
    #[prop(into)] text: Signal<String>,
    #[prop(optional, into)] changed: Option<Signal<bool>>,
    #[prop(optional, into)] help: Option<Signal<String>>,
    set: impl Fn(f64) + 'static,
) -> impl IntoView {
    let id = format!("train-{key}");
    view! {
        <div class="slider" class:changed=move || changed.is_some_and(|c| c.get())>
            <label class="slider-head" for=id.clone()><span>{label}</span><output class="num">{move || text.get()}</output></label>
            <input
                id=id.clone()
                type="range"
                min=move || low.get().to_string()
                max=move || high.get().to_string()
                step=step.to_string()
                data-testid=id
                title=move || help.map(|help| help.get())
                aria-valuetext=move || text.get()
                prop:value=move || place.get().to_string()
                on:input:target=move |event| {
                    if let Ok(place) = event.target().value().parse() {
                        set(place);
                    }
                }
            />
        </div>
    }
}

/// Everything else that can be set, as the server offers it.
#[component]
fn Hyper(
    algo: Memo<Option<AlgoView>>,
    #[prop(into)] envs: Signal<Option<usize>>,
    #[prop(into)] most_envs: Signal<usize>,
) -> impl IntoView {
    let ctx = ctx();
    let set_envs = move |text: String| match text.trim().parse::<usize>() {
        Ok(count) => ctx.training.update(|t| t.form.request.envs = Some(count.clamp(1, most_envs.get_untracked()))),
        Err(_) => ctx.training.update(|t| t.form.request.envs = None),
    };
    // As they are declared with the algorithms, but for the one that has a slider.
    let fields = Memo::new(move |_| {
        let Some(algo) = algo.get() else { return Vec::new() };
        let rate = rate_key(&algo);
        let has_field = |parameter: &&HyperParameter| {
            algo.hyper.contains_key(&parameter.key) && Some(&parameter.key) != rate.as_ref()
        };
        ctx.training.with(|t| t.declared(&algo.name).iter().filter(has_field).cloned().collect::<Vec<_>>())
    });
    view! {
        <details class="more">
            <summary>"All hyper-parameters"</summary>
            <div class="hyper">
                <label class="field">
                    <span>{move || format!("cells side by side ({} if empty)", algo.with(|a| a.as_ref().map_or(1, |a| a.envs)))}</span>
                    <input class="num" type="text" inputmode="numeric" data-testid="train-envs"
                        prop:value=move || envs.get().map_or(String::new(), |n| n.to_string())
                        on:change:target=move |event| set_envs(event.target().value()) />
                </label>
                // Two algorithms may mean different things by one name.
                <For each=move || fields.get() key=|field| format!("{field:?}") let(field)>
                    <HyperField algo declared=field />
                </For>
            </div>
        </details>
    }
}

/// One hyper-parameter, as it is declared.
#[component]
fn HyperField(algo: Memo<Option<AlgoView>>, declared: HyperParameter) -> impl IntoView {
    let ctx = ctx();
    let name = label(&declared);
    let test_id = format!("hyper-{}", declared.key);
    let HyperParameter { key, help, kind, .. } = declared;
    let wanted = format!("Must be {}.", kind.wanted());
    let title = format!("{help} {wanted}");
    let names = match &kind {
        HyperKind::Choice { names } => names.clone(),
        _ => Vec::new(),
    };
    let is_switch = kind == HyperKind::Switch;
    let declared = StoredValue::new((key, kind));
    let value = move || {
        let algo = algo.get()?;
        ctx.training.with(|t| declared.with_value(|(key, _)| t.form.hyper(&algo, key).cloned()))
    };
    let text = move || value().map_or(String::new(), |v| hyper_text(&v));
    // What a person typed may be out of range: the server would refuse it.
    let fits =
        Memo::new(move |_| value().is_none_or(|value| declared.with_value(|(_, kind)| kind.check(&value).is_ok())));
    let change = move |text: String| {
        let Some(algo) = algo.get_untracked() else { return };
        let mut is_value = true;
        // Also after a refusal: the field shows the value in force again.
        declared.with_value(|(key, kind)| {
            ctx.training.update(|t| is_value = t.form.type_hyper(&algo, key, kind, &text));
            if !is_value {
                ctx.notify(Kind::Problem, format!("“{text}” is no value for {key}: it must be {}.", kind.wanted()));
            }
        });
    };
    if is_switch {
        view! {
            <label class="switch" title=title>
                <input
                    type="checkbox"
                    role="switch"
                    data-testid=test_id
                    prop:checked=move || value().and_then(|v| v.as_bool()).unwrap_or(false)
                    on:change:target=move |event| change(event.target().checked().to_string())
                />
                <span>{name}</span>
            </label>
        }
        .into_any()
    } else if !names.is_empty() {
        view! {
            <label class="field" title=title>
                <span>{name}</span>
                <select data-testid=test_id on:change:target=move |event| change(event.target().value())>
                    {names.into_iter().map(|name| {
                        let this = name.clone();
                        view! { <option value=name.clone() prop:selected=move || text() == this>{name.clone()}</option> }
                    }).collect_view()}
                </select>
            </label>
        }
        .into_any()
    } else {
        view! {
            <label class="field" title=title>
                <span>{name}</span>
                <input class="num" type="text" autocomplete="off" spellcheck="false" data-testid=test_id
                    aria-invalid=move || (!fits.get()).to_string()
                    prop:value=text
                    on:change:target=move |event| change(event.target().value()) />
                <small class="hint" hidden=move || fits.get()>{wanted}</small>
            </label>
        }
        .into_any()
    }
}

/// What a person reads of a hyper-parameter: its name, and its unit where it has one.
fn label(declared: &HyperParameter) -> String {
    let name = declared.key.replace(['_', '.'], " ");
    if declared.unit.is_empty() { name } else { format!("{name} ({})", declared.unit) }
}
