//! The frame around the panels, and what connects settings, link, worker and keyboard.

use std::time::Duration;

use leptos::prelude::*;
use wasm_bindgen::{JsCast, JsValue};

use crate::ctx::Ctx;
use crate::panels::{
    answers::Answers, cell::Cell, chat::Chat, compact::Compact, controls::Controls, decision::Decision, header::Header,
    latency::Latency, log::Log, model::ModelPanel, notices::Notices, prompt::Prompt, quality::Quality, tour::Tour,
    train::Train,
};
use crate::settings::{Settings, Theme, View};
use crate::{chat_link, dom, late, player, url};

/// Where the theme is remembered; `theme.js` reads it before the first paint.
const THEME_KEY: &str = "tandem-theme";
/// The link follows the settings after a pause: browsers limit how often it may change.
const LINK_DELAY: Duration = Duration::from_millis(250);
/// The page is idle after so long without an ask; only then the second policy backend is fetched.
const IDLE: Duration = Duration::from_secs(5);

fn initial_settings() -> Settings {
    let mut settings = Settings::default();
    if let Some(theme) = dom::recall(THEME_KEY).and_then(|name| Theme::from_name(&name)) {
        settings.theme = theme;
    }
    url::decode_onto(&mut settings, &dom::query());
    url::decode_onto(&mut settings, &dom::fragment());
    settings
}

/// The whole page.
#[component]
pub fn App() -> impl IntoView {
    let ctx = Ctx::new(initial_settings());
    provide_context(ctx);
    follow_settings(ctx);
    follow_keyboard(ctx);
    ctx.start();
    player::start(ctx);
    late::watch(ctx);
    follow_idleness(ctx);
    chat_link::follow_context(ctx);
    let view_of = ctx.view;
    let is_chat = move || view_of.get() == View::Chat;

    view! {
        <Header />
        <div
            class="page"
            class:bare=move || ctx.settings.with(|s| s.hide_controls)
            // Hidden, not taken away: an answer goes on, and the map stays where it was.
            class:talk=is_chat
            hidden=move || !matches!(view_of.get(), View::Playground | View::Chat)
        >
            <div class="column">
                <div class="questions" hidden=is_chat>
                    <Prompt />
                </div>
                <div class="questions" hidden=move || !is_chat()>
                    <Chat />
                </div>
                <ModelPanel />
                <div class="questions" hidden=is_chat>
                    <Answers />
                </div>
                <Latency />
            </div>
            <div class="column">
                <Cell />
                <Decision />
                <Quality />
            </div>
            <div class="wide">
                <Controls />
                <Log />
            </div>
        </div>
        <Show when=move || view_of.get() == View::Compact>
            <Compact />
        </Show>
        <Show when=move || view_of.get() == View::Train>
            <Train />
        </Show>
        <footer class="footer">
            <p>
                "Everything here is real except the radio: the models run, the policy was trained, the channel is simulated. "
                "Measured values are measured; what is not known says N/A."
            </p>
            <p>
                <kbd>"/"</kbd> " question · " <kbd>"Enter"</kbd> " ask · " <kbd>"Shift"</kbd> " + " <kbd>"Enter"</kbd>
                " new line · " <kbd>"Esc"</kbd> " stop"
            </p>
        </footer>
        <Notices />
        <Tour />
    }
}

fn follow_settings(ctx: Ctx) {
    // World → worker.
    let world = Memo::new(move |_| ctx.settings.with(|s| s.world.clone()));
    Effect::new(move |_| {
        // Read, not only tracked: a memo that nobody reads never runs.
        world.with(|_| ());
        ctx.world_changed();
    });
    // A link's model → choice; before the worker says what it has.
    let model = Memo::new(move |_| ctx.settings.with(|s| s.model.clone()));
    Effect::new(move |_| model.with(|text| ctx.follow_link(text)));
    // Theme → document.
    let theme = Memo::new(move |_| ctx.settings.with(|s| s.theme));
    Effect::new(move |before: Option<Theme>| {
        let theme = theme.get();
        if let Some(root) = document().document_element() {
            let _ = root.set_attribute("data-theme", theme.name());
        }
        if before.is_some() {
            dom::remember(THEME_KEY, theme.name());
        }
        theme
    });
    // Settings → link, and a link that is pasted over the present one → settings.
    let pending = StoredValue::new(None::<TimeoutHandle>);
    Effect::new(move |before: Option<()>| {
        ctx.settings.track();
        if before.is_none() {
            return;
        }
        if let Some(timer) = pending.get_value() {
            timer.clear();
        }
        let timer = set_timeout_with_handle(move || write_link(ctx), LINK_DELAY);
        pending.set_value(timer.ok());
    });
    let _ = window_event_listener(leptos::ev::hashchange, move |_| {
        let mut settings = Settings { theme: ctx.settings.with_untracked(|s| s.theme), ..Settings::default() };
        url::decode_onto(&mut settings, &dom::fragment());
        ctx.settings.set(settings);
    });
}

/// Writes the settings into the link's fragment. The query loses what the fragment now says; flags stay.
fn write_link(ctx: Ctx) {
    let fragment = ctx.settings.with_untracked(url::encode);
    let flags: Vec<String> = dom::query()
        .trim_start_matches('?')
        .split('&')
        .filter(|pair| pair.starts_with("record="))
        .map(str::to_owned)
        .collect();
    let path = window().location().pathname().unwrap_or_default();
    let query = if flags.is_empty() { String::new() } else { format!("?{}", flags.join("&")) };
    let hash = if fragment.is_empty() { String::new() } else { format!("#{fragment}") };
    if let Ok(history) = window().history() {
        let _ = history.replace_state_with_url(&JsValue::NULL, "", Some(&format!("{path}{query}{hash}")));
    }
}

fn follow_keyboard(ctx: Ctx) {
    let _ = window_event_listener(leptos::ev::keydown, move |event| match event.key().as_str() {
        "/" if !event.ctrl_key() && !event.meta_key() && !dom::in_text_field(event.target()) => {
            let box_id = if ctx.view.get_untracked() == View::Chat { "chat-box" } else { "prompt-box" };
            if let Some(prompt) = document().get_element_by_id(box_id) {
                event.prevent_default();
                let _ = prompt.unchecked_into::<web_sys::HtmlElement>().focus();
            }
        }
        "Escape" if ctx.tour.get_untracked().is_some() => ctx.tour.set(None),
        "Escape" => ctx.stop(),
        _ => {}
    });
}

/// Looks for a quiet moment to fetch the second policy backend.
fn follow_idleness(ctx: Ctx) {
    let wants = Memo::new(move |_| ctx.gpu_policy_there.get() && ctx.state.with(crate::state::State::wants_gpu_policy));
    Effect::new(move |_| {
        if wants.get() {
            set_timeout(move || ctx.consider_gpu_policy(), IDLE);
        }
    });
}
