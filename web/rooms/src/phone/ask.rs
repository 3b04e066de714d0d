//! My question and the answer in two colours.

use client::protocol::rooms::up::MeasuredQuality;
use client::protocol::worker::Origin;
use leptos::prelude::*;
use web::format;

use super::answer::{Answering, Outcome, Question};
use super::ctx::Ctx;
use super::engine::Stage;

/// The box at the thumb.
#[component]
pub fn AskBar() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let text = RwSignal::new(String::new());
    let busy = Memo::new(move |_| ctx.answer.with(|answer| answer.as_ref().is_some_and(Answering::is_open)));
    let input = NodeRef::<leptos::html::Input>::new();
    Effect::new(move |_| {
        // A keyboard that opens by itself would cover the screen; a nudge is when it is wanted.
        if ctx.nudge.get().is_some()
            && let Some(input) = input.get_untracked()
        {
            let _ = input.focus();
        }
    });
    let ask = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let question = text.get_untracked().trim().to_owned();
        if !question.is_empty() {
            ctx.ask(Question { text: question, round: ctx.nudge.get_untracked() });
            text.set(String::new());
        }
    };
    view! {
        <form class="ask-bar" on:submit=ask>
            <ModelState />
            <div class="ask-line">
                <input
                    type="text"
                    data-testid="question"
                    aria-label="Question"
                    placeholder="What is the capital of Kenya?"
                    autocomplete="off"
                    enterkeyhint="send"
                    maxlength="2000"
                    node_ref=input
                    prop:value=move || text.get()
                    on:input:target=move |event| text.set(event.target().value())
                />
                <button type="button" data-testid="stop" hidden=move || !busy.get() on:click=move |_| ctx.stop()>"Stop"</button>
                <button class="primary" data-testid="ask" hidden=move || busy.get()>"Ask"</button>
            </div>
        </form>
    }
}

/// How far the model is, while that matters.
#[component]
fn ModelState() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let words = move || match ctx.stage.get() {
        Stage::Off | Stage::Ready => None,
        Stage::Starting => Some("The engine is being fetched; the server answers meanwhile.".to_owned()),
        Stage::Coming(share) => {
            Some(format!("The model arrives: {}. The server answers meanwhile.", format::percent(share)))
        }
        Stage::Failed(why) => Some(format!("No model here: {why} The server answers.")),
    };
    let name = move || match ctx.stage.get() {
        Stage::Off => "off",
        Stage::Starting => "starting",
        Stage::Coming(_) => "coming",
        Stage::Ready => "ready",
        Stage::Failed(_) => "failed",
    };
    view! { <p class="hint model-state" data-testid="model-state" data-state=name hidden=move || words().is_none()>{words}</p> }
}

/// The present question with its answer.
#[component]
pub fn AnswerCard() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let card = NodeRef::<leptos::html::Section>::new();
    // A new question is shown, wherever the page was scrolled to.
    let question = Memo::new(move |_| ctx.answer.with(|a| a.as_ref().map(|a| a.question.clone())));
    Effect::new(move |_| {
        question.track();
        if card.get_untracked().is_some() {
            window().scroll_to_with_x_and_y(0.0, 0.0);
        }
    });
    let outcome = move || ctx.answer.with(|a| a.as_ref().map(|a| a.outcome.clone()));
    let note = move || ctx.answer.with(|a| a.as_ref().and_then(note));
    view! {
        <section
            class="card answer"
            data-testid="answer"
            node_ref=card
            aria-live="polite"
            hidden=move || question.with(Option::is_none)
            data-outcome=move || outcome().map(|outcome| match outcome {
                Outcome::Open => "open",
                Outcome::Whole => "whole",
                Outcome::Stopped => "stopped",
                Outcome::Failed(_) => "failed",
            })
        >
            <p class="question">
                {move || question.with(|q| q.as_ref().and_then(|q| q.round).map(|round| format!("Round {round} · ")))}
                {move || question.with(|q| q.as_ref().map(|q| q.text.clone()))}
            </p>
            <p class="answer-text" data-testid="answer-text">
                {move || ctx.answer.with(|answer| {
                    let pieces = answer.as_ref().map(|answer| answer.pieces.clone()).unwrap_or_default();
                    pieces
                        .into_iter()
                        .map(|piece| {
                            let side = if piece.origin == Origin::Device { "device" } else { "server" };
                            view! { <span class=format!("token {side}") data-origin=side>{piece.text}</span> }
                        })
                        .collect_view()
                })}
            </p>
            <p class="hint">{note}</p>
            <p class="hint legend">
                <span class="swatch device"></span>"this phone "
                <span class="swatch server"></span>"server"
            </p>
        </section>
    }
}

fn note(answer: &Answering) -> Option<String> {
    let times = || {
        let seconds = |value: Option<f64>| format::or_na(value, format::seconds);
        format!(
            "{} here, {} by the server, in {} (first after {}).",
            format::count(answer.device_tokens as usize, "token"),
            answer.server_tokens,
            seconds(answer.latency_s),
            seconds(answer.ttft_s)
        )
    };
    let text = match &answer.outcome {
        Outcome::Open if answer.pieces.is_empty() && answer.alpha >= 1.0 => "The server is asked …".to_owned(),
        Outcome::Open if answer.pieces.is_empty() => {
            format!("{} is asked of the server …", format::percent(answer.alpha))
        }
        Outcome::Open => return answer.notice.clone(),
        Outcome::Whole => match answer.quality {
            Some(MeasuredQuality { accuracy, hallucination }) => format!(
                "{} Beside the full model’s answer: similarity {}, unsupported {}.",
                times(),
                format::ratio(accuracy),
                format::percent(hallucination)
            ),
            None => times(),
        },
        Outcome::Stopped => "Stopped.".to_owned(),
        Outcome::Failed(why) if answer.question.round.is_some() => {
            format!("{why} It is asked again when the server is back.")
        }
        Outcome::Failed(why) => format!("{why} Ask it again."),
    };
    Some(match &answer.notice {
        Some(notice) => format!("{notice} {text}"),
        None => text,
    })
}
