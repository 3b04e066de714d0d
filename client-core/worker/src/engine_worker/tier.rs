//! What this tab can run.

use js_sys::Array;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::WorkerGlobalScope;

use crate::clock::BrowserClock;
use crate::message::property;
use client::offload::run::within;
use client::protocol::worker::{Tier, TierChoice, TierReport};
use engine::gpu::GpuContext;

/// Some drivers hang when they are asked for a device.
const PROBE_LIMIT_S: f64 = 10.0;
/// What the CPU tier is called.
pub(super) const CPU_NAME: &str = "WebAssembly SIMD, one thread";
/// Vendors (as WebGPU names them) whose GPUs sit in phones and tablets.
const PHONE_VENDORS: [&str; 4] = ["qualcomm", "arm", "img-tec", "samsung"];

/// Looks at the device. A report of [`Tier::WebGpu`] comes with its context.
pub(super) async fn probe(choice: TierChoice, clock: &BrowserClock) -> (TierReport, Option<GpuContext>) {
    let server_only =
        |reason: String| TierReport { tier: Tier::ServerOnly, device: "none".to_owned(), reason, desktop_class: false };
    match choice {
        TierChoice::ServerOnly => {
            (server_only("No engine runs in this tab because you chose so: the server answers.".to_owned()), None)
        }
        TierChoice::Cpu => (cpu("You chose the CPU."), None),
        TierChoice::Auto | TierChoice::WebGpu => match probe_gpu(choice, clock).await {
            Ok((adapter, gpu)) => {
                let reason = why_gpu(choice).to_owned();
                let desktop_class = adapter.is_desktop_class();
                (TierReport { tier: Tier::WebGpu, device: adapter.name, reason, desktop_class }, Some(gpu))
            }
            Err(problem) if choice == TierChoice::WebGpu => {
                (server_only(format!("You chose WebGPU, but {problem}. The server answers; or choose the CPU.")), None)
            }
            Err(problem) => (cpu(&format!("The CPU computes because {problem}.")), None),
        },
    }
}

/// Why the GPU computes.
pub(super) fn why_gpu(choice: TierChoice) -> &'static str {
    match choice {
        TierChoice::WebGpu => "You chose WebGPU.",
        _ => "WebGPU works here; it is the quickest way to run the model.",
    }
}

/// The CPU tier, for this reason.
pub(super) fn cpu(reason: &str) -> TierReport {
    TierReport { tier: Tier::Cpu, device: CPU_NAME.to_owned(), reason: reason.to_owned(), desktop_class: false }
}

struct Adapter {
    name: String,
    vendor: String,
    software: bool,
    phone: bool,
}

impl Adapter {
    fn is_desktop_class(&self) -> bool {
        !self.software && !self.phone && !PHONE_VENDORS.contains(&self.vendor.as_str())
    }
}

async fn probe_gpu(choice: TierChoice, clock: &BrowserClock) -> Result<(Adapter, GpuContext), String> {
    let scope: WorkerGlobalScope = js_sys::global().dyn_into().map_err(|_| "this is no worker".to_owned())?;
    let navigator = scope.navigator();
    let secure = property(&js_sys::global(), "isSecureContext").is_some_and(|secure| secure.is_truthy());
    let Some(gpu) = property(&navigator, "gpu") else {
        return Err(if secure {
            "this browser has no WebGPU".to_owned()
        } else {
            "browsers offer WebGPU only to pages from localhost or over HTTPS".to_owned()
        });
    };
    let info = within(clock, PROBE_LIMIT_S, adapter_info(&gpu)).await.ok_or("the GPU does not answer")?;
    let (vendor, architecture, description) = info.ok_or("WebGPU finds no GPU")?;
    let is_software = |name: &str| {
        let name = name.to_lowercase();
        ["swiftshader", "llvmpipe", "basic render"].iter().any(|software| name.contains(software))
    };
    let emulated = [&description, &architecture, &vendor].into_iter().any(|name| is_software(name));
    let label = match (description.is_empty(), architecture.is_empty(), vendor.is_empty()) {
        (false, ..) => description,
        (_, false, _) => format!("{vendor} {architecture}").trim().to_owned(),
        (_, _, false) => vendor.clone(),
        _ => String::new(),
    };
    // The SIMD kernels on the CPU are quicker than shaders that are themselves emulated on it.
    let emulated_only = |label: &str| format!("WebGPU is only emulated here ({label}), which is slower still");
    if emulated && choice == TierChoice::Auto {
        return Err(emulated_only(&label));
    }
    let context = within(clock, PROBE_LIMIT_S, GpuContext::request()).await.ok_or("the GPU does not answer")?;
    let context = context.map_err(|error| error.to_string())?;
    let caps = context.caps();
    let software = emulated || caps.software || is_software(&caps.name);
    let name = if !caps.name.is_empty() { caps.name.clone() } else { label };
    let name = if name.is_empty() { "a GPU without a name".to_owned() } else { name };
    if software && choice == TierChoice::Auto {
        return Err(emulated_only(&name));
    }
    let agent = navigator.user_agent().unwrap_or_default();
    let phone = ["Android", "Mobile", "iPhone", "iPad"].iter().any(|word| agent.contains(word));
    Ok((Adapter { name, vendor, software, phone }, context))
}

/// Vendor, architecture and description of the adapter, each empty where the browser keeps it to itself; `None` where
/// there is no adapter.
async fn adapter_info(gpu: &JsValue) -> Option<(String, String, String)> {
    let request: js_sys::Function = property(gpu, "requestAdapter")?.dyn_into().ok()?;
    let promise: js_sys::Promise = request.apply(gpu, &Array::new()).ok()?.dyn_into().ok()?;
    let adapter = JsFuture::from(promise).await.ok().filter(|adapter| !adapter.is_null() && !adapter.is_undefined())?;
    let info = property(&adapter, "info").unwrap_or(JsValue::UNDEFINED);
    let word = |name: &str| {
        info.is_object().then(|| property(&info, name)).flatten().and_then(|word| word.as_string()).unwrap_or_default()
    };
    Some((word("vendor"), word("architecture"), word("description")))
}
