//! What is told of a decided slot.

use client::protocol::rooms::Presence;
use client::protocol::rooms::down::{CellPicture, Decision, Dot, RoomNumbers};
use client::protocol::rooms::rest::{CellRecord, MluRecord};
use client::protocol::world::{Decider, DeviceOutcome};
use mec::cost;
use mec::params::ratio_to_db;
use mec::{UserDecision, UserOutcome};

use super::compare::Gain;
use super::rounds::quantile;
use super::slot::{CellDecided, SeatPlan};
use super::state::Totals;

/// What the server does at present beside the rooms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerNow {
    /// Tokens written a second; `None` where it does not know.
    pub tokens_per_s: Option<f64>,
    /// Requests being answered.
    pub active: u32,
    /// Requests that wait.
    pub queue: u32,
}

/// A number as pictures have it: what nobody sees is not sent.
fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

fn decibels(ratio: f64) -> f64 {
    // A channel in total outage has no finite level; -200 dB is below everything that can be shown.
    if ratio > 0.0 { ratio_to_db(ratio) } else { -200.0 }
}

/// The decisions of a cell, one for each member that took part.
pub fn decisions(slot: u64, decider: Decider, cell: &CellDecided) -> impl Iterator<Item = (u32, Decision)> + '_ {
    let active = cell.seats.iter().flatten().count() as u32;
    let both = cell.plan.seats.iter().zip(&cell.seats);
    both.filter_map(move |(seat, decided)| {
        let (decision, outcome) = decided.as_ref()?;
        Some((seat.mlu, decision_of(slot, decider, active, cell, seat, *decision, outcome)))
    })
}

fn decision_of(
    slot: u64,
    decider: Decider,
    active: u32,
    cell: &CellDecided,
    seat: &SeatPlan,
    decision: UserDecision,
    outcome: &UserOutcome,
) -> Decision {
    let (physics, user) = (&cell.plan.physics, &seat.user);
    let params = &physics.params;
    let fading = seat.radio.fading(physics);
    Decision {
        slot,
        cell: cell.plan.cell,
        active,
        decider,
        distance_m: seat.radio.distance_m(physics),
        gain_db: decibels(user.gain),
        fading_db: decibels(fading),
        size_bits: user.size_bits,
        outcome: DeviceOutcome {
            alpha: decision.alpha,
            power_w: decision.power_w,
            rate_bps: outcome.rate_bps,
            local_s: outcome.local_s,
            uplink_s: outcome.uplink_s,
            server_s: outcome.server_s,
            latency_s: outcome.latency_s,
            local_j: outcome.local_j,
            uplink_j: outcome.uplink_j,
            accuracy: outcome.accuracy,
            hallucination: outcome.hallucination,
        },
        power_max_w: physics.p_max_w,
        alone_bps: cost::rate_bps(physics, decision.power_w * user.gain, 0.0),
        local_only_s: cost::local_latency_s(params, 0.0, user.size_bits),
        local_is_good: user.quality.accuracy(0.0) >= params.a_min && user.quality.hallucination(0.0) <= params.h_max,
        server_hz: if outcome.server_s > 0.0 { outcome.work_cycles / outcome.server_s } else { 0.0 },
    }
}

/// A cell as it is shown.
#[must_use]
pub fn picture(cell: &CellDecided) -> CellPicture {
    let dot = |(seat, decided): (&SeatPlan, &Option<(UserDecision, UserOutcome)>)| {
        let (decision, outcome) = decided.unwrap_or_default();
        Dot {
            mlu: seat.mlu,
            x_m: rounded(seat.radio.x_m, 2),
            y_m: rounded(seat.radio.y_m, 2),
            presence: seat.presence,
            alpha: rounded(decision.alpha, 4),
            power_w: rounded(decision.power_w, 4),
            rate_bps: outcome.rate_bps.round(),
            latency_s: rounded(outcome.latency_s, 4),
            tokens_per_s: rounded(seat.tokens_per_s, 2),
        }
    };
    CellPicture {
        cell: cell.plan.cell,
        reward: cell.totals.map(|totals| totals.reward),
        mlus: cell.plan.seats.iter().zip(&cell.seats).map(dot).collect(),
    }
}

