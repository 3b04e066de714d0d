//! The map of the cell: mast, rings, devices that can be moved, links as wide as their rate.

use client::protocol::worker::Command;
use client::protocol::world::{DeviceView, WorldView};
use leptos::prelude::*;
use mec::settings::SETTINGS;
use wasm_bindgen::JsCast;

use crate::ctx::{Ctx, ctx};
use crate::format;
use crate::geometry::{CellMap, DISC};
use crate::panel::Panel;
use crate::settings::Settings;
use crate::state::State;

/// Step of the arrow keys, as a share of the radius; with Shift it is ten times that.
const KEY_STEP: f64 = 0.02;

fn radius_m(settings: &Settings) -> f64 {
    let default = SETTINGS.iter().find(|s| s.key == "radius_m").map_or(20.0, |s| s.default);
    settings.world.values.get("radius_m").copied().unwrap_or(default)
}

/// Where a device stands: where a hand put it, else where the simulator did.
fn position(ctx: Ctx, device: usize) -> [f64; 2] {
    let placed = ctx.settings.with(|s| s.world.positions.get(&device).copied());
    placed.unwrap_or_else(|| with_device(ctx, device, |d| [d.x_m, d.y_m]).unwrap_or_default())
}

fn with_device<T>(ctx: Ctx, device: usize, read: impl Fn(&DeviceView) -> T) -> Option<T> {
    ctx.state.with(|s| s.view.as_ref()?.devices.get(device).map(read))
}

fn with_view<T>(ctx: Ctx, read: impl Fn(&WorldView) -> T) -> Option<T> {
    ctx.state.with(|s| s.view.as_ref().map(read))
}

/// The map with its caption.
#[component]
pub fn Cell() -> impl IntoView {
    let ctx = ctx();
    let map = Memo::new(move |_| CellMap::new(ctx.settings.with(radius_m)));
    let count = Memo::new(move |_| with_view(ctx, |v| v.devices.len()).unwrap_or(0));
    let busy = Memo::new(move |_| ctx.state.with(State::busy));
    let svg = NodeRef::<leptos::svg::Svg>::new();
    let slot = move || with_view(ctx, |v| format!("slot {}", v.slot)).unwrap_or_else(|| "no world yet".into());
    let placed = move || ctx.settings.with(|s| !s.world.positions.is_empty());
    view! {
        <Panel id="cell" title="The cell" aside=move || view! {
            <span class="muted num">{slot}</span>
            <button class="quiet" on:click=move |_| ctx.send(Command::NextSlot)>"Next slot"</button>
        }>
            <div class="cell">
                <svg
                    class="map"
                    class:busy=move || busy.get()
                    data-testid="map"
                    viewBox="-100 -100 200 200"
                    role="group"
                    aria-label="Map of the cell: the server's mast in the middle, devices around it"
                    node_ref=svg
                >
                    {move || rings(map.get())}
                    <For each=move || 0..count.get() key=|k| *k let(k)>
                        <Link device=k map />
                    </For>
                    <g class="mast" aria-hidden="true">
                        <circle r="9" />
                        <path d="M-3 5 L0 -2 L3 5 M-1.7 2 H1.7 M-3.2 -5.4 a3.6 3.6 0 0 0 0 4.8 M3.2 -5.4 a3.6 3.6 0 0 1 0 4.8" />
                        <circle class="mast-tip" cy="-3" r="1.1" />
                    </g>
                    <For each=move || 0..count.get() key=|k| *k let(k)>
                        <Device device=k map svg />
                    </For>
                </svg>
                <RadioFigures />
            </div>
            <p class="hint">
                "Drag a device, or focus it and use the arrow keys. "
                <button
                    class="textual"
                    hidden=move || !placed()
                    on:click=move |_| ctx.set(|s| s.world.positions.clear())
                >
                    "Put devices back"
                </button>
            </p>
        </Panel>
    }
}

fn rings(map: CellMap) -> impl IntoView {
    // The rim first: it is filled, the others lie on it.
    map.rings()
        .into_iter()
        .rev()
        .map(|metres| {
            let (r, _) = map.to_drawing([metres, 0.0]);
            view! {
                <circle class="ring" class:rim=(r - DISC).abs() < 0.01 r=r.to_string() />
                <text class="ring-label" x="0" y=(-r - 2.0).to_string()>{format!("{} m", (metres * 10.0).round() / 10.0)}</text>
            }
        })
        .collect_view()
}

