//! A room's exported slots, as the pictures that they were. No phones, no server: the numbers are those of the file, and
//! those of the whole room are made of them as the server makes them.

use client::protocol::rooms::down::{CellPicture, Dot, Picture, RoomNumbers};
use client::protocol::rooms::rest::{RoomExport, SlotRecord};
use client::protocol::rooms::{Presence, ROOM_VERSION};

/// Reads an exported file.
///
/// # Errors
/// What is wrong with it and what to do, in words.
pub fn read(text: &str) -> Result<RoomExport, String> {
    let export: RoomExport = serde_json::from_str(text).map_err(|error| {
        format!("This is not a room’s slots.json ({error}). Export one with “JSON” on a presenter’s screen.")
    })?;
    if export.version != ROOM_VERSION {
        return Err(format!("The file is of version {}, this page reads {ROOM_VERSION}.", export.version));
    }
    if export.slots.is_empty() {
        return Err("The file has no slots: nobody took part.".to_owned());
    }
    Ok(export)
}

/// A slot as it was seen.
#[must_use]
pub fn picture(record: &SlotRecord) -> Picture {
    let cells = record
        .cells
        .iter()
        .map(|cell| CellPicture {
            cell: cell.cell,
            reward: Some(cell.reward),
            mlus: cell
                .mlus
                .iter()
                .map(|mlu| Dot {
                    mlu: mlu.mlu,
                    x_m: mlu.x_m,
                    y_m: mlu.y_m,
                    presence: mlu.presence,
                    alpha: mlu.alpha,
                    power_w: mlu.power_w,
                    rate_bps: mlu.rate_bps,
                    latency_s: mlu.latency_s,
                    tokens_per_s: mlu.tokens_per_s,
                })
                .collect(),
        })
        .collect();
    Picture { slot: record.slot, decider: record.decider, late_ms: 0.0, cells, room: numbers(record) }
}

#[expect(clippy::cast_precision_loss, reason = "counts of devices")]
fn numbers(record: &SlotRecord) -> RoomNumbers {
    let all: Vec<_> = record.cells.iter().flat_map(|cell| &cell.mlus).collect();
    let active: Vec<_> = all.iter().filter(|mlu| mlu.presence == Presence::Active).collect();
    let away = all.iter().filter(|mlu| mlu.presence == Presence::Away).count();
    let mean = |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let of = |read: fn(&client::protocol::rooms::rest::MluRecord) -> f64| -> Vec<f64> {
        active.iter().map(|mlu| read(mlu)).collect()
    };
    let latencies = of(|mlu| mlu.latency_s);
    let bits: f64 = of(|mlu| mlu.size_bits).iter().sum();
    let rewards: Vec<f64> = record.cells.iter().map(|cell| cell.reward).collect();
    RoomNumbers {
        active: u32::try_from(active.len()).unwrap_or(u32::MAX),
        away: u32::try_from(away).unwrap_or(u32::MAX),
        latency_median_s: quantile(&latencies, 0.5),
        latency_p95_s: quantile(&latencies, 0.95),
        offloaded: (bits > 0.0).then(|| of(|mlu| mlu.alpha * mlu.size_bits).iter().sum::<f64>() / bits),
        // Of nothing: 0, where `sum` gives −0.
        energy_j: of(|mlu| mlu.local_j + mlu.uplink_j).iter().fold(0.0, |sum, of| sum + of),
        accuracy: mean(&of(|mlu| mlu.accuracy)),
        hallucination: mean(&of(|mlu| mlu.hallucination)),
        reward: mean(&rewards),
        phones_tokens_per_s: of(|mlu| mlu.tokens_per_s).iter().fold(0.0, |sum, of| sum + of),
        ..RoomNumbers::default()
    }
}

/// The smallest value that at least a share `q` of all values does not exceed.
#[must_use]
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    let rank = ((q * sorted.len() as f64).ceil() as usize).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use client::protocol::rooms::RoomSettings;
    use client::protocol::rooms::rest::{CellRecord, MluRecord};
    use client::protocol::world::Decider;

    use super::*;

    fn export() -> RoomExport {
        let mlu = |mlu: u32, alpha: f64, latency_s: f64| MluRecord {
            mlu,
            alpha,
            latency_s,
            size_bits: 1e6,
            local_j: 0.25,
            uplink_j: 0.25,
            accuracy: 0.7,
            ..MluRecord::default()
        };
        let away = MluRecord { presence: Presence::Away, ..mlu(3, 0.0, 0.0) };
        let cell = |cell, mlus| CellRecord { cell, reward: f64::from(cell), penalty: 0.0, mlus };
        let cells = vec![cell(1, vec![mlu(1, 0.5, 0.1), mlu(2, 1.0, 0.3)]), cell(2, vec![mlu(4, 0.0, 0.2), away])];
        let slots = vec![SlotRecord { slot: 9, at_ms: 0, decider: Decider::Oracle, cells }];
        let code = "BCD234".to_owned();
        RoomExport { version: ROOM_VERSION, code, seed: 1, settings: RoomSettings::default(), radius_m: 20.0, slots }
    }

    #[test]
    fn a_slot_is_seen_as_it_was() {
        let picture = picture(&export().slots[0]);
        let room = &picture.room;
        assert_eq!((picture.slot, picture.cells.len(), room.active, room.away), (9, 2, 3, 1));
        assert_eq!((room.latency_median_s, room.latency_p95_s, room.offloaded), (Some(0.2), Some(0.3), Some(0.5)));
        assert_eq!((room.energy_j, room.reward), (1.5, Some(1.5)));
        assert!(room.accuracy.is_some_and(|mean| (mean - 0.7).abs() < 1e-12));
    }

    #[test]
    fn a_file_survives_and_others_are_refused_in_words() {
        let text = serde_json::to_string(&export()).expect("json");
        assert_eq!(read(&text), Ok(export()));
        let future = serde_json::to_string(&RoomExport { version: 99, ..export() }).expect("json");
        let empty = serde_json::to_string(&RoomExport { slots: Vec::new(), ..export() }).expect("json");
        for (wrong, says) in [("{}", "not a room"), ("", "not a room"), (&*future, "version 99"), (&*empty, "no slots")]
        {
            let error = read(wrong).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn quantiles_are_values() {
        for (values, q, expect) in [
            (&[][..], 0.5, None),
            (&[3.0], 0.95, Some(3.0)),
            (&[4.0, 1.0, 3.0, 2.0], 0.5, Some(2.0)),
            (&[1.0, 2.0, 3.0, 4.0], 0.95, Some(4.0)),
        ] {
            assert_eq!(quantile(values, q), expect, "{values:?}");
        }
    }
}