/// A cell as it is kept; `None` where nobody took part.
#[must_use]
pub fn record(cell: &CellDecided) -> Option<CellRecord> {
    let totals = cell.totals?;
    let mlu = |(seat, decided): (&SeatPlan, &Option<(UserDecision, UserOutcome)>)| {
        let own = MluRecord {
            mlu: seat.mlu,
            part: seat.part,
            presence: seat.presence,
            x_m: seat.radio.x_m,
            y_m: seat.radio.y_m,
            ..MluRecord::default()
        };
        let Some((decision, outcome)) = decided else { return own };
        MluRecord {
            gain: seat.user.gain,
            size_bits: seat.user.size_bits,
            alpha: decision.alpha,
            power_w: decision.power_w,
            rate_bps: outcome.rate_bps,
            local_s: outcome.local_s,
            uplink_s: outcome.uplink_s,
            server_s: outcome.server_s,
            latency_s: outcome.latency_s,
            local_j: outcome.local_j,
            uplink_j: outcome.uplink_j,
            accuracy: outcome.accuracy,
            hallucination: outcome.hallucination,
            tokens_per_s: seat.tokens_per_s,
            ..own
        }
    };
    let mlus = cell.plan.seats.iter().zip(&cell.seats).map(mlu).collect();
    Some(CellRecord { cell: cell.plan.cell, reward: totals.reward, penalty: totals.penalty, mlus })
}

/// A sum that is 0 of nothing: the standard library's is −0, and would be shown so.
fn total(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value)
}

/// The whole room in numbers, but for what goes on beside the slot.
#[must_use]
pub fn room_numbers(cells: &[CellDecided], totals: &Totals, server: ServerNow) -> RoomNumbers {
    let seats = || cells.iter().flat_map(|cell| cell.plan.seats.iter().zip(&cell.seats));
    let active: Vec<(&SeatPlan, UserDecision, UserOutcome)> =
        seats().filter_map(|(seat, decided)| decided.map(|(decision, outcome)| (seat, decision, outcome))).collect();
    let count = active.len();
    let mean = |of: &dyn Fn(&UserOutcome) -> f64| {
        (count > 0).then(|| active.iter().map(|(_, _, outcome)| of(outcome)).sum::<f64>() / count as f64)
    };
    let mut latencies: Vec<f64> = active.iter().map(|(_, _, outcome)| outcome.latency_s).collect();
    let sent: f64 = active.iter().map(|(seat, decision, _)| decision.alpha * seat.user.size_bits).sum();
    let all: f64 = active.iter().map(|(seat, _, _)| seat.user.size_bits).sum();
    let mean_quality = |sum: f64| (totals.qualities > 0).then(|| sum / totals.qualities as f64);
    let mut measured: Vec<f64> = totals.latencies.iter().copied().collect();
    RoomNumbers {
        active: count as u32,
        away: seats().filter(|(seat, _)| seat.presence == Presence::Away).count() as u32,
        latency_median_s: quantile(&mut latencies, 0.5),
        latency_p95_s: quantile(&mut latencies, 0.95),
        offloaded: (all > 0.0).then(|| sent / all),
        energy_j: total(active.iter().map(|(_, _, outcome)| outcome.energy_j())),
        accuracy: mean(&|outcome| outcome.accuracy),
        hallucination: mean(&|outcome| outcome.hallucination),
        reward: gain(cells).map(|gain| gain.reward),
        phones_tokens_per_s: total(active.iter().map(|(seat, _, _)| seat.tokens_per_s)),
        server_tokens_per_s: server.tokens_per_s,
        server_active: server.active,
        server_queue: server.queue,
        answers: totals.answers,
        measured_latency_median_s: quantile(&mut measured, 0.5),
        qualities: totals.qualities,
        own_references: totals.own_references,
        measured_accuracy: mean_quality(totals.accuracy),
        measured_hallucination: mean_quality(totals.hallucination),
        device_tokens: totals.device_tokens,
        server_tokens: totals.server_tokens,
    }
}

/// What a comparison takes of a slot: the mean reward of the cells, and the mean latency of all devices; `None` where nobody
/// took part.
#[must_use]
pub fn gain(cells: &[CellDecided]) -> Option<Gain> {
    let totals: Vec<_> = cells.iter().filter_map(|cell| cell.totals).collect();
    let devices = cells.iter().flat_map(|cell| cell.seats.iter().flatten()).count();
    (devices > 0).then(|| Gain {
        reward: totals.iter().map(|totals| totals.reward).sum::<f64>() / totals.len() as f64,
        latency_s: totals.iter().map(|totals| totals.latency_sum_s).sum::<f64>() / devices as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_room_has_plain_zeros() {
        let numbers = room_numbers(&[], &Totals::default(), ServerNow::default());
        for zero in [numbers.energy_j, numbers.phones_tokens_per_s] {
            assert_eq!(format!("{zero:.1}"), "0.0");
        }
    }
}
