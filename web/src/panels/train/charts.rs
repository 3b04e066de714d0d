//! The curves of the shown runs.

use leptos::prelude::*;
use leptos::task::spawn_local;

use crate::ctx::{Ctx, ctx};
use crate::dom;
use crate::panel::Panel;
use crate::state::Kind;
use crate::training::{MOST_SHOWN, Training, key_name};
use crate::training_link::Link;
use chart::plot::{Palette, Plot, svg};

/// The colour of a shown run as the page's style sheet has it.
pub fn colour(place: usize) -> String {
    format!("var({})", token(place))
}

fn token(place: usize) -> String {
    format!("--run-{}", place % MOST_SHOWN + 1)
}

const SURFACE: &str = "--surface";
const INK: &str = "--ink-3";
const GRID: &str = "--line";
const LEVEL: &str = "--ink-2";
const FONT: &str = "--font";

/// Which chart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Reward,
    /// One of the smaller ones.
    Key(usize),
}

impl Which {
    fn size(self) -> [f64; 2] {
        match (dom::media("(max-width: 719px)"), self) {
            (true, _) => [360.0, 240.0],
            (false, Self::Reward) => [660.0, 320.0],
            (false, Self::Key(_)) => [660.0, 220.0],
        }
    }

    /// The chart with colours as `paint` has them by the names of tokens.
    fn plot(self, training: &Training, paint: impl Fn(&str) -> String) -> Plot {
        match self {
            Self::Reward => training.reward_plot(self.size(), |place| paint(&token(place)), &paint(LEVEL)),
            Self::Key(index) => {
                let key = training.look.keys.get(index).map(String::as_str).unwrap_or_default();
                training.key_plot(key, self.size(), |place| paint(&token(place)))
            }
        }
    }
}

fn palette(paint: impl Fn(&str) -> String) -> Palette {
    Palette { surface: paint(SURFACE), ink: paint(INK), grid: paint(GRID), font: paint(FONT) }
}

/// The panel.
#[component]
pub fn Charts(link: Link) -> impl IntoView {
    let ctx = ctx();
    let nothing = Memo::new(move |_| ctx.training.with(|t| t.shown.is_empty()));
    let export_csv = move |_| {
        let text = ctx.training.with_untracked(Training::csv);
        if let Err(error) = dom::download("tandem-training.csv", "text/csv", &text) {
            ctx.notify(Kind::Problem, format!("The file could not be made ({}).", dom::error_text(&error)));
        }
    };
    view! {
        <Panel id="curves" title="Learning curves" aside=move || view! {
            <button class="quiet" data-testid="train-csv" disabled=move || nothing.get() on:click=export_csv>"Export CSV"</button>
        }>
            <div class="train-row look">
                <div class="slider">
                    <label class="slider-head" for="train-smoothing">
                        <span>"Smoothing"</span>
                        <output class="num">{move || ctx.training.with(|t| format!("{:.2}", t.look.smoothing))}</output>
                    </label>
                    <input id="train-smoothing" type="range" min="0" max="0.99" step="0.01" data-testid="train-smoothing"
                        prop:value=move || ctx.training.with(|t| t.look.smoothing.to_string())
                        on:input:target=move |event| {
                            if let Ok(weight) = event.target().value().parse() {
                                ctx.training.update(|t| t.look.smoothing = weight);
                            }
                        } />
                </div>
                <label class="switch">
                    <input type="checkbox" role="switch" data-testid="train-log-x"
                        prop:checked=move || ctx.training.with(|t| t.look.log_x)
                        on:change:target=move |event| {
                            let on = event.target().checked();
                            ctx.training.update(|t| t.look.log_x = on);
                        } />
                    <span>"Log steps"</span>
                </label>
                <label class="switch">
                    <input type="checkbox" role="switch" data-testid="train-log-y"
                        prop:checked=move || ctx.training.with(|t| t.look.log_y)
                        on:change:target=move |event| {
                            let on = event.target().checked();
                            ctx.training.update(|t| t.look.log_y = on);
                        } />
                    <span>"Log values below"</span>
                </label>
            </div>
            <Chart which=Which::Reward test_id="chart-reward" />
            <Legend link />
            {[0, 1].map(|index| view! {
                <KeyChoice index />
                <Chart which=Which::Key(index) test_id=if index == 0 { "chart-a" } else { "chart-b" } />
            }).collect_view()}
        </Panel>
    }
}

