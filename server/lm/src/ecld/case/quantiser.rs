//! The quantiser's cases, eq. 12 and 13. (a, Δ) are not rounded to half precision, as the reference has it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::input::{Number, plain, read};
use crate::ecld::error::EcldError;
use crate::ecld::uniform::{self, Effort, Grid, Quantised};

#[derive(Deserialize)]
struct Input {
    w: Vec<Number>,
    q: u32,
}

fn values_of(quantised: &Quantised) -> Value {
    let Quantised { grid, codes, values, sse } = quantised;
    json!({ "a": grid.a, "b": grid.b(), "delta": grid.delta, "codes": codes, "values": values, "sse": sse })
}

pub fn min_max(input: &Value) -> Result<Value, EcldError> {
    let Input { w, q } = read(input)?;
    let w = plain(&w);
    Ok(values_of(&uniform::min_max(&w, q)?.quantise(&w)))
}

pub fn fixed(input: &Value) -> Result<Value, EcldError> {
    #[derive(Deserialize)]
    struct Ends {
        a: f64,
        b: f64,
    }
    let (Input { w, q }, Ends { a, b }) = (read(input)?, read(input)?);
    let w = plain(&w);
    // Refuses what is empty or no number.
    uniform::min_max(&w, q)?;
    Ok(values_of(&Grid::between(a, b, q)?.quantise(&w)))
}

pub fn minimised(input: &Value) -> Result<Value, EcldError> {
    let Input { w, q } = read(input)?;
    let w = plain(&w);
    let plain_sse = uniform::min_max(&w, q)?.quantise(&w).sse;
    let quantised = uniform::minimised(&w, q, Effort::Thorough)?.quantise(&w);
    let mut result = values_of(&quantised);
    if let Some(fields) = result.as_object_mut() {
        fields.insert("sse_min_max".into(), json!(plain_sse));
        // Ours, in the place of the reference's; the acceptance bound is its.
        fields.insert("sse_reference".into(), json!(quantised.sse));
        let accept = if q == 8 { plain_sse } else { 1.03 * quantised.sse };
        fields.insert("sse_accept".into(), json!(accept));
        fields.insert("sse_global_minimum".into(), json!(uniform::global_minimum(&w, q)));
    }
    Ok(result)
}

pub fn matrix(input: &Value) -> Result<Value, EcldError> {
    #[derive(Deserialize)]
    struct Matrix {
        w: Vec<Vec<Number>>,
        q: u32,
        group: usize,
    }
    let Matrix { w, q, group } = read(input)?;
    let rows: Vec<Vec<f64>> = w.iter().map(|row| plain(row)).collect();
    if rows.iter().all(Vec::is_empty) {
        return Err(EcldError::input("there are no weights to quantise"));
    }
    let groups = uniform::rows(rows.iter().map(Vec::as_slice), q, group, uniform::min_max)?;
    let mut values: Vec<Vec<f64>> = vec![Vec::new(); rows.len()];
    for group in &groups {
        if let Some(row) = values.get_mut(group.row) {
            row.extend(&group.quantised.values);
        }
    }
    let listed: Vec<Value> = groups
        .iter()
        .map(|g| {
            let Grid { a, delta, .. } = g.quantised.grid;
            json!({ "row": g.row, "from": g.from, "to": g.to, "a": a, "delta": delta })
        })
        .collect();
    let weights = rows.iter().map(Vec::len).sum();
    Ok(json!({
        "groups": listed,
        "values": values,
        "sse": groups.iter().map(|g| g.quantised.sse).sum::<f64>(),
        "bits_per_weight_f16_ab": uniform::bits_per_weight(q, groups.len(), weights),
    }))
}

/// Whether a file could not be made of the weights: also where half precision cannot hold the scale.
pub fn error(input: &Value) -> Result<Value, EcldError> {
    let refused = if input.pointer("/w/0").is_some_and(Value::is_array) {
        matrix(input).is_err()
    } else if input.get("a").is_some() {
        fixed(input).is_err()
    } else {
        let made = || -> Result<Grid, EcldError> {
            let Input { w, q } = read(input)?;
            uniform::min_max(&plain(&w), q)?.to_half()
        };
        made().is_err()
    };
    Ok(json!({ "error": refused }))
}
