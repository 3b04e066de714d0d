//! The phone's screen: who I am, what was decided for me, my question. Made for one hand and a dark hall.

use client::protocol::rooms::down::Decision;
use client::protocol::rooms::{CODE_CHARS, Part, tidy_code};
use leptos::prelude::*;
use web::{dom, format};

use super::ask::{AnswerCard, AskBar};
use super::choice::Choice;
use super::ctx::Ctx;
use super::map::Map;
use super::state::State;
use crate::keep;
use crate::link::{Status, why_ended};

/// The page.
#[component]
pub fn App() -> impl IntoView {
    // Another code in the same tab is another room: everything begins anew.
    let _ = window_event_listener_untyped("hashchange", |_| drop(window().location().reload()));
    match keep::of_address().0 {
        Some(code) => view! { <Phone code /> }.into_any(),
        None => view! { <CodeForm /> }.into_any(),
    }
}

/// Where a code is typed that was not scanned.
#[component]
fn CodeForm() -> impl IntoView {
    let typed = RwSignal::new(String::new());
    let code = Memo::new(move |_| typed.with(|typed| tidy_code(typed)));
    let join = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        if let Some(code) = code.get_untracked() {
            let _ = window().location().set_hash(&code);
        }
    };
    view! {
        <form class="code-form" on:submit=join>
            <h1>"Join a room"</h1>
            <label for="code">"The code on the screen"</label>
            <input
                id="code"
                class="code-box"
                type="text"
                data-testid="code"
                autocomplete="off"
                autocapitalize="characters"
                spellcheck="false"
                maxlength=(CODE_CHARS + 1).to_string()
                placeholder="BCD234"
                on:input:target=move |event| typed.set(event.target().value())
            />
            <p class="hint">
                {move || match (code.get(), typed.with(String::len)) {
                    (Some(_), _) => "",
                    (None, length) if length >= CODE_CHARS => "A code has six characters, without vowels and without 0 and 1.",
                    (None, _) => "Six letters and digits.",
                }}
            </p>
            <button class="primary" data-testid="join" disabled=move || code.get().is_none()>"Join"</button>
        </form>
    }
}

#[component]
fn Phone(code: String) -> impl IntoView {
    let ctx = Ctx::join(code.clone());
    provide_context(ctx);
    let mlu = Memo::new(move |_| ctx.state.with(|s| s.seat.as_ref().map(|seat| seat.mlu)));
    let ended = Memo::new(move |_| ctx.status.with(|status| matches!(status, Status::Ended { .. })));
    view! {
        <header class="top">
            <p class="who" data-testid="mlu" data-mlu=move || mlu.get().map(|mlu| mlu.to_string())>
                {move || mlu.get().map_or_else(|| "Joining …".to_owned(), |mlu| format!("MLU {mlu}"))}
            </p>
            <p class="where">
                <Connection />
                <span>{format!("room {code}")}{move || cell_of(ctx)}</span>
            </p>
            <button class="quiet theme" aria-label="Light or dark" on:click=move |_| keep::change_theme()>"◐"</button>
        </header>
        <Trouble />
        <Show when=move || mlu.get().is_some() && !ended.get()>
            <Show when=move || ctx.has_chosen.get() fallback=|| view! { <Choice /> }>
                <Nudge />
                <AnswerCard />
            </Show>
            <DecisionCard />
            <Map />
            <Times />
            <Foot />
            <Show when=move || ctx.has_chosen.get() && ctx.state.with(State::part) != Part::LoadOnly>
                <AskBar />
            </Show>
        </Show>
    }
}

fn cell_of(ctx: Ctx) -> Option<String> {
    ctx.state.with(|s| s.seat.as_ref().map(|seat| format!(" · cell {}", seat.cell)))
}

/// A lamp, and a word for it.
#[component]
fn Connection() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let name = move || ctx.status.with(Status::name);
    view! {
        <span
            class="lamp"
            class:on=move || name() == "open"
            class:off=move || matches!(name(), "waiting" | "ended")
            data-testid="connection"
            data-status=name
            role="img"
            aria-label=move || format!("Connection: {}", name())
        ></span>
    }
}

/// What is wrong with the connection, or stands in the way, and what to do.
#[component]
fn Trouble() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let tick = RwSignal::new(0u32);
    let _ =
        set_interval_with_handle(move || tick.update(|n| *n = n.wrapping_add(1)), std::time::Duration::from_secs(1));
    let text = move || match ctx.status.get() {
        Status::Waiting { failures, until_ms } => {
            tick.track();
            let left = ((until_ms - dom::now_ms()) / 1e3).ceil().max(0.0);
            let when = if left < 1.0 { "now".to_owned() } else { format!("in {left:.0} s") };
            let what = if failures < 3 { "The connection was cut." } else { "The room cannot be reached." };
            Some(format!("{what} Your place is kept; trying again {when}."))
        }
        Status::Ended { code, reason } => Some(why_ended(code, reason)),
        _ => ctx.state.with(|s| match &s.seat {
            Some(seat) if seat.muted => Some("The presenter took this phone out of the slots for now.".to_owned()),
            Some(_) if s.paused => Some("The presenter has paused the room.".to_owned()),
            _ => None,
        }),
    };
    let again = move || match ctx.status.get() {
        Status::Waiting { .. } => Some("Try now"),
        Status::Ended { .. } => Some("Join again"),
        _ => None,
    };
    let act = move |_| match ctx.status.get_untracked() {
        Status::Ended { .. } => drop(window().location().reload()),
        _ => ctx.hurry(),
    };
    view! {
        <div class="trouble" role="status" hidden=move || text().is_none()>
            <p data-testid="trouble">{text}</p>
            <button hidden=move || again().is_none() on:click=act>{move || again().unwrap_or_default()}</button>
        </div>
    }
}

