//! The screen: which of setup, room and replay it shows, its frame, its keys.

use client::protocol::rooms::up::Command;
use leptos::prelude::*;
use web::dom;

use super::bar::Bar;
use super::compare::Compare;
use super::ctx::{Ctx, Overlay};
use super::hall::Hall;
use super::numbers::Numbers;
use super::people::People;
use super::player::Player;
use super::qr::Qr;
use super::round::Rounds;
use super::setup::{Open, Setup};
use super::world::World;
use crate::keep;
use crate::link::{Status, why_ended};

/// The page.
#[component]
pub fn App() -> impl IntoView {
    let shown = RwSignal::new(None::<Ctx>);
    let owner = Owner::current();
    // Signals live as long as the page, whoever makes them.
    let open = Callback::new(move |make: Open| {
        let own = owner.clone().unwrap_or_default();
        shown.set(Some(own.with(|| make.open())));
    });
    let (code, linked) = keep::of_address();
    if let Some(code) = code
        && let Some(secret) = linked.or_else(|| keep::known_secret(&code))
    {
        keep::remember_room(&code, &secret);
        open.run(Open::Room(code, secret));
    }
    move || match shown.get() {
        Some(ctx) => view! { <Room ctx /> }.into_any(),
        None => view! { <Setup open /> }.into_any(),
    }
}

#[component]
fn Room(ctx: Ctx) -> impl IntoView {
    provide_context(ctx);
    follow_keys(ctx);
    let live = move || !ctx.is_replay();
    view! {
        <Bar />
        <Trouble />
        <div class="stage">
            <Hall />
            <Numbers />
            <div class="steer">
                <Show when=live fallback=|| view! { <Player /> }>
                    <Rounds />
                    <Compare />
                    <World />
                </Show>
            </div>
        </div>
        <Show when=move || ctx.overlay.get() == Overlay::Qr><Qr /></Show>
        <Show when=move || ctx.overlay.get() == Overlay::People><People /></Show>
    }
}

fn follow_keys(ctx: Ctx) {
    let keys = window_event_listener(leptos::ev::keydown, move |event| {
        if event.ctrl_key() || event.meta_key() || event.alt_key() || dom::in_text_field(event.target()) {
            return;
        }
        let live = ctx.replay.with_untracked(Option::is_none);
        match event.key().as_str() {
            "q" if live => ctx.toggle(Overlay::Qr),
            "m" if live => ctx.toggle(Overlay::People),
            "p" if live => ctx.set(|settings| settings.paused = !settings.paused),
            "e" if live => ctx.command(Command::EndRound),
            "Escape" => ctx.overlay.set(Overlay::None),
            _ => return,
        }
        event.prevent_default();
    });
    on_cleanup(move || keys.remove());
}

/// What is wrong, and what to do.
#[component]
fn Trouble() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let text = move || {
        let own = match ctx.status.get() {
            Status::Waiting { failures, .. } if failures < 3 => {
                Some("The connection was cut; trying again.".to_owned())
            }
            Status::Waiting { .. } => {
                Some("The server cannot be reached; trying again. The phones keep their places.".to_owned())
            }
            Status::Ended { code, reason } => Some(why_ended(code, reason)),
            _ => None,
        };
        own.or_else(|| ctx.state.with(|state| state.refused.clone())).or_else(|| ctx.notice.get())
    };
    let close = move |_| {
        if ctx.status.with_untracked(|status| matches!(status, Status::Ended { .. })) {
            let _ = window().location().set_href("room.html");
        }
        ctx.state.update(|state| state.refused = None);
        ctx.notice.set(None);
        ctx.hurry();
    };
    view! {
        <div class="trouble" role="status" hidden=move || text().is_none()>
            <p data-testid="trouble">{text}</p>
            <button on:click=close>"OK"</button>
        </div>
    }
}
