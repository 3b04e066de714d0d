//! What a person should know, told to screen readers too. News goes by itself; problems wait to be read.

use std::time::Duration;

use leptos::prelude::*;

use crate::ctx::ctx;
use crate::state::Kind;

/// How long news stays.
const STAY: Duration = Duration::from_secs(12);

/// The stack of notices.
#[component]
pub fn Notices() -> impl IntoView {
    let ctx = ctx();
    let notices = Memo::new(move |_| ctx.state.with(|s| s.notices.iter().cloned().collect::<Vec<_>>()));
    view! {
        <div class="notices" role="status" aria-live="polite">
            <For each=move || notices.get() key=|n| n.id let(notice)>
                {
                    let id = notice.id;
                    if notice.kind == Kind::Info {
                        set_timeout(move || ctx.state.update(|s| s.dismiss(id)), STAY);
                    }
                    view! {
                        <div class="notice" class:problem=notice.kind == Kind::Problem>
                            <p data-testid="notice">{notice.text}</p>
                            <button class="quiet" aria-label="Dismiss" on:click=move |_| ctx.state.update(|s| s.dismiss(id))>"×"</button>
                        </div>
                    }
                }
            </For>
        </div>
    }
}
