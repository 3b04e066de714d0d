//! A room's members as they are told.

use client::protocol::rooms::down::{Member as MemberView, Seat};

use super::member::Member;

/// A member as presenters see it; `None` without a seat.
#[must_use]
pub fn member_view(member: &Member) -> Option<MemberView> {
    let identity = &member.identity;
    Some(MemberView {
        mlu: identity.mlu,
        name: identity.name.clone(),
        cell: identity.cell?,
        part: identity.part,
        presence: member.presence()?,
        simulated: identity.simulated(),
        telemetry: member.telemetry.clone(),
        slots: member.progress.slots,
        answers: member.progress.answers,
    })
}

/// A phone's own seat; `None` without one.
#[must_use]
pub fn seat_view(member: &Member) -> Option<Seat> {
    let (identity, radio) = (&member.identity, &member.progress.radio);
    Some(Seat {
        mlu: identity.mlu,
        name: identity.name.clone(),
        cell: identity.cell?,
        x_m: radio.x_m,
        y_m: radio.y_m,
        part: identity.part,
        muted: identity.muted,
    })
}
