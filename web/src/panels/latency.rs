//! Latency as it was modelled and as it was measured: device and server work at the same time, so the longer way counts.

use client::calibrate;
use client::protocol::worker::SlotRecord;
use client::protocol::world::DeviceOutcome;
use leptos::prelude::*;

use crate::ctx::ctx;
use crate::format::{self, or_na};
use crate::geometry::{along, axis_end};
use crate::panel::Panel;
use crate::state::State;

/// Times of one answer or of one slot; `None` is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Times {
    local_s: Option<f64>,
    uplink_s: Option<f64>,
    server_s: Option<f64>,
    total_s: Option<f64>,
}

impl Times {
    fn of_slot(outcome: &DeviceOutcome) -> Self {
        Self {
            local_s: Some(outcome.local_s),
            uplink_s: Some(outcome.uplink_s),
            server_s: Some(outcome.server_s),
            total_s: Some(outcome.latency_s),
        }
    }

    fn modelled(record: &SlotRecord) -> Self {
        Self {
            local_s: Some(record.model_local_s),
            uplink_s: Some(record.model_uplink_s),
            server_s: Some(record.model_server_s),
            total_s: Some(record.model_latency_s),
        }
    }

    fn measured(record: &SlotRecord) -> Self {
        Self {
            local_s: record.measured_local_s,
            uplink_s: record.measured_uplink_s,
            server_s: record.measured_server_s,
            total_s: Some(record.measured_latency_s),
        }
    }

    /// Where its longest way ends.
    fn end_s(self) -> f64 {
        let known = |t: Option<f64>| t.filter(|t| t.is_finite()).unwrap_or(0.0);
        known(self.local_s).max(known(self.uplink_s) + known(self.server_s)).max(known(self.total_s))
    }
}

/// The panel.
#[component]
pub fn Latency() -> impl IntoView {
    let ctx = ctx();
    let slot = Memo::new(move |_| {
        ctx.state.with(|s| {
            let view = s.view.as_ref()?;
            Some((view.slot, Times::of_slot(&view.devices.first()?.outcome)))
        })
    });
    let last = Memo::new(move |_| {
        ctx.with_run(|r| r.and_then(|r| r.record.as_ref()).map(|r| (r.slot, Times::modelled(r), Times::measured(r))))
    });
    let modelled = Signal::derive(move || slot.get().map(|s| s.1));
    let last_modelled = Signal::derive(move || last.get().map(|l| l.1));
    let last_measured = Signal::derive(move || last.get().map(|l| l.2));
    // Modelled bars share one axis, so that slots compare; the real machines have a scale of their own.
    let model_end = Memo::new(move |_| {
        let ends = [modelled.get(), last_modelled.get()].map(|t| t.map_or(0.0, Times::end_s));
        axis_end(ends[0].max(ends[1]))
    });
    let real_end = Memo::new(move |_| axis_end(last_measured.get().map_or(0.0, Times::end_s)));
    view! {
        <Panel id="latency" title="Latency" aside=|| view! {
            <span class="key"><span class="swatch device"></span>"device"</span>
            <span class="key"><span class="swatch uplink"></span>"uplink"</span>
            <span class="key"><span class="swatch server"></span>"server"</span>
        }>
            <Bars test_id="latency-modelled" times=modelled end=model_end
                title=Signal::derive(move || slot.get().map_or("This slot, modelled".to_owned(), |s| format!("Slot {}, modelled", s.0))) />
            <Show when=move || last.with(Option::is_some)>
                <Bars test_id="latency-asked" times=last_modelled end=model_end
                    title=Signal::derive(move || last.get().map_or(String::new(), |l| format!("Last answer, slot {}, modelled", l.0))) />
            </Show>
            <Bars test_id="latency-measured" times=last_measured end=real_end
                title=Signal::derive(move || if last.with(Option::is_some) { "Last answer, measured".to_owned() } else { "Measured: nothing asked yet".to_owned() }) />
            <World />
            <p class="hint">"Uplink and server follow each other; the device works meanwhile. The total is the longer way (eq. 29)."</p>
        </Panel>
    }
}

/// Which world is modelled, and the way to the other.
#[component]
fn World() -> impl IntoView {
    let ctx = ctx();
    let calibrated = Memo::new(move |_| ctx.settings.with(|s| s.world.calibrated.is_some()));
    let busy = move || ctx.state.with(|s| s.calibrating.is_some());
    view! {
        <p class="hint" data-testid="world" data-calibrated=move || calibrated.get().to_string()>
            {move || if calibrated.get() { "The world is calibrated to this device and server. " } else { "The world is the paper’s. " }}
            <button
                class="textual"
                data-testid="calibrate"
                title="Answers your questions three times to measure both sides, and sets clocks, cycles and task size from that"
                disabled=move || busy() || !ctx.state.with(State::device_ready)
                on:click=move |_| ctx.calibrate()
            >
                {move || if busy() { "Measuring …" } else { "Calibrate" }}
            </button>
            <button
                class="textual"
                hidden=move || !calibrated.get()
                on:click=move |_| ctx.set(|s| calibrate::forget(&mut s.world))
            >
                "The paper’s"
            </button>
        </p>
    }
}

/// Two lanes and a total.
#[component]
fn Bars(
    test_id: &'static str,
    #[prop(into)] title: Signal<String>,
    #[prop(into)] times: Signal<Option<Times>>,
    end: Memo<f64>,
) -> impl IntoView {
    let get = move |read: fn(Times) -> Option<f64>| move || times.get().and_then(read);
    let show = move |read: fn(Times) -> Option<f64>| move || or_na(get(read)(), format::seconds);
    let width =
        move |read: fn(Times) -> Option<f64>| move || format!("{:.2}%", along(get(read)().unwrap_or(0.0), end.get()));
    view! {
        <div class="bars" data-testid=test_id>
            <p class="bars-head"><span>{title}</span><strong class="num">{show(|t| t.total_s)}</strong></p>
            <div class="lane">
                <span class="lane-bar device" style:width=width(|t| t.local_s)></span>
                <span class="lane-text num">{show(|t| t.local_s)}</span>
            </div>
            <div class="lane">
                <span class="lane-bar uplink" style:width=width(|t| t.uplink_s)></span>
                <span class="lane-bar server" style:width=width(|t| t.server_s)></span>
                <span class="lane-text num">{move || match (get(|t| t.uplink_s)(), get(|t| t.server_s)()) {
                    (None, None) => format::NA.to_owned(),
                    (uplink, server) => format!("{} + {}", or_na(uplink, format::seconds), or_na(server, format::seconds)),
                }}</span>
            </div>
        </div>
    }
}
