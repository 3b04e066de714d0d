//! One question, two variants, side by side. They run in an engine of this view's own, on the CPU, one after the other; the
//! page's model stays where it is.

use std::rc::Rc;

use client::protocol::VERSION;
use client::protocol::manifest::ModelEntry;
use client::protocol::tier::TierChoice;
use client::protocol::worker::{Command, Event};
use client::protocol::world::WorldSettings;
use leptos::prelude::*;
use web::engine::{Engine, Listener};
use web::{dom, format};

use crate::duel::{Duel, Stage};
use crate::table::Take;

/// The engine and what it says.
#[derive(Clone, Copy)]
struct Link {
    duel: RwSignal<Duel>,
    engine: StoredValue<Engine, LocalStorage>,
    /// Whether it was started.
    started: StoredValue<bool>,
}

impl Link {
    fn send(self, commands: Vec<Command>) {
        for command in commands {
            if let Err(error) = self.engine.get_value().send(&command, &[]) {
                self.duel.update(|duel| duel.lost(&dom::error_text(&error)));
            }
        }
    }

    fn ask(self, question: &str, models: [String; 2], told: RwSignal<Option<String>>) {
        let begun = self.duel.try_update(|duel| duel.begin(question, models));
        match begun {
            Some(Ok(commands)) => {
                told.set(None);
                self.send(commands);
                if !self.started.get_value() {
                    self.started.set_value(true);
                    self.engine.get_value().start(Rc::new(self));
                }
            }
            Some(Err(problem)) => told.set(Some(problem)),
            None => {}
        }
    }

    fn stop(self) {
        let command = self.duel.try_update(Duel::stop).flatten();
        self.send(command.into_iter().collect());
    }
}

impl Listener for Link {
    fn greeting(&self) -> Command {
        // Its cell is never asked for anything.
        let world = WorldSettings { users: 1, seed: 1, ..WorldSettings::default() };
        Command::Init { version: VERSION, base_url: dom::base_url(), tier: TierChoice::Cpu, world }
    }

    fn hear(&self, text: &str) -> Result<(), String> {
        let event: Event = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let commands = self.duel.try_update(|duel| duel.hear(&event, dom::now_ms())).unwrap_or_default();
        self.send(commands);
        Ok(())
    }

    fn misunderstood(&self, problem: String) {
        self.duel.update(|duel| duel.lost(&problem));
    }

    fn waited(&self) {}

    fn is_up(&self) -> bool {
        self.duel.try_with_untracked(|duel| duel.stage != Stage::Starting).unwrap_or(false)
    }

    fn is_loading(&self) -> bool {
        self.duel.try_with_untracked(|duel| matches!(duel.stage, Stage::Loading(..))).unwrap_or(false)
    }

    fn lost(&self, again: bool, reason: &str) {
        if !again {
            self.started.set_value(false);
        }
        self.duel.update(|duel| duel.lost(reason));
    }
}

