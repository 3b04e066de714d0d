//! The log as CSV (RFC 4180): one row a slot, raw SI units, empty where nothing was measured.

use crate::state::LogRow;

/// Column names with their units, in the order of the fields of [`LogRow`].
pub const COLUMNS: [&str; 36] = [
    "slot",
    "seed",
    "prompts",
    "size_bits",
    "alpha",
    "power_w",
    "rate_bps",
    "model_local_s",
    "model_uplink_s",
    "model_server_s",
    "model_latency_s",
    "model_energy_j",
    "model_accuracy",
    "model_hallucination",
    "measured_local_s",
    "measured_uplink_s",
    "measured_server_s",
    "measured_latency_s",
    "measured_accuracy",
    "measured_hallucination",
    "device_ttft_s",
    "server_ttft_s",
    "device_tokens",
    "server_tokens",
    "device_tokens_per_s",
    "server_tokens_per_s",
    "done_alpha",
    "handovers",
    "handover_s",
    "device_read_tokens",
    "device_read_cached",
    "server_read_tokens",
    "server_read_cached",
    "stopped",
    "server_lost",
    "ask",
];

fn optional(value: Option<f64>) -> String {
    value.map_or_else(String::new, |v| v.to_string())
}

fn count(value: Option<usize>) -> String {
    value.map_or_else(String::new, |v| v.to_string())
}

fn row(row: &LogRow) -> [String; 36] {
    let r = &row.record;
    [
        r.slot.to_string(),
        row.seed.map_or_else(String::new, |s| s.to_string()),
        r.prompts.to_string(),
        r.size_bits.to_string(),
        r.alpha.to_string(),
        r.power_w.to_string(),
        r.rate_bps.to_string(),
        r.model_local_s.to_string(),
        r.model_uplink_s.to_string(),
        r.model_server_s.to_string(),
        r.model_latency_s.to_string(),
        r.model_energy_j.to_string(),
        r.model_accuracy.to_string(),
        r.model_hallucination.to_string(),
        optional(r.measured_local_s),
        optional(r.measured_uplink_s),
        optional(r.measured_server_s),
        r.measured_latency_s.to_string(),
        optional(row.compared.map(|c| c.accuracy)),
        optional(row.compared.map(|c| c.hallucination)),
        optional(r.device_ttft_s),
        optional(r.server_ttft_s),
        r.device_tokens.to_string(),
        r.server_tokens.to_string(),
        optional(r.device_tokens_per_s),
        optional(r.server_tokens_per_s),
        optional(r.done_alpha),
        r.handovers.to_string(),
        r.handover_s.to_string(),
        count(r.device_read.map(|read| read.tokens)),
        count(r.device_read.map(|read| read.cached)),
        count(r.server_read.map(|read| read.tokens)),
        count(r.server_read.map(|read| read.cached)),
        r.stopped.to_string(),
        r.server_lost.to_string(),
        row.ask.to_string(),
    ]
}

/// The whole file. All fields are numbers and booleans, so none needs quoting.
pub fn export<'a>(rows: impl IntoIterator<Item = &'a LogRow>) -> String {
    let mut text = COLUMNS.join(",");
    text.push_str("\r\n");
    for log_row in rows {
        text.push_str(&row(log_row).join(","));
        text.push_str("\r\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::run::Compared;
    use crate::run::tests::record;

    #[test]
    fn every_field_of_the_record_stands_under_its_name() {
        let compared = Some(Compared { accuracy: 0.91, hallucination: 0.07 });
        let text = export(&[LogRow { ask: 12, seed: Some(99), record: record(3), compared }]);
        let mut lines = text.split("\r\n");
        let names: Vec<&str> = lines.next().expect("header").split(',').collect();
        let values: Vec<&str> = lines.next().expect("row").split(',').collect();
        assert_eq!(lines.next(), Some(""), "ends with a line break");
        assert_eq!(names.len(), values.len());
        let by_name: BTreeMap<&str, &str> = names.into_iter().zip(values).collect();

        // Field by field against serde's own view of the record: a forgotten or swapped column shows.
        let json = serde_json::to_value(record(3)).expect("json");
        let mut fields: Vec<(String, serde_json::Value)> = Vec::new();
        for (name, value) in json.as_object().expect("object") {
            match value.as_object() {
                Some(parts) => fields.extend(parts.iter().map(|(part, v)| (format!("{name}_{part}"), v.clone()))),
                None => fields.push((name.clone(), value.clone())),
            }
        }
        assert_eq!(fields.len(), COLUMNS.len() - 4, "beside seed, ask and the two of the comparison");
        for (name, value) in &fields {
            let expected = if value.is_null() { String::new() } else { value.to_string() };
            let shown = by_name.get(name.as_str()).unwrap_or_else(|| panic!("no column {name}"));
            match (expected.parse::<f64>(), shown.parse::<f64>()) {
                (Ok(a), Ok(b)) => assert!((a - b).abs() <= f64::EPSILON * a.abs(), "{name}"),
                _ => assert_eq!(&expected, shown, "{name}"),
            }
        }
        assert_eq!(by_name["measured_accuracy"], "0.91");
        assert_eq!(by_name["measured_hallucination"], "0.07");
        assert_eq!((by_name["seed"], by_name["ask"]), ("99", "12"));
    }

    #[test]
    fn what_was_not_measured_is_empty() {
        let text = export(&[LogRow { ask: 1, seed: None, record: record(0), compared: None }]);
        assert!(text.contains(",,"), "{text}");
        assert!(!text.contains("NaN") && !text.contains("None"));
    }
}
