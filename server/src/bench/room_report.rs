//! What a hall of scripted phones saw of a live room.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// What one phone saw.
#[derive(Clone, Debug, Default)]
pub struct PhoneSeen {
    /// Its room.
    pub room: usize,
    /// From the hall's start to its first welcome, milliseconds; `None`: it never came in.
    pub joined_ms: Option<f64>,
    /// Why it was turned away, each time.
    pub refused: Vec<String>,
    /// Its decisions: slot, and when it arrived.
    pub decisions: Vec<(u64, Instant)>,
    /// Decisions that were left out while it was connected.
    pub lost: u64,
    /// How often it was cut off, by the script or by the server's end.
    pub cuts: u32,
    /// How often it came back as itself.
    pub returns: u32,
    /// How often it came back as somebody else.
    pub strangers: u32,
    /// From each cut to the welcome after it, milliseconds, without the pause that the script makes.
    pub back_ms: Vec<f64>,
}

/// What the presenter saw.
#[derive(Clone, Debug, Default)]
pub struct PresenterSeen {
    /// How late each slot was by the server's own clock, milliseconds.
    pub late_ms: Vec<f64>,
    /// Most devices that took part in a slot.
    pub most_active: u32,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Time from one slot to the next, seconds.
    pub period_s: f64,
    /// The phones.
    pub phones: Vec<PhoneSeen>,
    /// The presenters, one a room.
    pub presenters: Vec<PresenterSeen>,
    /// Memory of the server before the phones came, MB; NaN where it is not known.
    pub before_mb: f64,
    /// The most that it had, MB.
    pub most_mb: f64,
}

impl Report {
    /// How late decisions arrived, milliseconds: after the beat that the earliest arrival in the same room sets.
    #[must_use]
    pub fn arrivals_ms(&self) -> Vec<f64> {
        let rooms: BTreeSet<usize> = self.phones.iter().map(|phone| phone.room).collect();
        rooms.into_iter().flat_map(|room| self.arrivals_in_ms(room)).collect()
    }

    fn arrivals_in_ms(&self, room: usize) -> Vec<f64> {
        let all = || self.phones.iter().filter(move |phone| phone.room == room).flat_map(|phone| &phone.decisions);
        let Some(start) = all().map(|(_, at)| *at).min() else { return Vec::new() };
        let after = |&(slot, at): &(u64, Instant)| (at - start).as_secs_f64() - slot as f64 * self.period_s;
        let beat = all().map(after).fold(f64::INFINITY, f64::min);
        all().map(|one| 1e3 * (after(one) - beat)).collect()
    }

    /// Time from the hall's start to each phone's first welcome, milliseconds.
    #[must_use]
    pub fn joins_ms(&self) -> Vec<f64> {
        self.phones.iter().filter_map(|phone| phone.joined_ms).collect()
    }

    /// How late each slot was by the server's own clock, in all rooms, milliseconds.
    #[must_use]
    pub fn late_ms(&self) -> Vec<f64> {
        self.presenters.iter().flat_map(|presenter| &presenter.late_ms).copied().collect()
    }

    /// Why phones were turned away, and how often.
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<&str, usize> {
        let mut all = BTreeMap::new();
        for why in self.phones.iter().flat_map(|phone| &phone.refused) {
            *all.entry(why.as_str()).or_default() += 1;
        }
        all
    }

    /// The sum of something over the phones.
    pub fn sum(&self, of: impl Fn(&PhoneSeen) -> u64) -> u64 {
        self.phones.iter().map(of).sum()
    }
}

/// Decisions that are missing between those that came, given the last slot that the phone knew of when it joined: the one that
/// was being decided then may be the first that it is not part of.
#[must_use]
pub fn missing(joined_after: Option<u64>, slots: &[u64]) -> u64 {
    let between: u64 = slots.windows(2).map(|pair| pair[1].saturating_sub(pair[0] + 1)).sum();
    let begun = joined_after.zip(slots.first()).map_or(0, |(known, first)| first.saturating_sub(known + 2));
    between + begun
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn gaps_are_counted_and_the_slot_under_way_is_not() {
        for (joined, slots, lost) in [
            (None, &[][..], 0),
            (Some(4), &[5, 6, 7], 0),
            (Some(4), &[6, 7], 0),
            (Some(4), &[7, 8], 1),
            (None, &[9, 10, 13], 2),
        ] {
            assert_eq!(missing(joined, slots), lost, "{joined:?} {slots:?}");
        }
    }

    #[test]
    fn lateness_is_measured_from_the_beat_of_the_earliest() {
        let start = Instant::now();
        let at = |slot: u64, late_ms: u64| (slot, start + Duration::from_millis(500 * slot + late_ms));
        let phone = |decisions| PhoneSeen { decisions, ..PhoneSeen::default() };
        let phones = vec![phone(vec![at(3, 20), at(4, 10)]), phone(vec![at(3, 40)])];
        let report = Report { period_s: 0.5, phones, ..Report::default() };
        let rounded = |report: &Report| -> Vec<f64> { report.arrivals_ms().iter().map(|ms| ms.round()).collect() };
        assert_eq!(rounded(&report), [10.0, 0.0, 30.0]);
        // Each room has a beat of its own.
        let mut apart = report;
        apart.phones[1].room = 1;
        assert_eq!(rounded(&apart), [10.0, 0.0, 0.0]);
    }
}
