//! Plays the recorded run until there is something of one's own to see.

use std::time::Duration;

use client::protocol::worker::ModelState;
use leptos::prelude::*;
use leptos::task::spawn_local;

use crate::ctx::Ctx;
use crate::recorded::{PATH, Playback};
use crate::state::{Phase, State};
use crate::{dom, server_only};

/// Longest wait for the worker's word on whether the model is here already.
const WAIT: Duration = Duration::from_millis(2500);

/// Starts the recording once it is clear that the model is not here; a returning visitor does not see it.
pub fn start(ctx: Ctx) {
    let begun = StoredValue::new(false);
    let begin = move || {
        let wanted = ctx.state.with_untracked(|s| s.run.is_none() && !coming(s));
        if wanted && !begun.get_value() {
            begun.set_value(true);
            play(ctx);
        }
    };
    Effect::new(move |_| {
        if ctx.state.with(|s| matches!(s.phase, Phase::Absent(_)) || !s.model_states.is_empty()) {
            begin();
        }
    });
    set_timeout(begin, WAIT);
}

/// Whether the model is on the device or on its way.
fn coming(state: &State) -> bool {
    let model = state.model();
    state.unasked || model.is_coming() || matches!(model, ModelState::Cached | ModelState::Ready { .. })
}

/// Fetches the recording and plays it from the start; without the file nothing happens.
pub fn play(ctx: Ctx) {
    spawn_local(async move {
        let Some(mut tape) = server_only::file(PATH).await.and_then(|json| Playback::parse(&json)) else { return };
        if dom::reduced_motion() {
            tape.advance(f64::INFINITY);
        }
        step(ctx, tape, dom::now_ms());
    });
}

fn step(ctx: Ctx, mut tape: Playback, started_ms: f64) {
    let wait_ms = tape.advance(dom::now_ms() - started_ms);
    ctx.recorded.set(Some(tape.run().clone()));
    let Some(wait_ms) = wait_ms else { return };
    // A frame at least: tokens that come faster are drawn together.
    let wait = Duration::from_secs_f64((wait_ms / 1e3).clamp(0.016, 60.0));
    set_timeout(
        move || {
            if ctx.shows_recording() {
                step(ctx, tape, started_ms);
            }
        },
        wait,
    );
}