/// A round that waits for this person's own question.
#[component]
fn Nudge() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let open = move || ctx.state.with(|s| s.round.as_ref().filter(|round| round.open).map(|round| round.round));
    let is_due = move || ctx.nudge.get().is_some_and(|round| open() == Some(round));
    view! {
        <p class="nudge" role="alert" data-testid="nudge" hidden=move || !is_due()>
            <strong>{move || ctx.nudge.get().map(|round| format!("Round {round}. "))}</strong>
            "Everybody asks now: type a question and send it."
        </p>
    }
}

/// α and p, and why.
#[component]
fn DecisionCard() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let with = move |read: fn(&Decision) -> String| {
        move || ctx.state.with(|s| s.decision.as_ref().map_or_else(|| format::NA.to_owned(), read))
    };
    let alpha = move || ctx.state.with(|s| s.decision.as_ref().map(|own| own.outcome.alpha));
    view! {
        <section class="card" aria-label="What was decided for this phone" data-testid="decision" data-alpha=move || alpha().map(|a| format!("{a:.4}"))>
            <div class="dials">
                <div>
                    <p class="dial">{with(|d| format::percent(d.outcome.alpha))}</p>
                    <p class="hint">"α, to the server"</p>
                </div>
                <div>
                    <p class="dial">{with(|d| format::watts(d.outcome.power_w))}</p>
                    <p class="hint">{with(|d| format!("p, of {}", format::watts(d.power_max_w)))}</p>
                </div>
                <div>
                    <p class="dial">{with(|d| format::rate(d.outcome.rate_bps))}</p>
                    <p class="hint">{with(|d| format!("uplink; alone {}", format::rate(d.alone_bps)))}</p>
                </div>
            </div>
            <span class="split" class:unknown=move || alpha().is_none() aria-hidden="true">
                <span style:width=move || format!("{:.1}%", 100.0 * alpha().unwrap_or(0.0))></span>
            </span>
            <p class="why" data-testid="why">
                {move || ctx.state.with(|s| match &s.decision {
                    Some(own) => own.sentence(s.part()),
                    None => "The first decision comes with the next slot.".to_owned(),
                })}
            </p>
        </section>
    }
}

/// My latency against the room's.
#[component]
fn Times() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let own = move || ctx.state.with(|s| s.decision.as_ref().map(|own| own.outcome.latency_s));
    let room = move || ctx.state.with(|s| s.numbers().latency_median_s);
    let own_measured = move || ctx.meter.with(|meter| meter.latency_s);
    let room_measured = move || ctx.state.with(|s| s.numbers().measured_latency_median_s);
    view! {
        <section class="card times" aria-label="Latency">
            <h2>"Latency"</h2>
            {times("The slot, modelled", own, room)}
            {times("Answers, measured", own_measured, room_measured)}
        </section>
    }
}

fn times(
    title: &'static str,
    own: impl Fn() -> Option<f64> + Copy + Send + Sync + 'static,
    room: impl Fn() -> Option<f64> + Copy + Send + Sync + 'static,
) -> impl IntoView {
    let end = move || own().unwrap_or(0.0).max(room().unwrap_or(0.0)).max(f64::MIN_POSITIVE);
    let bar = move |value: Option<f64>| format!("width:{:.1}%", 100.0 * value.unwrap_or(0.0) / end());
    view! {
        <h3>{title}</h3>
        <p class="time own"><span>"me"</span><i><b style=move || bar(own())></b></i><span class="num">{move || format::or_na(own(), format::seconds)}</span></p>
        <p class="time"><span>"room"</span><i><b style=move || bar(room())></b></i><span class="num">{move || format::or_na(room(), format::seconds)}</span></p>
    }
}

/// Name, way to take part, counts, leaving.
#[component]
fn Foot() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let name = move || ctx.state.with(|s| s.seat.as_ref().map(|seat| seat.name.clone()).unwrap_or_default());
    let count = move |read: fn(&super::meter::Meter) -> u32| move || ctx.meter.with(read).to_string();
    view! {
        <section class="card foot">
            <label class="field">
                "My name on the screen"
                <input type="text" maxlength="24" data-testid="name" prop:value=name on:change:target=move |event| ctx.name(event.target().value()) />
            </label>
            <p class="hint" data-testid="counts">
                <span data-testid="answers">{count(|m| m.answers)}</span>" answered since this page was opened; tokens: "
                <span data-testid="device-tokens">{count(|m| m.all_device_tokens)}</span>" written here, "
                <span data-testid="server-tokens">{count(|m| m.all_server_tokens)}</span>" by the server. "
                {move || if ctx.is_awake.get() { "The screen stays on. " } else { "" }}
                {move || ctx.battery.get().map(|charge| format!("Battery {}.", format::percent(charge)))}
            </p>
            <details class="hint" hidden=!keep::has_own_certificate()>
                <summary>"Why the phone warned of this page"</summary>
                <p>
                    "The server in this hall made its certificate itself, so no authority vouches for who it is. The connection is \
                    encrypted all the same. Type no passwords here; the page wants none."
                </p>
            </details>
            <p class="foot-buttons">
                <button class="quiet" on:click=move |_| ctx.has_chosen.set(false)>"Take part in another way"</button>
                <button class="quiet" data-testid="leave" on:click=move |_| ctx.leave()>"Leave the room"</button>
            </p>
        </section>
    }
}
