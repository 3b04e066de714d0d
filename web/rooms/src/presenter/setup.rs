//! Before there is a room: one is made, one that was left is taken up again, or a file is played.

use client::protocol::rooms::RoomSettings;
use client::protocol::rooms::rest::{NewRoom, RoomExport, RoomMade};
use client::protocol::rooms::settings::{CELL_MEMBERS, MOST_CELL_MEMBERS};
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web::api::{self, Ask};

use super::ctx::Ctx;
use super::{replay, words};
use crate::keep;

/// Largest file that is played, bytes.
const MAX_FILE: f64 = 300e6;
/// Slot periods to choose from, seconds.
const PERIODS: [f64; 5] = [0.2, 0.5, 1.0, 2.0, 5.0];

/// What is to be shown.
pub enum Open {
    /// A room, with the presenter's secret.
    Room(String, String),
    /// A file.
    File(Box<RoomExport>),
}

impl Open {
    /// Begins to show it.
    pub fn open(self) -> Ctx {
        match self {
            Self::Room(code, secret) => Ctx::present(&code, &secret),
            Self::File(export) => Ctx::play(*export),
        }
    }
}

/// The form.
#[component]
pub fn Setup(open: Callback<Open>) -> impl IntoView {
    let period = RwSignal::new(1.0);
    let members = RwSignal::new(CELL_MEMBERS);
    let seed = RwSignal::new(String::new());
    let problem = RwSignal::new(None::<String>);
    let busy = RwSignal::new(false);
    let make = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        busy.set(true);
        let settings = RoomSettings {
            period_s: period.get_untracked(),
            cell_members: members.get_untracked(),
            ..RoomSettings::default()
        };
        let request = NewRoom { seed: seed.get_untracked().trim().parse().ok(), settings };
        spawn_local(async move {
            let body = serde_json::to_string(&request).unwrap_or_default();
            let made = api::json::<RoomMade>(Ask { path: "api/rooms", json: Some(&body), ..Ask::default() }).await;
            busy.set(false);
            match made {
                Ok(made) => {
                    keep::remember_room(&made.code, &made.secret);
                    open.run(Open::Room(made.code, made.secret));
                }
                Err(why) => problem.set(Some(format!("No room was made: {}.", why.trim_end_matches('.')))),
            }
        });
    };
    let take = move |event: web_sys::Event| {
        let input = event.target().and_then(|target| target.dyn_into::<web_sys::HtmlInputElement>().ok());
        let Some(file) = input.and_then(|input| input.files()).and_then(|files| files.get(0)) else { return };
        if file.size() > MAX_FILE {
            return problem.set(Some("The file is larger than 300 MB; export fewer slots.".to_owned()));
        }
        spawn_local(async move {
            let text = JsFuture::from(file.text()).await.ok().and_then(|text| text.as_string()).unwrap_or_default();
            match replay::read(&text) {
                Ok(export) => open.run(Open::File(Box::new(export))),
                Err(why) => problem.set(Some(why)),
            }
        });
    };
    let kept: Vec<String> = keep::rooms().split_whitespace().map(str::to_owned).collect();
    let has_kept = !kept.is_empty();
    view! {
        <div class="setup">
            <header>
                <h1>"A room for phones"</h1>
                <p class="muted">
                    "Everybody in the hall scans a code and becomes a mobile user of one cell: compact models on the phones, the full "
                    "one on this server, and a policy that decides for all of them in every slot."
                </p>
            </header>
            <form class="card" on:submit=make>
                <h2>"Open a room"</h2>
                <div class="setup-fields">
                    <label class="field">
                        "A slot every"
                        <select data-testid="period" on:change:target=move |event| period.set(event.target().value().parse().unwrap_or(1.0))>
                            {PERIODS.map(|s| view! { <option value=s.to_string() selected={s == 1.0}>{format!("{s} s")}</option> })}
                        </select>
                    </label>
                    <label class="field">
                        "Phones in a cell"
                        <select data-testid="cell-members" on:change:target=move |event| members.set(event.target().value().parse().unwrap_or(CELL_MEMBERS))>
                            {(2..=MOST_CELL_MEMBERS).map(|n| view! { <option value=n.to_string() selected={n == CELL_MEMBERS}>{format!("up to {n}")}</option> }).collect_view()}
                        </select>
                    </label>
                    <label class="field">
                        "Seed"
                        <input type="text" inputmode="numeric" placeholder="drawn" data-testid="seed" on:input:target=move |event| seed.set(event.target().value()) />
                    </label>
                    <button class="primary" data-testid="open-room" disabled=move || busy.get()>"Open the room"</button>
                </div>
            </form>
            <p class="problem" role="alert" data-testid="problem" hidden=move || problem.with(Option::is_none)>{move || problem.get()}</p>
            <div class="card" hidden=!has_kept>
                <h2>"Go on with a room of yours"</h2>
                <p class="setup-rooms">
                    {kept
                        .into_iter()
                        .map(|code| {
                            let title = words::spaced(&code);
                            let go = move |_| match keep::known_secret(&code) {
                                Some(secret) => {
                                    keep::remember_room(&code, &secret);
                                    open.run(Open::Room(code.clone(), secret));
                                }
                                None => problem.set(Some("This browser has forgotten that room’s secret.".to_owned())),
                            };
                            view! { <button type="button" on:click=go>{title}</button> }
                        })
                        .collect_view()}
                </p>
            </div>
            <label class="card field">
                <h2>"Replay a room"</h2>
                "A file that was exported as JSON; no phones and no server are needed."
                <input type="file" accept=".json,application/json" data-testid="replay-file" on:change=take />
            </label>
            <p class="hint"><a href="./">"The playground with one simulated cell"</a></p>
        </div>
    }
}