/// A drawing, with its button for a picture.
#[component]
fn Chart(which: Which, test_id: &'static str) -> impl IntoView {
    let ctx = ctx();
    let drawn = Memo::new(move |_| {
        ctx.training.with(|t| {
            let paint = |token: &str| format!("var({token})");
            svg(&which.plot(t, paint), &palette(paint))
        })
    });
    let label = move || {
        ctx.training.with(|t| match which {
            Which::Reward => t.summary(),
            Which::Key(index) => {
                t.look.keys.get(index).map_or(String::new(), |key| format!("{} over environment steps", key_name(key)))
            }
        })
    };
    let lines = move || {
        let of_shown = |t: &Training| {
            t.shown.iter().filter_map(|id| t.curves.get(id)).map(crate::training::Curve::len).sum::<usize>()
        };
        ctx.training.with(of_shown).to_string()
    };
    view! {
        <figure class="chart" data-testid=test_id data-lines=lines>
            <div class="plot" role="img" aria-label=label inner_html=move || drawn.get().unwrap_or_default()></div>
            <p class="empty" hidden=move || drawn.with(Option::is_some)>
                {if which == Which::Reward { "Start a run, or choose one of the list." } else { "Nothing was logged of this (or nothing above 0, on a logarithmic axis)." }}
            </p>
            <button class="quiet chart-png" hidden=move || drawn.with(Option::is_none) data-testid=format!("{test_id}-png") on:click=move |_| export_png(ctx, which)>
                "PNG"
            </button>
        </figure>
    }
}

fn export_png(ctx: Ctx, which: Which) {
    let drawn = ctx.training.with_untracked(|t| svg(&which.plot(t, dom::token), &palette(dom::token)));
    let Some(drawn) = drawn else { return };
    let [width, height] = which.size();
    spawn_local(async move {
        if let Err(error) = dom::download_png("tandem-training.png", &drawn, width, height).await {
            ctx.notify(Kind::Problem, format!("The picture could not be made ({}).", dom::error_text(&error)));
        }
    });
}

/// Which run has which colour, and what the dashed lines are.
#[component]
fn Legend(link: Link) -> impl IntoView {
    let ctx = ctx();
    let runs = Memo::new(move |_| {
        ctx.training.with(|t| {
            let name = |id: i64| t.run(id).map_or_else(|| format!("Run {id}"), crate::training::run_name);
            t.shown.iter().map(|id| (*id, t.colour(*id), format!("{}{}", name(*id), t.levels(*id)))).collect::<Vec<_>>()
        })
    });
    view! {
        <ul class="curve-legend" data-testid="train-legend">
            <For each=move || runs.get() key=Clone::clone let(entry)>
                <li>
                    <span class="run-dot" style:background=colour(entry.1) aria-hidden="true"></span>
                    <span class="num">{entry.2.clone()}</span>
                    <button class="textual" aria-label=format!("Hide run {}", entry.0) on:click=move |_| link.toggle(entry.0)>"hide"</button>
                </li>
            </For>
            <li class="muted" hidden=move || runs.with(Vec::is_empty)>"Thin: while exploring, smoothed. Bold: the mean action, evaluated. Dashed: the optimum on the same slots. Dotted: the closed form."</li>
        </ul>
    }
}

/// What a smaller chart shows.
#[component]
fn KeyChoice(index: usize) -> impl IntoView {
    let ctx = ctx();
    let chosen = Memo::new(move |_| ctx.training.with(|t| t.look.keys.get(index).cloned().unwrap_or_default()));
    // The chosen one is on the list even before a run has logged it.
    let keys = Memo::new(move |_| {
        let mut keys = ctx.training.with(Training::keys);
        let chosen = chosen.get();
        if !keys.contains(&chosen) {
            keys.insert(0, chosen);
        }
        keys
    });
    view! {
        <label class="field key-choice">
            <span class="sr-only">{if index == 0 { "Second chart" } else { "Third chart" }}</span>
            <select data-testid=format!("chart-key-{index}") on:change:target=move |event| {
                let key = event.target().value();
                ctx.training.update(|t| {
                    if let Some(slot) = t.look.keys.get_mut(index) {
                        *slot = key;
                    }
                });
            }>
                <For each=move || keys.get() key=Clone::clone let(key)>
                    {
                        let this = key.clone();
                        view! { <option value=key.clone() prop:selected=move || chosen.get() == this>{key_name(&key)}</option> }
                    }
                </For>
            </select>
        </label>
    }
}
