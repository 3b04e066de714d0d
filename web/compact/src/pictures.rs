//! The pictures: quality over bytes, losses, what was cut, what scored how.

use chart::plot::{Palette, Plot, svg};
use leptos::prelude::*;
use web::dom;

use crate::cuts::{self, Cut, Part, cut, heats};
use crate::plots::{GROUPS, curve_colour, losses, quality};
use crate::report::{METRICS, Report, colour};

fn size() -> [f64; 2] {
    if dom::media("(max-width: 719px)") { [340.0, 240.0] } else { [600.0, 300.0] }
}

fn paint(token: &str) -> String {
    format!("var({token})")
}

fn drawn(plot: &Plot) -> Option<String> {
    let palette = Palette {
        surface: paint("--surface"),
        ink: paint("--ink-3"),
        grid: paint("--line"),
        font: "var(--font)".to_owned(),
    };
    svg(plot, &palette)
}

/// Quality over bytes.
#[component]
pub(crate) fn Quality(report: Report) -> impl IntoView {
    let metric = RwSignal::new(1_usize);
    let groups: Vec<_> =
        GROUPS.iter().filter(|(group, _)| report.variants.iter().any(|variant| variant.group == *group)).collect();
    view! {
        <section class="panel" aria-labelledby="compact-quality">
            <div class="panel-head">
                <h2 id="compact-quality">"Quality over bytes"</h2>
                <label class="sr-only" for="compact-metric">"Which quality"</label>
                <select id="compact-metric" data-testid="compact-metric" on:change:target=move |event| {
                    metric.set(event.target().value().parse().unwrap_or(0));
                }>
                    {METRICS
                        .into_iter()
                        .enumerate()
                        .map(|(place, name)| view! { <option value=place.to_string() selected=place == 1>{name}</option> })
                        .collect_view()}
                </select>
            </div>
            <figure class="chart" role="img" aria-label=move || format!("{} over the size of the file", METRICS[metric.get().min(2)]) data-testid="compact-quality" inner_html=move || {
                drawn(&quality(&report, metric.get().min(2), size(), paint)).unwrap_or_default()
            }></figure>
            <ul class="compact-legend">
                {groups
                    .into_iter()
                    .map(|(group, words)| view! {
                        <li><span class="compact-swatch" style=format!("background:var({})", colour(group)) aria-hidden="true"></span>{*words}</li>
                    })
                    .collect_view()}
            </ul>
            <p class="hint">"The line is what fewer bits alone give at every size; what is worth its training lies above it (below it for hallucination). Bars are 95 % intervals."</p>
        </section>
    }
}

/// Losses of the trainings.
#[component]
pub(crate) fn Losses(report: Report) -> impl IntoView {
    let names: Vec<String> = report.curves.iter().map(|(name, _)| name.clone()).collect();
    let picture = losses(&report, size(), paint).as_ref().and_then(drawn);
    view! {
        <section class="panel" aria-labelledby="compact-losses">
            <div class="panel-head">
                <h2 id="compact-losses">"Distillation: loss over steps"</h2>
            </div>
            {match picture {
                Some(picture) => view! {
                    <figure class="chart" role="img" aria-label="Loss of every training over its steps" data-testid="compact-losses" inner_html=picture></figure>
                    <ul class="compact-legend">
                        {names
                            .into_iter()
                            .enumerate()
                            .map(|(place, name)| view! {
                                <li><span class="compact-swatch" style=format!("background:var({})", curve_colour(place)) aria-hidden="true"></span>{name}</li>
                            })
                            .collect_view()}
                    </ul>
                }
                .into_any(),
                None => view! { <p class="empty">"Nothing was trained in this report."</p> }.into_any(),
            }}
        </section>
    }
}

/// What was cut, and what scored how.
#[component]
pub(crate) fn Cuts(report: Report) -> impl IntoView {
    let all: Vec<(String, Cut)> =
        report.cut().filter_map(|variant| Some((variant.title.clone(), cut(&report, variant)?))).collect();
    // Those of one cut are the same; the first speaks for all.
    let mut shown: Vec<(Vec<String>, Cut)> = Vec::new();
    for (title, cut) in all {
        match shown.iter_mut().find(|(_, known)| *known == cut) {
            Some((titles, _)) => titles.push(title),
            None => shown.push((vec![title], cut)),
        }
    }
    let maps = report.importance.as_ref().map(heats).unwrap_or_default();
    let tokens = report.importance.as_ref().map_or(0, |scores| scores.tokens);
    let has_maps = !maps.is_empty();
    view! {
        <section class="panel" aria-labelledby="compact-cuts" data-testid="compact-cuts">
            <div class="panel-head">
                <h2 id="compact-cuts">"What was cut"</h2>
            </div>
            {shown.into_iter().map(|(titles, cut)| view! { <OneCut titles cut /> }).collect_view()}
        </section>
        <section class="panel" aria-labelledby="compact-scores" data-testid="compact-scores">
            <div class="panel-head">
                <h2 id="compact-scores">"What scored how (eq. 1)"</h2>
            </div>
            {(!has_maps).then(|| view! { <p class="empty">"This report holds no scores."</p> })}
            {maps
                .into_iter()
                .map(|heat| {
                    let label = format!("{}: {}", heat.name, heat.how);
                    view! {
                        <figure class="compact-heat">
                            <figcaption><b>{heat.name}</b>" · "{heat.how}</figcaption>
                            <div role="img" aria-label=label inner_html=cuts::svg(&heat)></div>
                        </figure>
                    }
                })
                .collect_view()}
            {has_maps.then(|| view! { <p class="hint">{format!("Darkest is highest, each map by itself. Scored on {tokens} tokens of the calibration text.")}</p> })}
        </section>
    }
}

#[component]
fn OneCut(titles: Vec<String>, cut: Cut) -> impl IntoView {
    let Cut { blocks, neurons, rows } = cut;
    let by_block = rows
        .into_iter()
        .map(|row| {
            let name = format!("block {}", row.block);
            match row.is_left {
                true => view! {
                    <tr>
                        <th scope="row">{name}</th>
                        <td><Bar part=row.heads what="heads" /></td>
                        <td><Bar part=row.neurons what="neurons" /></td>
                    </tr>
                }
                .into_any(),
                false => {
                    view! { <tr class="gone"><th scope="row">{name}</th><td colspan="2">"cut"</td></tr> }.into_any()
                }
            }
        })
        .collect_view();
    view! {
        <div class="compact-cut">
            <p>{titles.join(" · ")}</p>
            <table>
                <tbody>
                    <tr>
                        <th scope="row">"all"</th>
                        <td><Bar part=blocks what="blocks" /></td>
                        <td><Bar part=neurons what="neurons a block" /></td>
                    </tr>
                    {by_block}
                </tbody>
            </table>
        </div>
    }
}

#[component]
fn Bar(part: Part, what: &'static str) -> impl IntoView {
    let text =
        if part.of > 0 { format!("{} of {} {what}", part.left, part.of) } else { format!("{} {what}", part.left) };
    view! {
        <span class="compact-bar" aria-hidden="true"><span style:width=format!("{:.1}%", 100.0 * part.share())></span></span>
        <span class="num">{text}</span>
    }
}
