//! The cells as tiles, every MLU in them.

use leptos::prelude::*;

use super::ctx::Ctx;
use crate::draw::{self, Detail};

/// The tiles: one fills the screen, many share it.
#[component]
pub fn Hall() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let count = Memo::new(move |_| ctx.state.with(|s| s.picture.cells.len()));
    let detail = move || match count.get() {
        0 | 1 => Detail::Full,
        2..=12 => Detail::Numbers,
        _ => Detail::Dots,
    };
    let tiles = move || {
        let detail = detail();
        ctx.state.with(|state| {
            let tiles = state.tiles();
            let many = tiles.len() > 1;
            tiles
                .iter()
                .map(|tile| {
                    let here = tile.dots.iter().filter(|dot| !dot.is_away).count();
                    let reward =
                        tile.reward.map_or_else(|| "N/A".to_owned(), |reward| format!("{reward:.2}").replace('-', "−"));
                    let head = if many {
                        format!(
                            "<p class=\"tile-head num\"><b>Cell {}</b><span>{here} here · reward {reward}</span></p>",
                            tile.cell
                        )
                    } else {
                        String::new()
                    };
                    format!(
                        "<div class=\"tile\" data-cell=\"{}\">{head}{}</div>",
                        tile.cell,
                        draw::cell(&tile.dots, state.radius_m, detail)
                    )
                })
                .collect::<String>()
        })
    };
    // As square as can be: four cells as two by two, fifty as eight by seven.
    let columns = move || {
        #[expect(clippy::cast_precision_loss, reason = "a number of cells")]
        let root = (count.get().max(1) as f64 * 1.25).sqrt();
        format!("--columns:{:.0}", root.round().max(1.0))
    };
    let empty = move || count.get() == 0 || ctx.state.with(|s| s.picture.cells.iter().all(|cell| cell.mlus.is_empty()));
    view! {
        <section class="hall card" aria-label="The cells">
            <p class="empty" hidden=move || !empty() data-testid="nobody">
                "Nobody is here yet. Press " <kbd>"q"</kbd> " for the QR code, or fill the room for a rehearsal."
            </p>
            <div class="tiles" data-testid="tiles" hidden=empty style=columns inner_html=tiles></div>
            <p class="hint legend" hidden=empty>
                <span><i class="line bad"></i>"slow uplink"</span>
                <span><i class="line good"></i>"fast uplink"</span>
                <span><i class="swatch device"></i>"computed on the phone"</span>
                <span><i class="swatch server"></i>"α, sent to the server"</span>
                <span><i class="dashed"></i>"away"</span>
            </p>
        </section>
    }
}
