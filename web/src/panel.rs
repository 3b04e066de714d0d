//! The frame of a panel.

use leptos::prelude::*;

/// A titled part of the page.
#[component]
pub fn Panel(
    /// Anchor, also for the tour.
    id: &'static str,
    /// Its heading.
    title: &'static str,
    /// What stands beside the heading.
    #[prop(optional, into)]
    aside: ViewFn,
    /// The rest.
    children: Children,
) -> impl IntoView {
    let heading = format!("{id}-title");
    let labelled_by = heading.clone();
    let body = format!("{id}-body");
    let controls = body.clone();
    let open = RwSignal::new(true);
    view! {
        <section class="panel" class:folded=move || !open.get() id=id aria-labelledby=labelled_by>
            <div class="panel-head">
                <h2 id=heading>{title}</h2>
                <div class="panel-aside">{aside.run()}</div>
                // Shown on phones only, where a page of panels is long.
                <button
                    class="fold quiet"
                    aria-label=move || format!("{} {title}", if open.get() { "Fold" } else { "Unfold" })
                    aria-expanded=move || open.get().to_string()
                    aria-controls=controls
                    on:click=move |_| open.update(|o| *o = !*o)
                ></button>
            </div>
            <div class="panel-body" id=body>{children()}</div>
        </section>
    }
}
