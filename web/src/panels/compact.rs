//! The view of compact models: a module of its own, fetched when the view is opened first.

use std::time::Duration;

use leptos::prelude::*;
use wasm_bindgen::prelude::*;

use crate::ctx::ctx;
use crate::modules;

/// The module.
const MODULE: &str = "compact";
/// Time until it is asked for again where it could not be had.
const TRY_AGAIN: Duration = Duration::from_secs(10);

#[wasm_bindgen]
extern "C" {
    /// What the module has mounted: see the crate `compact`.
    type Mounted;
    #[wasm_bindgen(method)]
    fn free(this: &Mounted);
}

/// The view's place.
#[component]
pub fn Compact() -> impl IntoView {
    let ctx = ctx();
    let place = NodeRef::<leptos::html::Div>::new();
    let mounted = StoredValue::new_local(None::<Mounted>);
    let is_here = Memo::new(move |_| ctx.modules_there.with(|there| there.contains(&MODULE)));
    ctx.module_problem.set(None);
    modules::want(ctx, MODULE);
    Effect::new(move |_| {
        let Some(div) = place.get().filter(|_| is_here.get()) else { return };
        let made = modules::export(MODULE, "View").and_then(|class| {
            let arguments = js_sys::Array::of1(&div);
            js_sys::Reflect::construct(class.unchecked_ref::<js_sys::Function>(), &arguments).ok()
        });
        mounted.set_value(made.map(JsCast::unchecked_into));
    });
    let held = StoredValue::new_local(mounted);
    on_cleanup(move || {
        if let Some(mounted) = held.try_get_value().and_then(|mounted| mounted.try_update_value(Option::take)).flatten()
        {
            mounted.free();
        }
    });
    let failed = move || ctx.module_problem.get() == Some(MODULE);
    let again = move || {
        ctx.module_problem.set(None);
        modules::want(ctx, MODULE);
    };
    // A server that was started a moment ago may still be building it.
    Effect::new(move |_| {
        if failed() {
            set_timeout(again, TRY_AGAIN);
        }
    });
    view! {
        <div class="page compact" data-testid="compact" node_ref=place></div>
        <div class="page" hidden=move || is_here.get()>
            <p class="empty" role="status" data-testid="compact-waits">
                {move || if failed() {
                    "The view could not be fetched. A server that was just started may still be building it; the page tries again by itself. "
                } else {
                    "Fetching the view …"
                }}
                <button hidden=move || !failed() on:click=move |_| again()>"Try again"</button>
            </p>
        </div>
    }
}
