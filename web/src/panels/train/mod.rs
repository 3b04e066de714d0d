//! The training view: policies learn on the server, and are put to use in the playground.
//!
//! [`form`] starts a run, [`runs`] lists them, [`charts`] draws their curves.

pub mod charts;
pub mod form;
pub mod runs;

use leptos::prelude::*;

use crate::ctx::ctx;
use crate::training_link::Link;
use charts::Charts;
use form::NewRun;
use runs::Runs;

/// The whole view.
#[component]
pub fn Train() -> impl IntoView {
    let ctx = ctx();
    let link = Link::open(ctx);
    let off = Memo::new(move |_| ctx.training.with(crate::training::Training::off));
    view! {
        <div class="page train" data-testid="train">
            <p class="sr-only" role="status" aria-live="polite" data-testid="train-news">{move || link.news.get()}</p>
            <p class="train-off" role="status" data-testid="train-off" hidden=move || off.with(Option::is_none)>{move || off.get()}</p>
            <div class="column">
                <Charts link />
            </div>
            <div class="column">
                <NewRun link off />
                <Runs link />
            </div>
        </div>
    }
}
