//! The workers that run the policy: one on burn flex, one on burn-wgpu, which differ in the device alone. They are modules of
//! their own because burn is large and nothing else in the page needs it; the engine worker starts the former with itself, the
//! latter when the page asks for it.

use std::cell::RefCell;
use std::rc::Rc;

use burn::tensor::Device;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent};

use super::clock::BrowserClock;
use super::message::{from_js, to_js};
use super::policy_link::{Reply, Request};
use client::offload::ports::Clock;
use mec::{MecParams, UserDecision, UserObservation};
use policy::Policy;

/// Entry point of `policy_cpu.wasm`.
#[cfg(feature = "policy-flex")]
pub fn start_cpu() {
    start(async |_| Ok(Device::flex()));
}

/// Entry point of `policy_gpu.wasm`.
#[cfg(feature = "policy-wgpu")]
pub fn start_gpu() {
    start(open_gpu);
}

fn start(open: impl AsyncFnOnce(&DedicatedWorkerGlobalScope) -> Result<Device, String> + 'static) {
    console_error_panic_hook::set_once();
    spawn_local(async move {
        let scope: DedicatedWorkerGlobalScope = js_sys::global().unchecked_into();
        let policy_worker =
            Rc::new(PolicyWorker { scope: scope.clone(), clock: BrowserClock::default(), policy: RefCell::default() });
        let problem = match open(&scope).await {
            Ok(device) => {
                listen(&policy_worker, device);
                None
            }
            Err(problem) => Some(problem),
        };
        policy_worker.reply(&Reply::Up { problem });
    });
}

#[cfg(feature = "policy-wgpu")]
async fn open_gpu(scope: &DedicatedWorkerGlobalScope) -> Result<Device, String> {
    // Without this look burn would panic, and a panic ends the worker without a word.
    if super::message::property(&scope.navigator(), "gpu").is_none() {
        return Err("there is no WebGPU here".to_owned());
    }
    Device::wgpu_options().init_async().await.map_err(|error| format!("WebGPU gives no device: {error}"))
}

fn listen(policy_worker: &Rc<PolicyWorker>, device: Device) {
    let listener = Rc::clone(policy_worker);
    let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| {
        // Only the engine worker talks to this one, and it is built from the same source.
        let Ok(request) = from_js::<Request>(message.data()) else { return };
        let (policy_worker, device) = (Rc::clone(&listener), device.clone());
        spawn_local(async move {
            let reply = policy_worker.handle(request, &device).await;
            policy_worker.reply(&reply);
        });
    });
    policy_worker.scope.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    // It lives as long as the worker.
    on_message.forget();
}

struct PolicyWorker {
    scope: DedicatedWorkerGlobalScope,
    clock: BrowserClock,
    policy: RefCell<Option<Rc<Policy>>>,
}

impl PolicyWorker {
    async fn handle(&self, request: Request, device: &Device) -> Reply {
        match request {
            Request::Load { call, bytes } => match Policy::load(&bytes.0, device) {
                Ok(policy) => {
                    let (least, most) = policy.users().into_inner();
                    *self.policy.borrow_mut() = Some(Rc::new(policy));
                    Reply::Loaded { call, users: [least, most] }
                }
                Err(error) => Reply::Failed { call, problem: error.to_string() },
            },
            Request::Decide { call, params, seen } => {
                let begun_s = self.clock.now_s();
                match self.decide(&params, &seen).await {
                    Ok(decisions) => {
                        let millis = (self.clock.now_s() - begun_s) * 1e3;
                        Reply::Decided { call, decisions, millis }
                    }
                    Err(problem) => Reply::Failed { call, problem },
                }
            }
        }
    }

    async fn decide(&self, params: &MecParams, seen: &[UserObservation]) -> Result<Vec<UserDecision>, String> {
        let policy = self.policy.borrow().clone().ok_or("no policy is loaded")?;
        policy.decide(&params.physics(), seen).await.map_err(|error| error.to_string())
    }

    fn reply(&self, reply: &Reply) {
        // A reply that cannot be posted is missed on the other side, which waits only so long.
        if let Ok(message) = to_js(reply) {
            let _ = self.scope.post_message(&message);
        }
    }
}
