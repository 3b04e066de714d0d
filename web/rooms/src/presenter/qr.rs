//! The QR code, as large as the screen allows, with who has come.

use fast_qr::convert::Builder;
use fast_qr::convert::svg::SvgBuilder;
use fast_qr::qr::QRBuilder;
use leptos::prelude::*;

use super::bar::short_address;
use super::ctx::{Ctx, Overlay};
use super::words;
use crate::keep;

/// Names that are shown, newest first.
const NAMES: usize = 24;

/// The overlay.
#[component]
pub fn Qr() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let code = ctx.code.get_value();
    let svg =
        QRBuilder::new(keep::join_url(&code)).build().ok().map(|code| SvgBuilder::default().margin(4).to_str(&code));
    let host = window().location().hostname().unwrap_or_default();
    let is_local = host == "localhost" || host.starts_with("127.") || host == "[::1]";
    let count = Memo::new(move |_| ctx.state.with(|s| s.members.values().filter(|member| !member.simulated).count()));
    let names = move || {
        ctx.state.with(|s| {
            let real = s.members.values().rev().filter(|member| !member.simulated).take(NAMES);
            real.map(|member| view! { <li>{s.title(member.mlu)}</li> }).collect_view()
        })
    };
    view! {
        <div class="overlay qr-overlay" role="dialog" aria-label="How to join" on:click=move |_| ctx.overlay.set(Overlay::None)>
            <section class="qr-sheet">
                <div class="qr-code" role="img" aria-label="QR code of the address" data-testid="qr" inner_html=svg.unwrap_or_default()></div>
                <div class="qr-words">
                    <p class="muted">"Scan it, or open"</p>
                    <p class="qr-address" data-testid="join-address">{short_address()}</p>
                    <p class="muted">"with the code"</p>
                    <p class="qr-letters num">{words::spaced(&code)}</p>
                    <p class="qr-count"><b class="num" data-testid="qr-count">{move || count.get()}</b>{move || if count.get() == 1 { " phone is here" } else { " phones are here" }}</p>
                    <ul class="qr-names">{names}</ul>
                    <p class="problem" hidden=!is_local>
                        "No phone reaches this address: it is this computer’s own. Start the server with --lan and open the address that it prints."
                    </p>
                    <p class="hint" hidden=!keep::has_own_certificate()>
                        "The phone will warn of the certificate, which this server made itself. Android: Advanced, then Proceed. iPhone: Show Details, then visit this website."
                    </p>
                    <p class="hint"><kbd>"q"</kbd>" or a click closes this"</p>
                </div>
            </section>
        </div>
    }
}