/// The panel.
#[component]
pub(crate) fn Sides(models: Vec<ModelEntry>) -> impl IntoView {
    let link = Link {
        duel: RwSignal::new(Duel::default()),
        engine: StoredValue::new_local(Engine::default()),
        started: StoredValue::new(false),
    };
    // The engine ends with the view.
    let engine = StoredValue::new_local(link.engine.get_value());
    on_cleanup(move || {
        if let Some(engine) = engine.try_get_value() {
            engine.stop();
        }
    });
    let first =
        models.iter().find(|entry| entry.preferred).or_else(|| models.iter().find(|entry| entry.id == "compact"));
    let first = first.or(models.first()).map(|entry| entry.id.clone()).unwrap_or_default();
    let second = models.iter().find(|entry| entry.id != first).map(|entry| entry.id.clone()).unwrap_or_default();
    let chosen = [RwSignal::new(first), RwSignal::new(second)];
    let question = RwSignal::new("What is the currency of the country whose capital is Nairobi?".to_owned());
    let told = RwSignal::new(None::<String>);
    let busy = Memo::new(move |_| link.duel.with(Duel::busy));
    let too_few = models.len() < 2;
    let models = StoredValue::new(models);
    let ask = move || link.ask(&question.get_untracked(), chosen.map(|one| one.get_untracked()), told);
    view! {
        <section class="panel" aria-labelledby="compact-sides">
            <div class="panel-head">
                <h2 id="compact-sides">"One question, two variants"</h2>
            </div>
            <Show when=move || too_few>
                <p class="empty">"This server offers fewer than two models to tabs, so there is nothing to hold side by side. A catalogue of your own adds files: `tandem serve --catalogue`."</p>
            </Show>
            <div class="compact-ask" hidden=too_few>
                <label class="sr-only" for="compact-question">"The question"</label>
                <input
                    id="compact-question"
                    type="text"
                    data-testid="compact-question"
                    autocomplete="off"
                    prop:value=move || question.get()
                    on:input:target=move |event| question.set(event.target().value())
                    on:keydown=move |event| {
                        if event.key() == "Enter" && !event.is_composing() && !busy.get_untracked() {
                            ask();
                        }
                    }
                />
                <button class="stop" data-testid="compact-stop" hidden=move || !busy.get() on:click=move |_| link.stop()>"Stop"</button>
                <button class="primary" data-testid="compact-ask" hidden=move || busy.get() on:click=move |_| ask()>"Ask both"</button>
            </div>
            <p class="run-problem" role="alert" data-testid="compact-told" hidden=move || told.with(Option::is_none) && !link.duel.with(|d| matches!(d.stage, Stage::Failed(_)))>
                {move || told.get().or_else(|| link.duel.with(|duel| match &duel.stage {
                    Stage::Failed(why) => Some(why.clone()),
                    _ => None,
                }))}
            </p>
            <div class="compact-sides" hidden=too_few>
                {[0, 1].map(|which| view! { <Side which link models chosen=chosen[which] /> }).collect_view()}
            </div>
            <p class="hint" hidden=too_few>
                "They run on the CPU of this device, one after the other, beside the page’s own model. What is on this device already is not fetched again."
            </p>
        </section>
    }
}

/// One of the two.
#[component]
fn Side(which: usize, link: Link, models: StoredValue<Vec<ModelEntry>>, chosen: RwSignal<String>) -> impl IntoView {
    let busy = Memo::new(move |_| link.duel.with(Duel::busy));
    let options = models.with_value(|models| {
        let option = |entry: &ModelEntry| {
            let is_chosen = chosen.with_untracked(|id| *id == entry.id);
            let label = format!("{} · {} · {}", entry.name, format::bytes(entry.bytes), entry.quantisation);
            view! { <option value=entry.id.clone() selected=is_chosen>{label}</option> }
        };
        models.iter().map(option).collect_view()
    });
    let take = move || {
        let entry = models.with_value(|models| chosen.with(|id| models.iter().find(|entry| entry.id == *id).cloned()));
        entry.map(|entry| view! { <Take entry /> })
    };
    let state = move || {
        link.duel.with(|duel| match (&duel.stage, duel.said.get(which)) {
            (Stage::Starting, _) if which == 0 => "The engine starts …".to_owned(),
            (Stage::Loading(now, Some(percent)), _) if *now == which => format!("Loading: {percent} % …"),
            (Stage::Loading(now, None), _) if *now == which => "Loading …".to_owned(),
            (Stage::Writing(now), _) if *now == which => "Writing …".to_owned(),
            (_, Some(said)) => said.whole_ms.map_or(String::new(), |whole_ms| {
                let first = format::or_na(said.first_ms, format::millis);
                format!("first word after {first}, all of it after {}", format::millis(whole_ms))
            }),
            _ => String::new(),
        })
    };
    view! {
        <div class="compact-side">
            <label class="sr-only" for=format!("compact-model-{which}")>{if which == 0 { "First variant" } else { "Second variant" }}</label>
            <select
                id=format!("compact-model-{which}")
                data-testid=format!("compact-model-{which}")
                disabled=move || busy.get()
                on:change:target=move |event| chosen.set(event.target().value())
            >
                {options}
            </select>
            <p class="compact-said" data-testid=format!("compact-said-{which}")>
                {move || link.duel.with(|duel| duel.said.get(which).map(|said| said.text.trim().to_owned()))}
            </p>
            <p class="hint" role="status" data-testid=format!("compact-state-{which}")>{state}</p>
            {take}
        </div>
    }
}
