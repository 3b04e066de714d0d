//! Who is here: names, what they measured, and what the presenter can do about them.

use client::protocol::rooms::Presence;
use client::protocol::rooms::down::Member;
use client::protocol::rooms::up::Command;
use leptos::prelude::*;
use web::format;

use super::ctx::{Ctx, Overlay};
use super::words;

/// The list, over the screen.
#[component]
pub fn People() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let mlus = Memo::new(move |_| ctx.state.with(|s| s.members.keys().copied().collect::<Vec<u32>>()));
    view! {
        <div class="overlay" role="dialog" aria-label="Members">
            <section class="sheet card">
                <div class="card-head">
                    <h2>{move || format::count(mlus.with(Vec::len), "member")}</h2>
                    <button on:click=move |_| ctx.overlay.set(Overlay::None)>"Close "<kbd>"Esc"</kbd></button>
                </div>
                <div class="scroll people">
                    <table data-testid="people">
                        <thead>
                            <tr><th>"MLU"</th><th>"name"</th><th>"cell"</th><th>"part"</th><th></th><th>"tokens/s"</th><th>"TTFT"</th><th>"queue"</th><th>"battery"</th><th>"answers"</th><th></th></tr>
                        </thead>
                        <tbody>
                            <For each=move || mlus.get() key=|mlu| *mlu let(mlu)><Person mlu /></For>
                        </tbody>
                    </table>
                </div>
            </section>
        </div>
    }
}

#[component]
fn Person(mlu: u32) -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let member = Memo::new(move |_| ctx.state.with(|s| s.members.get(&mlu).cloned()));
    let with = move |read: fn(&Member) -> String| move || member.with(|m| m.as_ref().map(read));
    let muted = move || member.with(|m| m.as_ref().is_some_and(|m| m.presence == Presence::Muted));
    let cells = Memo::new(move |_| ctx.state.with(|s| s.members.values().map(|m| m.cell).max().unwrap_or(1)));
    let cell = move || member.with(|m| m.as_ref().map_or(1, |m| m.cell));
    let remove = move |_| {
        let title = ctx.state.with_untracked(|s| s.title(mlu));
        if window().confirm_with_message(&format!("Remove {title} for good?")).unwrap_or(false) {
            ctx.command(Command::Remove { mlu });
        }
    };
    view! {
        <tr data-testid="person" data-mlu=mlu.to_string() class:away=move || member.with(|m| m.as_ref().is_some_and(|m| m.presence != Presence::Active))>
            <th class="num">{mlu}</th>
            <td>
                <input
                    type="text" maxlength="24" aria-label=format!("Name of MLU {mlu}")
                    prop:value=with(|m| m.name.clone())
                    on:change:target=move |event| ctx.command(Command::Rename { mlu, name: event.target().value() })
                />
            </td>
            <td>
                <select aria-label=format!("Cell of MLU {mlu}") on:change:target=move |event| {
                    if let Ok(cell) = event.target().value().parse() {
                        ctx.command(Command::Move { mlu, cell });
                    }
                }>
                    {move || (1..=cells.get() + 1)
                        .map(|one| {
                            let name = if one > cells.get() { format!("{one}, new") } else { one.to_string() };
                            view! { <option value=one.to_string() selected=move || cell() == one>{name}</option> }
                        })
                        .collect_view()}
                </select>
            </td>
            <td>{with(|m| if m.simulated { "simulated".to_owned() } else { words::part(m.part).to_owned() })}</td>
            <td>{with(|m| words::presence(m.presence).to_owned())}</td>
            <td class="num">{with(|m| format::or_na(m.telemetry.tokens_per_s, |rate| format!("{rate:.0}")))}</td>
            <td class="num">{with(|m| format::or_na(m.telemetry.ttft_s, format::seconds))}</td>
            <td class="num">{with(|m| m.telemetry.queue.map_or_else(|| format::NA.to_owned(), |queue| queue.to_string()))}</td>
            <td class="num">{with(|m| format::or_na(m.telemetry.battery, format::percent))}</td>
            <td class="num">{with(|m| m.answers.to_string())}</td>
            <td class="person-buttons">
                <button on:click=move |_| ctx.command(Command::Mute { mlu, muted: !muted() })>{move || if muted() { "Let in" } else { "Mute" }}</button>
                <button class="bad" on:click=remove>"Remove"</button>
            </td>
        </tr>
    }
}
