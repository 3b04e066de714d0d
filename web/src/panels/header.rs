//! Name, health of the server, tier of this tab, and the page's own buttons.

use client::protocol::worker::Tier;
use leptos::prelude::*;

use crate::ctx::ctx;
use crate::format;
use crate::panels::share::Share;
use crate::settings::{Theme, View};
use crate::state::Phase;
use crate::url::wire_name;

/// The bar on top.
#[component]
pub fn Header() -> impl IntoView {
    let ctx = ctx();
    let theme = move || ctx.settings.with(|s| s.theme);
    view! {
        <header class="header">
            <a class="brand" href="./">
                <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
                    <circle class="mark-device" cx="12" cy="16" r="8.5" />
                    <circle class="mark-server" cx="20" cy="16" r="8.5" />
                </svg>
                <span class="brand-name">"Tandem"</span>
                <span class="brand-line">"Two language models, one answer"</span>
            </a>
            <div class="vitals">
                <ServerHealth />
                <TierBadge />
            </div>
            <nav class="views" aria-label="Views">
                {[(View::Playground, "Playground"), (View::Chat, "Chat"), (View::Compact, "Compact"), (View::Train, "Training")]
                    .map(|(view, name)| view! {
                        <button
                            class="quiet"
                            data-testid=format!("view-{}", wire_name(view))
                            aria-current=move || (ctx.settings.with(|s| s.view) == view).then_some("page")
                            on:click=move |_| ctx.set(|s| s.view = view)
                        >
                            {name}
                        </button>
                    })
                    .collect_view()}
                <a class="view-link" href="room.html">"Room"</a>
            </nav>
            <div class="tools">
                <button class="quiet" on:click=move |_| ctx.tour.set(Some(0))>"Tour"</button>
                <Share />
                <button
                    class="quiet"
                    aria-pressed=move || ctx.settings.with(|s| s.hide_controls).to_string()
                    on:click=move |_| ctx.set(|s| s.hide_controls = !s.hide_controls)
                >
                    {move || if ctx.settings.with(|s| s.hide_controls) { "All panels" } else { "Focus" }}
                </button>
                <button
                    class="quiet"
                    data-testid="theme"
                    aria-label=move || format!("Colours: {}. Change.", theme().name())
                    on:click=move |_| ctx.set(|s| s.theme = s.theme.next())
                >
                    {move || match theme() {
                        Theme::Auto => "◐ Auto",
                        Theme::Light => "○ Light",
                        Theme::Dark => "● Dark",
                    }}
                </button>
            </div>
        </header>
    }
}

/// Whether the server answers, which model it runs and how far away it is.
#[component]
fn ServerHealth() -> impl IntoView {
    let ctx = ctx();
    let server = Memo::new(move |_| ctx.state.with(|s| s.server.clone()));
    let up = move || server.with(|s| s.as_ref().is_some_and(|s| s.up));
    view! {
        <div class="vital" data-testid="server-health" data-up=move || up().to_string()>
            <span class="lamp" class:on=up class:off=move || server.with(|s| s.as_ref().is_some_and(|s| !s.up)) aria-hidden="true"></span>
            <span class="vital-name">"Server"</span>
            <span class="vital-value">
                {move || server.with(|server| match server {
                    None => "connecting …".to_owned(),
                    Some(s) if s.up => {
                        let model = s.model.clone().unwrap_or_else(|| format::NA.to_owned());
                        s.rtt_ms.map_or(model.clone(), |ms| format!("{model} · {}", format::millis(ms)))
                    }
                    Some(s) => s.problem.clone().unwrap_or_else(|| "does not answer".to_owned()),
                })}
            </span>
        </div>
    }
}

/// Which engine this tab got, and why.
#[component]
fn TierBadge() -> impl IntoView {
    let ctx = ctx();
    let tier = Memo::new(move |_| {
        ctx.state.with(|s| match (&s.phase, &s.tier) {
            (Phase::Absent(reason), _) => {
                Some((Tier::ServerOnly, String::new(), format!("The engine does not run in this tab: {reason}")))
            }
            (_, Some(t)) => Some((t.tier, t.device.clone(), t.reason.clone())),
            _ => None,
        })
    });
    let name = move |tier: Tier| match tier {
        Tier::WebGpu => "WebGPU",
        Tier::Cpu => "CPU",
        Tier::ServerOnly => "server only",
    };
    view! {
        <details class="vital tier" data-testid="tier" data-tier=move || tier.with(|t| t.as_ref().map(|t| wire_name(t.0)))>
            <summary>
                <span class="lamp" class:on=move || tier.with(|t| t.as_ref().is_some_and(|t| t.0 != Tier::ServerOnly)) aria-hidden="true"></span>
                <span class="vital-name">"This tab"</span>
                <span class="vital-value">
                    {move || tier.with(|t| t.as_ref().map_or("starting …".to_owned(), |(tier, device, _)| {
                        if device.is_empty() { name(*tier).to_owned() } else { format!("{} · {device}", name(*tier)) }
                    }))}
                </span>
            </summary>
            <p class="tier-why">{move || tier.with(|t| t.as_ref().map(|t| t.2.clone()))}</p>
        </details>
    }
}
