//! All that there is to know of a room, for one who has just come or has lost the thread.

use client::protocol::rooms::down::{Answered, CellPicture, Picture, Snapshot};

use super::compare::Compare;
use super::rounds::RoundState;
use super::state::State;
use super::view::{member_view, seat_view};

/// A picture with one cell alone.
#[must_use]
pub fn of_cell(picture: &Picture, cell: u32) -> Picture {
    let own = picture.cells.iter().filter(|one| one.cell == cell);
    let cells: Vec<CellPicture> = own.cloned().collect();
    Picture { cells, room: picture.room.clone(), ..*picture }
}

/// For a member, or for a presenter.
#[must_use]
pub fn snapshot(state: &State, mlu: Option<u32>) -> Snapshot {
    let base = Snapshot {
        seed: state.seed,
        settings: state.settings.clone(),
        radius_m: state.params.radius_m,
        round: state.round.as_ref().map(RoundState::view),
        rehearsal: state.members.values().filter(|member| member.identity.simulated()).count() as u32,
        ..Snapshot::default()
    };
    match mlu {
        Some(mlu) => {
            let member = state.members.get(&mlu);
            let cell = member.and_then(|member| member.identity.cell).unwrap_or(0);
            Snapshot {
                picture: of_cell(&state.picture, cell),
                decision: state.decisions.get(&mlu).cloned(),
                seat: member.and_then(seat_view),
                ..base
            }
        }
        None => {
            let answers = state.round.iter().flat_map(|round| &round.answers);
            Snapshot {
                picture: state.picture.clone(),
                members: state.members.values().filter_map(member_view).collect(),
                answers: answers.map(|(mlu, answer)| Answered { mlu: *mlu, answer: answer.clone() }).collect(),
                comparison: state.compare.as_ref().map(Compare::view),
                ..base
            }
        }
    }
}
