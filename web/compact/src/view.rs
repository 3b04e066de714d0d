//! The view, mounted by the page into an element of its own.

use client::protocol::manifest::{ModelEntry, ModelManifest};
use leptos::mount::UnmountHandle;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::prelude::*;
use web::api::{self, Ask};

use crate::pictures::{Cuts, Losses, Quality};
use crate::report::{PATH, Report, TEXT};
use crate::sides::Sides;
use crate::table::Table;

/// The style of this view alone, which comes with it.
const STYLE: &str = include_str!("compact.css");

/// What the view shows, once it is here.
#[derive(Clone)]
pub(crate) struct Shown {
    /// The report.
    pub(crate) report: Report,
    /// What the server offers to tabs.
    pub(crate) models: Vec<ModelEntry>,
}

/// The view as the page holds it; what it runs ends with it.
#[wasm_bindgen]
pub struct View {
    _mounted: Box<dyn std::any::Any>,
}

#[wasm_bindgen]
impl View {
    /// Mounts the view.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(parent: web_sys::HtmlElement) -> Self {
        let mounted: UnmountHandle<_> = leptos::mount::mount_to(parent, Root);
        Self { _mounted: Box::new(mounted) }
    }
}

async fn fetched() -> Result<Shown, String> {
    let told = |problem: String| format!("The report of compact models could not be had: {problem}. Try again.");
    let response = api::send(Ask { path: PATH, ..Ask::default() }).await.map_err(told)?;
    let report = Report::parse(&api::text(&response).await.map_err(told)?)?;
    // Without the list nothing can be tried here; the report stands by itself.
    let manifest = api::json::<ModelManifest>(Ask { path: "models/manifest.json", ..Ask::default() }).await;
    Ok(Shown { report, models: manifest.map(|manifest| manifest.models).unwrap_or_default() })
}

/// All of it.
#[component]
fn Root() -> impl IntoView {
    let shown = RwSignal::new(None::<Result<Shown, String>>);
    let fetch = move || {
        shown.set(None);
        spawn_local(async move {
            let got = fetched().await;
            // The view may have been left meanwhile.
            let _ = shown.try_set(Some(got));
        });
    };
    fetch();
    view! {
        <style>{STYLE}</style>
        {move || match shown.get() {
            None => view! { <p class="empty" role="status">"Fetching the report …"</p> }.into_any(),
            Some(Err(problem)) => view! {
                <div class="panel wide" role="alert" data-testid="compact-problem">
                    <p>{problem}</p>
                    <button on:click=move |_| fetch()>"Try again"</button>
                </div>
            }
            .into_any(),
            Some(Ok(Shown { report, models })) => view! {
                <div class="wide">
                    <section class="panel" aria-labelledby="compact-title">
                        <div class="panel-head">
                            <h2 id="compact-title">"Compact models of one original (Table I)"</h2>
                            <a class="compact-more" href=TEXT target="_blank" rel="noopener">"How it was measured"</a>
                        </div>
                        <Table report=report.clone() models=models.clone() />
                    </section>
                </div>
                <div class="column">
                    <Quality report=report.clone() />
                    <Losses report=report.clone() />
                </div>
                <div class="column">
                    <Cuts report=report.clone() />
                </div>
                <div class="wide">
                    <Sides models />
                </div>
            }
            .into_any(),
        }}
    }
}
