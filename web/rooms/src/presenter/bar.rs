//! The bar on top: where to join, who is here, what can be done with the room.

use client::protocol::rooms::Presence;
use client::protocol::rooms::up::Command;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen_futures::JsFuture;
use web::dom;

use super::ctx::{Ctx, Overlay};
use super::export;
use super::words;
use crate::keep;
use crate::link::Status;

/// The address as it is read out: without scheme, and without the code that stands beside it.
pub fn short_address() -> String {
    let base = dom::base_url();
    let plain = base.split_once("://").map_or(base.as_str(), |(_, rest)| rest);
    format!("{plain}join")
}

/// The bar.
#[component]
pub fn Bar() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let live = move || !ctx.is_replay();
    let code = ctx.code.get_value();
    let title = move || match ctx.replay.with(|replay| replay.as_ref().map(|replay| replay.export.code.clone())) {
        Some(code) => format!("Replay of {}", words::spaced(&code)),
        None => words::spaced(&code),
    };
    let here = move || ctx.number(|room| room.active);
    let away = move || ctx.number(|room| room.away);
    let seats = move || ctx.state.with(|s| s.members.values().filter(|m| m.presence != Presence::Away).count());
    let status = move || ctx.status.with(Status::name);
    let settings = move || ctx.state.with(|s| (s.settings.locked, s.settings.paused));
    view! {
        <header class="bar">
            <div class="bar-join">
                <p class="code num" data-testid="code">{title}</p>
                <p class="bar-address" hidden=move || !live()>{short_address()}</p>
            </div>
            <div class="bar-people">
                <p>
                    <span class="big num" data-testid="active">{here}</span>
                    <span class="muted">" in the cells"</span>
                    <span class="muted" hidden=move || away() == 0>{move || format!(", {} away", away())}</span>
                    <span class="sr-only" data-testid="seats">{seats}</span>
                </p>
                <p class="muted num">
                    <span class="lamp" class:on=move || status() == "open" class:off=move || matches!(status(), "waiting" | "ended")
                        data-testid="connection" data-status=status role="img" aria-label=status></span>
                    {move || ctx.state.with(|s| format!(" slot {} · {}", s.picture.slot, words::decider(s.picture.decider)))}
                    {move || (settings().1 && live()).then_some(" · paused")}
                </p>
            </div>
            <div class="bar-tools" hidden=move || !live()>
                <button class="primary" data-testid="show-qr" on:click=move |_| ctx.toggle(Overlay::Qr)>"QR code "<kbd>"q"</kbd></button>
                <button data-testid="show-people" on:click=move |_| ctx.toggle(Overlay::People)>"Members "<kbd>"m"</kbd></button>
                <button data-testid="pause" on:click=move |_| ctx.set(|s| s.paused = !s.paused)>
                    {move || if settings().1 { "Go on " } else { "Pause " }}<kbd>"p"</kbd>
                </button>
                <button data-testid="lock" aria-pressed=move || settings().0.to_string() on:click=move |_| ctx.set(|s| s.locked = !s.locked)>
                    {move || if settings().0 { "Locked: let in" } else { "Lock" }}
                </button>
                <Files />
            </div>
            <button class="quiet" aria-label="Light or dark" on:click=move |_| keep::change_theme()>"◐"</button>
        </header>
    }
}

/// Exports, the presenter's own link, the end of the room.
#[component]
fn Files() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let get = move |ending: &'static str, mime: &'static str| {
        spawn_local(async move {
            if let Err(why) = export::download(&ctx.code.get_value(), &ctx.secret(), ending, mime).await {
                ctx.notice.set(Some(format!("The slots could not be exported: {why}")));
            }
        });
    };
    let copy = move |_| {
        let link = format!("{}room.html#{}/{}", dom::base_url(), ctx.code.get_value(), ctx.secret());
        spawn_local(async move {
            let written = JsFuture::from(window().navigator().clipboard().write_text(&link)).await;
            ctx.notice.set(Some(match written {
                Ok(_) => "The presenter’s link is copied. Whoever has it steers the room.".to_owned(),
                Err(_) => format!("This browser does not let the page copy. The presenter’s link is {link}"),
            }));
        });
    };
    let close = move |_| {
        if window()
            .confirm_with_message("Close the room for good? Its slots are deleted; export them first.")
            .unwrap_or(false)
        {
            ctx.command(Command::Close);
        }
    };
    view! {
        <details class="menu">
            <summary data-testid="menu">"More"</summary>
            <div class="menu-list">
                <button data-testid="export-json" on:click=move |_| get("json", "application/json")>"Export JSON (for a replay)"</button>
                <button data-testid="export-csv" on:click=move |_| get("csv", "text/csv")>"Export CSV"</button>
                <button on:click=copy>"Copy the presenter’s link"</button>
                <button on:click=move |_| drop(window().location().set_href("room.html"))>"Another room"</button>
                <button class="bad" data-testid="close-room" on:click=close>"Close the room"</button>
            </div>
        </details>
    }
}
