//! What a phone's browser offers beyond a page: staying awake, vibrating, and how full the battery is. None of it is there
//! everywhere, and a refusal is no harm.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Function, Promise, Reflect};
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

/// Calls a method that not every browser has, with one argument at most, and waits for what it promises.
async fn ask(of: &JsValue, method: &str, argument: Option<&str>) -> Option<JsValue> {
    let function: Function = Reflect::get(of, &JsValue::from_str(method)).ok()?.dyn_into().ok()?;
    let called = match argument {
        Some(argument) => function.call1(of, &JsValue::from_str(argument)),
        None => function.call0(of),
    };
    JsFuture::from(called.ok()?.dyn_into::<Promise>().ok()?).await.ok()
}

/// Keeps the screen on. The browser takes it back whenever the page is hidden, so it is asked for again.
#[derive(Clone, Default)]
pub struct Awake(Rc<RefCell<Option<JsValue>>>);

impl Awake {
    /// Asks for it now, and whenever the page is seen again.
    pub fn start(&self, is_on: RwSignal<bool>) {
        let own = self.clone();
        own.take(is_on);
        let _ = window_event_listener_untyped("visibilitychange", move |_| {
            if !document().hidden() {
                own.take(is_on);
            }
        });
    }

    fn take(&self, is_on: RwSignal<bool>) {
        let own = self.clone();
        spawn_local(async move {
            let navigator: JsValue = window().navigator().into();
            let lock = Reflect::get(&navigator, &JsValue::from_str("wakeLock")).unwrap_or(JsValue::UNDEFINED);
            let held = ask(&lock, "request", Some("screen")).await;
            is_on.set(held.is_some());
            *own.0.borrow_mut() = held;
        });
    }
}

/// Vibrates, where the device can and the person has touched the page.
pub fn vibrate(ms: u32) {
    let navigator: JsValue = window().navigator().into();
    if let Ok(function) = Reflect::get(&navigator, &JsValue::from_str("vibrate"))
        && let Some(function) = function.dyn_ref::<Function>()
    {
        let _ = function.call1(&navigator, &JsValue::from(ms));
    }
}

/// The battery, which [`charge`] is read of; `None` where the browser does not tell.
pub async fn battery() -> Option<JsValue> {
    let navigator: JsValue = window().navigator().into();
    ask(&navigator, "getBattery", None).await
}

/// How full a battery is at present, 0 to 1.
pub fn charge(battery: &JsValue) -> Option<f64> {
    Reflect::get(battery, &JsValue::from_str("level")).ok()?.as_f64()
}
