//! Modules that the page fetches when they are first needed, by `later.js`: a script cannot be imported from here.

use std::cell::RefCell;
use std::collections::BTreeMap;

use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::ctx::Ctx;
use crate::dom;

#[wasm_bindgen]
extern "C" {
    /// Fetches and starts a module; resolves to what it exports.
    #[wasm_bindgen(catch, js_name = tandemLater)]
    fn later(name: &str) -> Result<js_sys::Promise, JsValue>;
}

thread_local! {
    /// What each module exports; `None` while it is on its way.
    static MODULES: RefCell<BTreeMap<&'static str, Option<JsValue>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Fetches a module unless it is here or on its way. One that could not be had is tried again when it is next wanted.
pub fn want(ctx: Ctx, name: &'static str) {
    if MODULES.with_borrow_mut(|modules| modules.contains_key(name) || modules.insert(name, None).is_some()) {
        return;
    }
    spawn_local(async move {
        let fetched = match later(name) {
            Ok(promise) => JsFuture::from(promise).await,
            Err(error) => Err(error),
        };
        match fetched {
            Ok(exports) => {
                MODULES.with_borrow_mut(|modules| modules.insert(name, Some(exports)));
                ctx.modules_there.update(|there| there.push(name));
            }
            Err(error) => {
                MODULES.with_borrow_mut(|modules| modules.remove(name));
                web_sys::console::warn_1(&format!("{name} could not be fetched: {}", dom::error_text(&error)).into());
                ctx.module_problem.set(Some(name));
            }
        }
    });
}

/// Something that a module exports, once it is here.
pub fn export(name: &str, of: &str) -> Option<JsValue> {
    MODULES.with_borrow(|modules| {
        let exports = modules.get(name)?.as_ref()?;
        js_sys::Reflect::get(exports, &JsValue::from_str(of)).ok().filter(|export| !export.is_undefined())
    })
}
