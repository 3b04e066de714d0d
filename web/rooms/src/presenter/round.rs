//! Rounds: every phone asks at once.

use client::protocol::rooms::ROUND_QUESTIONS;
use client::protocol::rooms::up::Command;
use leptos::prelude::*;
use web::{burst, format};

use super::ctx::Ctx;

/// How long answers of a round are taken, seconds.
const SECONDS: u32 = 60;
/// Answers that are shown.
const SHOWN: usize = 4;

/// Starting a round, how it goes, and the answers as they come.
#[component]
pub fn Rounds() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let sets = burst::suggestions();
    let names: Vec<(String, String)> = sets
        .iter()
        .map(|set| (set.key.clone(), format!("{} ({} questions)", set.label, set.questions.len())))
        .collect();
    // `own` or a question typed here are no sets.
    let choice = RwSignal::new(sets.first().map_or_else(|| "own".to_owned(), |set| set.key.clone()));
    let typed = RwSignal::new("What is the capital of Kenya?".to_owned());
    let start = move |_| {
        let questions = match choice.get_untracked().as_str() {
            "own" => Vec::new(),
            "typed" => vec![typed.get_untracked().trim().to_owned()],
            key => sets.iter().find(|set| set.key == key).map(|set| set.questions.clone()).unwrap_or_default(),
        };
        let questions = questions.into_iter().filter(|q| !q.is_empty()).take(ROUND_QUESTIONS).collect();
        ctx.command(Command::StartRound { questions, seconds: SECONDS });
    };
    let open = Memo::new(move |_| ctx.state.with(|s| s.round.as_ref().is_some_and(|round| round.open)));
    let sum = move || {
        ctx.state.with(|s| {
            s.round.as_ref().map(|round| {
                let state = if round.open { "runs" } else { "is over" };
                format!("Round {} {state}: {} of {} answered", round.round, round.answered, round.asked)
            })
        })
    };
    let result = move || {
        ctx.state.with(|s| {
            s.round.as_ref().filter(|round| round.answered > 0).map(|round| {
                format!(
                    "{} tokens by phones, {} by the server · median {}, 95th percentile {}",
                    round.device_tokens,
                    round.server_tokens,
                    format::or_na(round.latency_median_s, format::seconds),
                    format::or_na(round.latency_p95_s, format::seconds)
                )
            })
        })
    };
    let progress = move || {
        ctx.state
            .with(|s| s.round.as_ref().map_or(0.0, |round| f64::from(round.answered) / f64::from(round.asked.max(1))))
    };
    view! {
        <section class="card" aria-label="Rounds">
            <div class="card-head">
                <h2>"Round"</h2>
                <button data-testid="end-round" hidden=move || !open.get() on:click=move |_| ctx.command(Command::EndRound)>"End it "<kbd>"e"</kbd></button>
            </div>
            <div class="line-fields">
                <select aria-label="What is asked" data-testid="question-set" on:change:target=move |event| choice.set(event.target().value())>
                    {names.into_iter().map(|(key, name)| view! { <option value=key>{name}</option> }).collect_view()}
                    <option value="typed">"One question for all"</option>
                    <option value="own">"Each asks its own"</option>
                </select>
                <button class="primary" data-testid="start-round" on:click=start>"Start"</button>
            </div>
            <input
                class="wide-input"
                type="text"
                maxlength="2000"
                aria-label="The question"
                data-testid="round-question"
                hidden=move || choice.get() != "typed"
                prop:value=move || typed.get()
                on:input:target=move |event| typed.set(event.target().value())
            />
            <div hidden=move || sum().is_none()>
                <p data-testid="round">{sum}</p>
                <span class="meter"><span style:width=move || format!("{:.1}%", 100.0 * progress())></span></span>
                <p class="hint" data-testid="round-result">{result}</p>
                <ol class="answers" data-testid="answers">
                    {move || ctx.state.with(|s| {
                        s.answers
                            .iter()
                            .take(SHOWN)
                            .map(|answered| {
                                let answer = &answered.answer;
                                let all = f64::from(answer.device_tokens + answer.server_tokens).max(1.0);
                                let share = 100.0 * f64::from(answer.server_tokens) / all;
                                view! {
                                    <li>
                                        <p class="answer-who">
                                            <b>{s.title(answered.mlu)}</b>
                                            <span class="split"><span style:width=format!("{share:.0}%")></span></span>
                                            <span class="num">{format::seconds(answer.latency_s)}</span>
                                        </p>
                                        <p class="answer-said"><span class="muted">{answer.question.clone()}</span>" "{answer.text.clone()}</p>
                                    </li>
                                }
                            })
                            .collect_view()
                    })}
                </ol>
            </div>
        </section>
    }
}
