//! A room played again from its file.

use std::time::Duration;

use leptos::prelude::*;
use web::format;

use super::ctx::Ctx;
use super::words;

/// Speeds, slots a second.
const SPEEDS: [u64; 4] = [1, 2, 5, 20];

/// Play, pause, and the place.
#[component]
pub fn Player() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let speed = RwSignal::new(SPEEDS[1]);
    let slots = move || ctx.replay.with(|replay| replay.as_ref().map_or(0, |replay| replay.export.slots.len()));
    let at = move || ctx.replay.with(|replay| replay.as_ref().map_or(0, |replay| replay.at));
    let plays = Memo::new(move |_| ctx.replay.with(|replay| replay.as_ref().is_some_and(|replay| replay.plays)));
    let set_plays = move |plays: bool| {
        ctx.replay.update(|replay| {
            if let Some(replay) = replay {
                replay.plays = plays;
            }
        });
    };
    let toggle = move |_| {
        // From the end it begins again.
        if !plays.get_untracked() && untrack(at) + 1 >= untrack(slots) {
            ctx.show(0);
        }
        set_plays(!plays.get_untracked());
    };
    Effect::new(move |before: Option<Option<IntervalHandle>>| {
        before.flatten().inspect(IntervalHandle::clear);
        if !plays.get() {
            return None;
        }
        let step = move || {
            let next = untrack(at) + 1;
            if next < untrack(slots) { ctx.show(next) } else { set_plays(false) }
        };
        set_interval_with_handle(step, Duration::from_millis(1000 / speed.get())).ok()
    });
    let facts = move || {
        ctx.replay.with(|replay| {
            replay.as_ref().map(|replay| {
                let export = &replay.export;
                format!(
                    "Room {}, seed {}, {}",
                    words::spaced(&export.code),
                    export.seed,
                    format::count(export.slots.len(), "slot")
                )
            })
        })
    };
    view! {
        <section class="card" aria-label="Replay">
            <div class="card-head">
                <h2>"Replay"</h2>
                <button class="primary" data-testid="play" on:click=toggle>{move || if plays.get() { "Pause" } else { "Play" }}</button>
            </div>
            <p>{facts}</p>
            <label class="slider">
                <span>"Slot"</span>
                <output data-testid="replay-slot">{move || format!("{} of {}", at() + 1, slots())}</output>
                <input
                    type="range" min="0" max=move || slots().saturating_sub(1).to_string() step="1" data-testid="replay-at"
                    prop:value=move || at().to_string()
                    on:input:target=move |event| if let Ok(place) = event.target().value().parse() { set_plays(false); ctx.show(place) }
                />
            </label>
            <label class="field">
                "Speed"
                <select on:change:target=move |event| speed.set(event.target().value().parse().unwrap_or(2))>
                    {SPEEDS.map(|one| view! { <option value=one.to_string() selected={one == 2}>{format!("{one} slots a second")}</option> }).collect_view()}
                </select>
            </label>
            <p class="hint">"Names are not part of an export, and neither are measured answers. "<a href="room.html">"Another room"</a></p>
        </section>
    }
}
