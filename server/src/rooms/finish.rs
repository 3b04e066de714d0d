//! A decided slot is carried out: members go on, and what is told of it is made.

use client::protocol::rooms::down::{Picture, ServerMessage};
use client::protocol::rooms::rest::SlotRecord;

use super::compare::Compare;
use super::member::Last;
use super::numbers::{self, ServerNow};
use super::slot::Decided;
use super::state::{Effect, State};

/// When and beside what a slot was decided.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// How long after its time, milliseconds.
    pub late_ms: f64,
    /// What the server does beside it.
    pub server: ServerNow,
}

impl State {
    /// Carries a slot out. The picture and the decisions lie in the state afterwards; what else is to be told, and what is to
    /// be kept (`None` when nobody took part), comes back.
    pub fn finish(&mut self, decided: &Decided, around: Around) -> (Vec<Effect>, Option<SlotRecord>) {
        let Decided { slot, epoch, decider, cells } = decided;
        if *epoch != self.epoch {
            // The room began anew meanwhile.
            return (Vec::new(), None);
        }
        self.deciding = false;
        self.decisions.clear();
        for cell in cells {
            let decisions = numbers::decisions(*slot, *decider, cell);
            // Whoever left meanwhile is told nothing more.
            let seated =
                decisions.filter(|(mlu, _)| self.members.get(mlu).is_some_and(|member| member.identity.cell.is_some()));
            self.decisions.extend(seated);
            for (seat, outcome) in cell.plan.seats.iter().zip(&cell.seats) {
                let Some(member) = self.members.get_mut(&seat.mlu) else { continue };
                if let Some((decision, outcome)) = outcome {
                    member.progress.last = Some(Last::of(*decision, outcome));
                    member.progress.slots += 1;
                }
            }
        }
        for (mlu, member) in &mut self.members {
            // Those who came while the slot was decided stand at the next one already.
            if member.identity.cell.is_some() && member.progress.radio.slot == *slot {
                member.progress.radio.advance(&self.params, self.seed, *mlu);
            }
        }
        self.slot = slot + 1;
        self.picture = Picture {
            slot: *slot,
            decider: *decider,
            late_ms: around.late_ms,
            cells: cells.iter().map(numbers::picture).collect(),
            room: numbers::room_numbers(cells, &self.totals, around.server),
        };
        let gain = numbers::gain(cells);
        let turned = self.compare.as_mut().zip(gain).filter(|(compare, _)| compare.decider().is_some());
        let turned = turned.is_some_and(|(compare, gain)| compare.note(gain));
        let compared = self.compare.as_ref().filter(|_| turned).map(Compare::view);
        let effects = compared.map(|view| Effect::Presenters(ServerMessage::Compared(view))).into_iter().collect();
        let record = gain.map(|_| SlotRecord {
            slot: *slot,
            at_ms: around.at_ms,
            decider: *decider,
            cells: cells.iter().filter_map(numbers::record).collect(),
        });
        (effects, record)
    }
}
