//! The model of this tab: what it is, what it will take, where it is, and what can be done with it.

use client::protocol::engine::{ModelSource, StoreAs, Verdict};
use client::protocol::manifest::ModelEntry;
use client::protocol::worker::{Command, Fit, ModelState, Pair, Tier};
use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use wasm_bindgen::JsCast;

use crate::ctx::ctx;
use crate::state::{Kind, Phase, State, compact_source};
use crate::url::wire_name;
use crate::{format, geometry, source};

/// Contexts that can be chosen, tokens.
const CONTEXTS: [u32; 6] = [512, 1024, 2048, 4096, 8192, 32_768];

/// Where drop.js says which folder the files came from.
const FOLDER: &str = "data-folder";

/// State of the model as the page names it.
fn name(state: &ModelState) -> &'static str {
    match state {
        ModelState::Absent => "absent",
        ModelState::Partial { .. } => "partial",
        ModelState::Cached => "cached",
        ModelState::Downloading { .. } => "downloading",
        ModelState::Loading { .. } => "loading",
        ModelState::Testing { .. } => "testing",
        ModelState::Ready { .. } => "ready",
        ModelState::Failed { .. } => "failed",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a progress bar")]
fn progress(state: &ModelState) -> Option<f64> {
    match state {
        ModelState::Downloading { received, total } | ModelState::Partial { received, total } => {
            Some(geometry::along(*received as f64, *total as f64))
        }
        ModelState::Loading { read: part, total: total @ 1.. } | ModelState::Testing { over: part, total } => {
            Some(geometry::along(*part as f64, *total as f64))
        }
        _ => None,
    }
}

fn sentence(state: &State) -> String {
    if state.phase == Phase::Ready && state.tier.as_ref().is_some_and(|t| t.tier == Tier::ServerOnly) {
        return "This tab cannot run it; the server answers.".into();
    }
    if matches!(state.phase, Phase::Absent(_)) {
        return "The engine does not run in this tab; the server answers.".into();
    }
    let size = state.model_bytes().map_or_else(|| format::NA.to_owned(), format::bytes);
    match state.model() {
        ModelState::Absent => match (&state.source, state.waits) {
            (ModelSource::File { .. } | ModelSource::Files { .. }, _) => "On your disk, not in memory.".into(),
            (_, Some(why)) if state.by_itself().is_some() => {
                format!("Not on this device. It waits to be asked for, since {why}.")
            }
            _ => "Not on this device. It is downloaded once and kept.".into(),
        },
        ModelState::Partial { received, total } => {
            format!("{} of {} are here. The download can go on.", format::bytes(*received), format::bytes(*total))
        }
        ModelState::Cached => format!("On this device ({size}), not in memory."),
        ModelState::Downloading { received, total } => {
            format!("{} of {}", format::bytes(*received), format::bytes(*total))
        }
        ModelState::Loading { total: 0, .. } => "Being checked and put into memory …".into(),
        ModelState::Loading { read, total } => {
            format!("{} of {} are read into memory …", format::bytes(*read), format::bytes(*total))
        }
        ModelState::Testing { over, total } => {
            format!("Its kernels are tested on this GPU, once: {over} of {total} trials done …")
        }
        ModelState::Ready { memory_bytes } => {
            let by_itself = match state.by_itself() {
                Some(why) if state.unasked => format!(" This page loaded it by itself, since {why} ({size})."),
                _ => String::new(),
            };
            format!("Ready. Its weights take {}.{by_itself}", format::bytes(*memory_bytes))
        }
        ModelState::Failed { message } => message.clone(),
    }
}

/// What is known of the model itself.
fn description(state: &State) -> Option<String> {
    #[expect(clippy::cast_precision_loss, reason = "a count for people")]
    let count = |parameters: u64| format::si(parameters as f64, "");
    if let Some(entry) = state.entry() {
        let measured = match entry.accuracy.single_hop {
            0.0 => entry.licence.clone(),
            single => format!(
                "{} right on one-fact questions, {} on two-fact ones",
                format::percent(single),
                format::percent(entry.accuracy.two_hop)
            ),
        };
        return Some(format!("{} parameters · {} · {measured}", count(entry.parameters), entry.quantisation));
    }
    let verdict = state.verdict.as_ref()?.as_ref().ok()?;
    Some(format!("{} · {} parameters · {}", verdict.name, count(verdict.parameters), verdict.quantisation))
}

/// The verdict in a sentence. What there is to download is said until it comes.
fn memory_sentence(verdict: &Verdict, state: &ModelState) -> String {
    let memory = if verdict.tier == Tier::WebGpu { "GPU memory" } else { "WebAssembly memory" };
    let under_way = matches!(
        state,
        ModelState::Downloading { .. }
            | ModelState::Loading { .. }
            | ModelState::Testing { .. }
            | ModelState::Ready { .. }
    );
    format!(
        "{}{} of {memory} with a context of {} tokens ({} weights, {} cache) · {} while loading",
        match verdict.download_bytes {
            _ if under_way => String::new(),
            0 => "Nothing to download · ".to_owned(),
            bytes => format!("{} to download · ", format::bytes(bytes)),
        },
        format::bytes(verdict.weight_bytes + verdict.cache_bytes),
        verdict.context,
        format::bytes(verdict.weight_bytes),
        format::bytes(verdict.cache_bytes),
        format::bytes(verdict.load_bytes),
    )
}

/// What the verdict says, line by line, and whether the model fits; nothing where the model's state says the same already.
struct VerdictText {
    fits: bool,
    lines: Vec<String>,
}

fn said(state: &State) -> Option<VerdictText> {
    match (state.verdict.as_ref()?, state.model()) {
        (Err(problem), ModelState::Failed { message }) if problem == message => None,
        (Err(problem), _) => Some(VerdictText { fits: false, lines: vec![problem.clone()] }),
        (Ok(verdict), model) => {
            let mut lines = vec![memory_sentence(verdict, model)];
            lines.extend_from_slice(&verdict.remarks);
            lines.extend(verdict.advice.clone());
            Some(VerdictText { fits: verdict.fits, lines })
        }
    }
}

/// The panel.
#[component]
pub fn ModelPanel() -> impl IntoView {
    let ctx = ctx();
    let state = Memo::new(move |_| ctx.state.with(|s| s.model().clone()));
    let usable = Memo::new(move |_| {
        ctx.state.with(|s| s.phase == Phase::Ready && s.tier.as_ref().is_some_and(|t| t.tier != Tier::ServerOnly))
    });
    let can_load = move || {
        usable.get()
            && state.with(|s| {
                matches!(
                    s,
                    ModelState::Absent | ModelState::Partial { .. } | ModelState::Cached | ModelState::Failed { .. }
                )
            })
    };
    let own = Memo::new(move |_| ctx.state.with(|s| s.source == compact_source()));
    let pair = Memo::new(move |_| ctx.state.with(|s| s.pair.clone()));
    let load_label = move || {
        let size = ctx.state.with(State::model_bytes).map(format::bytes);
        let size = size.map_or_else(String::new, |size| format!(" ({size})"));
        state.with(|s| match s {
            ModelState::Partial { .. } => "Continue the download".to_owned(),
            ModelState::Cached => "Load".to_owned(),
            ModelState::Failed { .. } => format!("Try again{size}"),
            _ if own.get() => format!("Load the compact model{size}"),
            _ => format!("Load{size}"),
        })
    };
    // Inspected anew whenever something changes that the verdict depends on.
    let question = Memo::new(move |_| {
        let settled = !state.with(ModelState::is_coming);
        ctx.state
            .with(|s| (s.choice, s.context, s.tier.as_ref().map(|t| t.tier), s.models.len(), usable.get() && settled))
    });
    Effect::new(move |_| {
        if question.with(|(.., ready)| *ready) {
            ctx.inspect();
        }
    });
    view! {
        <section class="panel model" id="model" aria-labelledby="model-title">
            <div class="model-text" data-testid="model-state" data-state=move || state.with(name)>
                <h2 id="model-title">
                    <span class="swatch device" aria-hidden="true"></span>
                    {move || ctx.state.with(State::model_name)}
                </h2>
                <p class="model-state">{move || ctx.state.with(sentence)}</p>
                <p class="model-facts">{move || ctx.state.with(description)}</p>
                <Show when=move || state.with(|s| progress(s).is_some())>
                    <div
                        class="progress"
                        role="progressbar"
                        aria-label="Download and loading"
                        aria-valuemin="0"
                        aria-valuemax="100"
                        aria-valuenow=move || state.with(|s| format!("{:.0}", progress(s).unwrap_or(0.0)))
                    >
                        <div class="progress-bar" style:width=move || format!("{:.1}%", state.with(|s| progress(s).unwrap_or(0.0)))></div>
                    </div>
                </Show>
                {move || verdict_view(ctx.state.with(said))}
                {move || pair.get().map(|pair| view! { <PairNote pair /> })}
            </div>
            <div class="model-buttons">
                <Show when=can_load>
                    <button class="primary" data-testid="load-model" on:click=move |_| ctx.load_model()>{load_label}</button>
                </Show>
                <Show when=move || state.with(ModelState::is_coming)>
                    <CancelLoad />
                </Show>
                <Show when=move || state.with(|s| matches!(s, ModelState::Cached | ModelState::Partial { .. } | ModelState::Ready { .. }))>
                    <button
                        class="quiet"
                        data-testid="delete-model"
                        on:click=move |_| ctx.delete_model()
                    >
                        "Delete"
                    </button>
                </Show>
            </div>
            <OtherModel own />
        </section>
    }
}

/// What it stops may take a moment to end: a trial on the GPU, a piece of the file.
#[component]
fn CancelLoad() -> impl IntoView {
    let ctx = ctx();
    let pressed = RwSignal::new(false);
    let cancel = move |_| {
        if !pressed.get_untracked() {
            pressed.set(true);
            ctx.send(Command::CancelLoad);
        }
    };
    // Not `disabled`, which would take the keyboard's focus away.
    view! {
        <button data-testid="cancel-load" aria-disabled=move || pressed.get().then_some("true") on:click=cancel>
            {move || if pressed.get() { "Stopping …" } else { "Cancel" }}
        </button>
    }
}

fn verdict_view(said: Option<VerdictText>) -> AnyView {
    let Some(VerdictText { fits, lines }) = said else { return ().into_any() };
    view! {
        <ul class="model-verdict" class:refused=!fits data-testid="verdict" data-fits=fits.to_string()>
            {lines.into_iter().map(|line| view! { <li>{line}</li> }).collect_view()}
        </ul>
    }
    .into_any()
}

/// Whether this model and the server's belong together. Said where they do not, or where that cannot be seen.
#[component]
fn PairNote(pair: Pair) -> impl IntoView {
    let ctx = ctx();
    let Pair { fit, message, offer } = pair;
    let take = move |id: String| {
        ctx.choose(ModelSource::Server { id }, Vec::new());
        ctx.load_model();
    };
    view! {
        <p class="model-pair" class:refused=fit == Fit::Different hidden=fit == Fit::Same data-testid="pair" data-fit=wire_name(fit)>
            {message}
            {offer.map(|id| view! { " "<button class="textual" data-testid="take-pair" on:click=move |_| take(id.clone())>"Load it"</button> })}
        </p>
    }
}

/// The models of the server's list.
#[component]
fn Picker() -> impl IntoView {
    let ctx = ctx();
    // Not drawn anew with every token.
    let offered = Memo::new(move |_| {
        ctx.state.with(|s| {
            let option = |entry: &ModelEntry| {
                let here = match s.model_states.get(&entry.id) {
                    Some(ModelState::Cached | ModelState::Ready { .. }) => " · on this device",
                    _ => "",
                };
                let label = format!("{} · {} · {}{here}", entry.name, format::bytes(entry.bytes), entry.licence);
                (entry.id.clone(), label, s.source.id() == entry.id)
            };
            s.models.iter().map(option).collect::<Vec<_>>()
        })
    });
    let pick = move |event: leptos::ev::Event| {
        let id = event_target_value(&event);
        if !id.is_empty() {
            ctx.choose(ModelSource::Server { id }, Vec::new());
        }
    };
    view! {
        <label class="field">
            "From the catalogue"
            <select data-testid="model-picker" on:change=pick>
                <option value="">"…"</option>
                {move || {
                    let option = |(id, label, chosen): (String, String, bool)| view! { <option value=id selected=chosen>{label}</option> };
                    offered.get().into_iter().map(option).collect_view()
                }}
            </select>
        </label>
    }
}

/// A model from elsewhere: an address, a hub's name, files that are picked or (by drop.js) dropped anywhere on the page.
#[component]
fn OtherModel(own: Memo<bool>) -> impl IntoView {
    let ctx = ctx();
    let address = NodeRef::<leptos::html::Input>::new();
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let text = address.get_untracked().map(|input| input.value()).unwrap_or_default();
        match source::parse(&text) {
            Ok(source) => ctx.choose(source, Vec::new()),
            Err(problem) => ctx.notify(Kind::Problem, problem),
        }
    };
    let picked = move |event: leptos::ev::Event| {
        let input: Option<web_sys::HtmlInputElement> = event.target().and_then(|target| target.dyn_into().ok());
        let Some(input) = input else { return };
        let list = input.files();
        let mut files: Vec<web_sys::File> =
            list.iter().flat_map(|list| (0..list.length()).filter_map(|n| list.get(n))).collect();
        let folder = input.get_attribute(FOLDER).unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of files")]
        let named: Vec<_> = files.iter().map(|file| (file.name(), file.size() as u64)).collect();
        // The same files can be picked again.
        input.set_value("");
        let _ = input.remove_attribute(FOLDER);
        if let Some((source, first)) = source::of_files(&named, folder) {
            files.swap(0, first);
            ctx.choose(source, files);
        }
    };
    view! {
        <details class="more model-other">
            <summary data-testid="other-model">"Another model"</summary>
            <Picker />
            <p class="muted">"A GGUF file, or a safetensors checkpoint’s files or folder: drop them onto this page, pick them, or name an address."</p>
            <form class="model-row" on:submit=submit>
                <label class="field model-address">
                    "Address, or organisation/repository, with or without /file.gguf"
                    <input type="text" node_ref=address data-testid="model-address" spellcheck="false" autocomplete="off" />
                </label>
                <button data-testid="model-inspect">"Look"</button>
            </form>
            <div class="model-row">
                <label class="field">
                    "Files"
                    <input
                        type="file"
                        id="model-file"
                        multiple
                        accept=".gguf,.safetensors,.json,.jinja"
                        data-testid="model-file"
                        on:change=picked
                    />
                </label>
                <label class="field">
                    "Context"
                    <select
                        data-testid="model-context"
                        on:change=move |event| ctx.state.update(|s| s.context = event_target_value(&event).parse().ok())
                    >
                        <option value="">"the model's own"</option>
                        {CONTEXTS.map(|tokens| view! { <option value=tokens.to_string()>{format!("{tokens} tokens")}</option> })}
                    </select>
                </label>
                <label class="field">
                    "Safetensors as"
                    <select
                        data-testid="model-store"
                        on:change=move |event| {
                            let name = event_target_value(&event);
                            ctx.state.update(|s| s.store(StoreAs::ALL.into_iter().find(|one| one.name() == name)));
                        }
                    >
                        {StoreAs::ALL.map(|one| view! { <option>{one.name()}</option> })}
                    </select>
                </label>
                <Show when=move || !own.get()>
                    <button class="quiet" data-testid="own-model" on:click=move |_| ctx.choose(compact_source(), Vec::new())>
                        "Back to the compact model"
                    </button>
                </Show>
            </div>
        </details>
    }
}
