//! The answers, token by token, with who wrote what and how fast.

use client::protocol::worker::{Origin, PromptPlan};
use leptos::prelude::*;

use crate::ctx::{Ctx, ctx};
use crate::format::{self, or_na};
use crate::player;
use crate::run::{Answer, Run, Status};
use crate::state::State;
use crate::url::wire_name;

/// The answers of the latest burst, or of the recorded one.
#[component]
pub fn Answers() -> impl IntoView {
    let ctx = ctx();
    // The list is built anew for each burst; within one, the parts follow their own signals.
    let shown = Memo::new(move |_| (ctx.shows_recording(), ctx.with_run(|r| r.map(|r| (r.ask, r.answers.len())))));
    view! {
        <section class="panel answers" id="answers" aria-labelledby="answers-title">
            <div class="answers-head">
                <h2 id="answers-title">"Answers"</h2>
                <Legend />
            </div>
            <Show when=move || ctx.shows_recording()>
                <p class="recorded" data-testid="recorded">
                    <span class="recorded-mark">"Recorded"</span>
                    "An earlier run of these two models, at its own pace. Ask something to see yours. "
                    <button class="textual" on:click=move |_| player::play(ctx)>"Play again"</button>
                </p>
            </Show>
            <div data-testid="answers" aria-busy=move || ctx.with_run(|r| r.is_some_and(Run::active)).to_string()>
                {move || match shown.get().1 {
                    None => view! {
                        <p class="empty">
                            "Nothing asked yet. Each answer appears here while it is written, coloured and underlined by the side that wrote it."
                        </p>
                    }
                    .into_any(),
                    Some((_, count)) => {
                        let items = (0..count).map(|index| view! { <AnswerItem index /> }).collect_view();
                        view! { <ol class="answer-list">{items}</ol> }.into_any()
                    }
                }}
            </div>
            <Show when=move || problem(ctx).is_some()>
                <p class="run-problem" data-testid="notice">{move || problem(ctx)}</p>
            </Show>
            <Rates />
            <p class="sr-only" aria-live="polite">
                {move || ctx.state.with(|s| s.run.as_ref().and_then(Run::summary))}
            </p>
        </section>
    }
}

fn problem(ctx: Ctx) -> Option<String> {
    ctx.with_run(|run| match run.map(|r| &r.status) {
        Some(Status::Failed(message)) => Some(message.clone()),
        _ => None,
    })
}

/// What colour and line mean.
#[component]
pub fn Legend() -> impl IntoView {
    view! {
        <p class="legend" data-testid="legend">
            <span class="token device">"this device"</span>
            <span class="token server">"server"</span>
        </p>
    }
}

