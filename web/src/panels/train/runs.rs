//! The list of runs: how each stands, and what can be done with it.

use client::protocol::runs::{RunState, RunView};
use client::protocol::worker::Command;
use leptos::prelude::*;

use crate::ctx::ctx;
use crate::format;
use crate::geometry::along;
use crate::panel::Panel;
use crate::state::Phase;
use crate::training::run_name;
use crate::training_link::{Action, Link};

/// A second click within this time deletes.
const SURE_WITHIN: std::time::Duration = std::time::Duration::from_secs(4);

/// The panel.
#[component]
pub fn Runs(link: Link) -> impl IntoView {
    let ctx = ctx();
    let ids = Memo::new(move |_| {
        ctx.training
            .with(|t| t.list.as_ref().map(|l| l.runs.iter().map(|run| run.id).collect::<Vec<_>>()).unwrap_or_default())
    });
    view! {
        <Panel id="runs" title="Runs" aside=move || view! { <span class="muted">{move || format::count(ids.with(Vec::len), "run")}</span> }>
            <p class="empty" hidden=move || ids.with(|ids| !ids.is_empty())>
                "No runs yet. A run of 100 000 steps takes about a minute; it goes on when this page is closed."
            </p>
            <ul class="runs">
                <For each=move || ids.get() key=|id| *id let(id)>
                    <RunRow id link />
                </For>
            </ul>
        </Panel>
    }
}

/// What the policy of a run is called in the playground.
fn policy_name(id: i64) -> String {
    format!("run {id}")
}

/// One run.
#[component]
fn RunRow(id: i64, link: Link) -> impl IntoView {
    let ctx = ctx();
    let run = Memo::new(move |_| ctx.training.with(|t| t.run(id).cloned()));
    let read = move |get: fn(&RunView) -> bool| run.with(|r| r.as_ref().is_some_and(get));
    let name = move || run.with(|r| r.as_ref().map(run_name));
    let shown = Memo::new(move |_| ctx.training.with(|t| t.shown.contains(&id).then(|| t.colour(id))));
    let state = move || run.with(|r| r.as_ref().map(|r| r.state.name()));
    let status = move || {
        run.with(|r| {
            let r = r.as_ref()?;
            let word = if r.stopping { "stopping" } else { r.state.name() };
            let best = r.best_reward.map(|best| {
                let share = r
                    .references
                    .get("optimum")
                    .map_or(String::new(), |o| format!(", {:.1} % of the optimum", 100.0 * best / o));
                format!(" · best {best:.3}{share}")
            });
            Some(format!(
                "{word} · {:.0} % of {} steps{}",
                share(r),
                format::thousands(r.total_steps),
                best.unwrap_or_default()
            ))
        })
    };
    let users = move || run.with(|r| r.as_ref().and_then(RunView::users));
    let in_use = Memo::new(move |_| {
        let name = policy_name(id);
        ctx.state.with(|s| s.policies.values().any(|used| *used == name))
    });
    let engine = move || ctx.state.with(|s| s.phase == Phase::Ready);
    let use_policy = move |_| {
        if in_use.get_untracked() {
            if let Some(users) = run.with_untracked(|r| r.as_ref().and_then(RunView::users)) {
                ctx.send(Command::DropPolicy { users });
            }
        } else {
            ctx.send(Command::UsePolicy { path: format!("api/runs/{id}/policy"), name: policy_name(id) });
        }
    };
    let sure = RwSignal::new(false);
    let delete = move |_| {
        if sure.get_untracked() {
            link.act(id, Action::Delete);
        } else {
            sure.set(true);
            // The row may be gone by then.
            set_timeout(move || _ = sure.try_set(false), SURE_WITHIN);
        }
    };
    view! {
        <li class="run" data-testid=format!("run-{id}") data-state=state>
            <label class="run-name">
                <input type="checkbox" data-testid=format!("show-{id}") prop:checked=move || shown.get().is_some() on:change=move |_| link.toggle(id) />
                <span class="run-dot" style:background=move || shown.get().map_or("transparent".to_owned(), super::charts::colour) aria-hidden="true"></span>
                <span>{name}</span>
            </label>
            <p class="run-status num" class:bad=move || read(|r| r.state == RunState::Failed)>{status}</p>
            <div class="run-bar" aria-hidden="true"><span style:width=move || run.with(|r| format!("{:.1}%", r.as_ref().map_or(0.0, share)))></span></div>
            <p class="run-error" hidden=move || read(|r| r.error.is_none())>{move || run.with(|r| r.as_ref().and_then(|r| r.error.clone()))}</p>
            <div class="run-buttons">
                <button
                    data-testid=format!("use-policy-{id}")
                    disabled=move || !read(|r| r.has_policy) || !engine()
                    aria-pressed=move || in_use.get().to_string()
                    title=move || if engine() { "Let it decide in the playground, for its number of users" } else { "The engine does not run in this tab" }
                    on:click=use_policy
                >
                    {move || match (in_use.get(), users()) {
                        (true, Some(users)) => format!("In use for K = {users}; drop"),
                        _ => "Use this policy".to_owned(),
                    }}
                </button>
                <button data-testid=format!("stop-{id}") hidden=move || !read(|r| r.state.is_active()) disabled=move || read(|r| r.stopping) on:click=move |_| link.act(id, Action::Stop)>"Stop"</button>
                <button data-testid=format!("resume-{id}") hidden=move || !read(|r| r.state.can_resume()) on:click=move |_| link.act(id, Action::Resume)>"Resume"</button>
                <button data-testid=format!("delete-{id}") hidden=move || read(|r| r.state == RunState::Running) on:click=delete>
                    {move || if sure.get() { "Really delete" } else { "Delete" }}
                </button>
                <a class="run-link" hidden=move || !read(|r| r.has_policy) href=format!("api/runs/{id}/policy") download=format!("run-{id}.safetensors")>"Policy file"</a>
            </div>
        </li>
    }
}

/// How far a run has come, in percent.
fn share(run: &RunView) -> f64 {
    if run.state == RunState::Finished { 100.0 } else { along(run.steps as f64, run.total_steps as f64) }
}
