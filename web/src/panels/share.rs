//! The page's state as a link and as a QR code.

use fast_qr::convert::Builder;
use fast_qr::convert::svg::SvgBuilder;
use fast_qr::qr::QRBuilder;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen_futures::JsFuture;

use crate::ctx::ctx;
use crate::state::Kind;
use crate::url;

/// Button and dialog.
#[component]
pub fn Share() -> impl IntoView {
    let ctx = ctx();
    let dialog = NodeRef::<leptos::html::Dialog>::new();
    let link = RwSignal::new(String::new());
    let open = move |_| {
        let location = window().location();
        let here = location.href().unwrap_or_default();
        let page = here.split(['?', '#']).next().unwrap_or_default().to_owned();
        let state = ctx.settings.with_untracked(url::encode);
        link.set(if state.is_empty() { page } else { format!("{page}#{state}") });
        if let Some(dialog) = dialog.get_untracked() {
            let _ = dialog.show_modal();
        }
    };
    let copy = move |_| {
        spawn_local(async move {
            let written = window().navigator().clipboard().write_text(&link.get_untracked());
            match JsFuture::from(written).await {
                Ok(_) => ctx.notify(Kind::Info, "The link is copied."),
                Err(_) => {
                    ctx.notify(Kind::Info, "This browser does not let the page copy. Select the link and copy it.");
                }
            }
        });
    };
    view! {
        <button class="quiet" on:click=open>"Share"</button>
        <dialog class="dialog" node_ref=dialog aria-labelledby="share-title">
            <h2 id="share-title">"This state as a link"</h2>
            <p class="muted">"Questions, seed, sliders and placed devices are part of it."</p>
            {move || {
                let svg = qr(&link.get());
                match svg {
                    Some(svg) => view! { <div class="qr" role="img" aria-label="QR code of the link" inner_html=svg></div> }.into_any(),
                    None => view! { <p class="muted">"The link is too long for a QR code."</p> }.into_any(),
                }
            }}
            <input class="link" type="text" readonly=true aria-label="Link" prop:value=move || link.get() />
            <form class="dialog-buttons" method="dialog">
                <button type="button" class="primary" on:click=copy>"Copy link"</button>
                <button>"Close"</button>
            </form>
        </dialog>
    }
}

fn qr(link: &str) -> Option<String> {
    let code = QRBuilder::new(link).build().ok()?;
    Some(SvgBuilder::default().margin(2).to_str(&code))
}