/// One question and its answer.
#[component]
fn AnswerItem(index: usize) -> impl IntoView {
    let ctx = ctx();
    let read = move |f: fn(&Answer) -> String| {
        ctx.with_run(|r| r.and_then(|r| r.answers.get(index)).map(f)).unwrap_or_default()
    };
    let plan = Memo::new(move |_| ctx.with_run(|r| r.and_then(|r| r.answers.get(index)?.plan.clone())));
    let quality = Memo::new(move |_| ctx.with_run(|r| r.and_then(|r| r.answers.get(index)?.quality.clone())));
    let cut = Memo::new(move |_| ctx.with_run(|r| r.and_then(|r| r.answers.get(index)).is_some_and(|a| a.cut)));
    let waiting = Memo::new(move |_| {
        ctx.with_run(|r| r.is_some_and(|r| r.active() && r.answers.get(index).is_some_and(|a| !a.done)))
    });
    let tokens = move || {
        ctx.with_run(|r| r.and_then(|r| r.answers.get(index)).map(|a| a.tokens.clone()).unwrap_or_default())
            .into_iter()
            .enumerate()
    };
    view! {
        <li class="answer">
            <p class="question">{move || read(|a| a.question.clone())}</p>
            <p class="answer-text" data-testid=format!("answer-{index}")>
                <For each=tokens key=|(at, _)| *at let((_, token))>
                    <span
                        class="token"
                        class:device=token.origin == Origin::Device
                        class:server=token.origin == Origin::Server
                        data-testid="token"
                        data-origin=wire_name(token.origin)
                    >
                        {token.text}
                    </span>
                </For>
                <span class="caret" hidden=move || !waiting.get() aria-hidden="true"></span>
            </p>
            <Show when=move || cut.get()>
                <p class="cut" data-testid="cut">
                    "Cut here at the longest answer, or at the end of the model’s context. "
                    <button
                        class="textual"
                        data-testid=format!("go-on-{index}")
                        hidden=move || ctx.shows_recording() || ctx.state.with(State::busy)
                        on:click=move |_| ctx.go_on(index)
                    >
                        "Go on"
                    </button>
                </p>
            </Show>
            <p class="share">
                {move || plan.with(|p| p.as_ref().map(|p| view! { <ShareBar index plan=p.clone() /> }))}
                {move || quality.with(|q| q.as_ref().map(|q| view! {
                    <span class="share-note" title="Cosine similarity to the full model's own answer (eq. 26), and the share of tokens below the threshold (eq. 27)">
                        {format!("similarity {} · unsupported {}", format::ratio(q.accuracy), format::percent(q.hallucination))}
                    </span>
                }))}
            </p>
            {move || quality.with(|q| q.as_ref().map(|q| view! {
                <details class="reference">
                    <summary>"The full model alone"</summary>
                    <p>{q.reference.clone()}</p>
                </details>
            }))}
        </li>
    }
}

/// How an answer is shared: as it is planned until there are tokens, then as it is; and how sure the compact model was.
#[component]
fn ShareBar(index: usize, plan: PromptPlan) -> impl IntoView {
    let ctx = ctx();
    let planned = plan.server_share;
    let counts = Memo::new(move |_| {
        let count = |a: &Answer| (a.count(Origin::Server), a.tokens.len());
        ctx.with_run(|r| r.and_then(|r| r.answers.get(index)).map(count)).unwrap_or_default()
    });
    #[expect(clippy::cast_precision_loss, reason = "token counts are small")]
    let width = move || {
        let (server, all) = counts.get();
        format!("{:.1}%", 100.0 * if all == 0 { planned } else { server as f64 / all as f64 })
    };
    let doubt = or_na(plan.entropy.map(f64::from), |h| format!("{h:.2} nat"));
    view! {
        <span class="share-bar" aria-hidden="true">
            <span class="share-server" style:width=width></span>
        </span>
        <span class="share-note">
            {move || {
                let (server, all) = counts.get();
                format!("server {server} of {all}, planned {}", format::percent(planned))
            }}
            " · " <span title="Entropy of the compact model's first token: how unsure it is. The most doubtful prompts go to the server first.">"doubt " {doubt}</span>
        </span>
    }
}

/// First token and decode rate of each side.
#[component]
fn Rates() -> impl IntoView {
    let ctx = ctx();
    let row = move |origin: Origin, label: &'static str, class: &'static str| {
        view! {
            <tr>
                <th scope="row"><span class=format!("swatch {class}") aria-hidden="true"></span>{label}</th>
                <td>{move || or_na(ctx.with_run(|r| r.and_then(|r| r.ttft_s(origin))), format::seconds)}</td>
                <td>{move || or_na(ctx.with_run(|r| r.and_then(|r| r.tokens_per_s(origin))), format::tokens_per_s)}</td>
                <td>{move || ctx.with_run(|r| r.map_or(0, |r| r.side(origin).tokens))}</td>
            </tr>
        }
    };
    view! {
        <table class="rates">
            <thead>
                <tr>
                    <th scope="col"><span class="sr-only">"Side"</span></th>
                    <th scope="col" title="Time from Enter to the first token (TTFT)">"First token"</th>
                    <th scope="col" title="Tokens a second after the first one">"Decode"</th>
                    <th scope="col">"Tokens"</th>
                </tr>
            </thead>
            <tbody>{row(Origin::Device, "This device", "device")} {row(Origin::Server, "Server", "server")}</tbody>
        </table>
    }
}