/// The way of a device's bits to the mast.
#[component]
fn Link(device: usize, map: Memo<CellMap>) -> impl IntoView {
    let ctx = ctx();
    let end = Memo::new(move |_| map.get().to_drawing(position(ctx, device)));
    let share = Memo::new(move |_| {
        with_view(ctx, |v| {
            let best = v.devices.iter().map(|d| d.outcome.rate_bps).fold(0.0, f64::max);
            let own = v.devices.get(device).map_or(0.0, |d| d.outcome.rate_bps);
            if best > 0.0 { own / best } else { 0.0 }
        })
        .unwrap_or(0.0)
    });
    let alpha = Memo::new(move |_| with_device(ctx, device, |d| d.outcome.alpha).unwrap_or(0.0));
    view! {
        <line
            class="link"
            class:own=device == 0
            class:idle=move || alpha.get() <= 0.0
            x1=move || format!("{:.2}", end.get().0)
            y1=move || format!("{:.2}", end.get().1)
            x2="0"
            y2="0"
            stroke-width=move || format!("{:.2}", 0.6 + 2.6 * share.get())
            aria-hidden="true"
        />
    }
}

/// A device that can be moved.
#[component]
fn Device(device: usize, map: Memo<CellMap>, svg: NodeRef<leptos::svg::Svg>) -> impl IntoView {
    let ctx = ctx();
    let at = Memo::new(move |_| map.get().to_drawing(position(ctx, device)));
    let dragging = RwSignal::new(false);
    let place = move |position: [f64; 2]| {
        ctx.set(|s| {
            s.world.positions.insert(device, position);
        });
    };
    let label = move || {
        let who = if device == 0 { "This device".to_owned() } else { format!("Device {device}") };
        let facts = with_device(ctx, device, |d| {
            format!("{:.1} metres from the antenna, {}", d.distance_m, format::rate(d.outcome.rate_bps))
        });
        format!("{who}: {}. Arrow keys move it.", facts.unwrap_or_default())
    };
    let drag = move |event: web_sys::PointerEvent| {
        let Some(svg) = svg.get_untracked().filter(|_| dragging.get_untracked()) else { return };
        event.prevent_default();
        let frame = svg.unchecked_ref::<web_sys::Element>().get_bounding_client_rect();
        if frame.width() > 0.0 {
            let scale = 200.0 / frame.width();
            let x = (f64::from(event.client_x()) - frame.left()) * scale - 100.0;
            let y = (f64::from(event.client_y()) - frame.top()) * scale - 100.0;
            place(map.get_untracked().to_metres(x, y));
        }
    };
    let keys = move |event: web_sys::KeyboardEvent| {
        let step = ctx.settings.with_untracked(radius_m) * KEY_STEP * if event.shift_key() { 10.0 } else { 1.0 };
        let (dx, dy) = match event.key().as_str() {
            "ArrowLeft" => (-step, 0.0),
            "ArrowRight" => (step, 0.0),
            "ArrowUp" => (0.0, step),
            "ArrowDown" => (0.0, -step),
            _ => return,
        };
        event.prevent_default();
        let [x, y] = untrack(|| position(ctx, device));
        place(map.get_untracked().keep_inside([x + dx, y + dy]));
    };
    let release = move |_: web_sys::PointerEvent| dragging.set(false);
    view! {
        <g
            class="device"
            class:own=device == 0
            class:dragging=move || dragging.get()
            data-testid=format!("device-{device}")
            transform=move || { let (x, y) = at.get(); format!("translate({x:.2} {y:.2})") }
            tabindex="0"
            role="group"
            aria-roledescription="movable device"
            aria-label=label
            on:pointerdown=move |event: web_sys::PointerEvent| {
                if let Some(target) = event.current_target() {
                    let _ = target.unchecked_into::<web_sys::Element>().set_pointer_capture(event.pointer_id());
                }
                dragging.set(true);
            }
            on:pointermove=drag
            on:pointerup=release
            on:pointercancel=release
            on:keydown=keys
        >
            // An unseen disc makes the target big enough for a finger.
            <circle class="touch" r="15" />
            <circle class="halo" r="8.5" />
            <rect x="-2.7" y="-4.4" width="5.4" height="8.8" rx="1.1" />
            // On the side away from the mast, where fewer things are in the way.
            <text class="device-label" x="0" y=move || if at.get().1 < 0.0 { "-11" } else { "17" }>{if device == 0 { "you".to_owned() } else { device.to_string() }}</text>
        </g>
    }
}

/// The radio figures of this device.
#[component]
fn RadioFigures() -> impl IntoView {
    let ctx = ctx();
    let fact = move |read: fn(&DeviceView) -> String| {
        move || with_device(ctx, 0, read).unwrap_or_else(|| format::NA.to_owned())
    };
    view! {
        <dl class="facts">
            <div><dt>"Distance"</dt><dd>{fact(|d| format!("{:.1} m", d.distance_m))}</dd></div>
            <div><dt>"Gain"</dt><dd>{fact(|d| format!("{:.1} dB", d.gain_db).replace('-', "−"))}</dd></div>
            <div><dt>"Fading"</dt><dd>{fact(|d| format!("{:+.1} dB", d.fading_db).replace('-', "−"))}</dd></div>
            <div><dt>"Rate"</dt><dd>{fact(|d| format::rate(d.outcome.rate_bps))}</dd></div>
            <div><dt>"Task"</dt><dd>{fact(|d| format::bits(d.size_bits))}</dd></div>
        </dl>
    }
}
