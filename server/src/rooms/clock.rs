//! A room's slots, on time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::room::Room;

/// What changes between two slots is on disk after so long: slots may be five seconds apart, and a move or an answer of the
/// last of them should survive a power cut.
const WRITE_EVERY: Duration = Duration::from_millis(250);

/// When the slot after this one is due. A slot that took longer than its period puts the next ones off: they are never made up
/// for in a row.
#[must_use]
pub fn next_due(due: Instant, period: Duration, now: Instant) -> Instant {
    let next = due + period;
    if next < now { now } else { next }
}

/// Makes slots until the room is closed or the server goes down; the last thing it does is to write what changed.
pub async fn run(room: Arc<Room>, mut down: watch::Receiver<bool>) {
    let mut due = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = room.woken.notified() => due = due.min(Instant::now()),
            () = async { drop(down.wait_for(|down| *down).await) } => {}
            () = tokio::time::sleep(WRITE_EVERY) => {
                let writing = Arc::clone(&room);
                // It says itself what went wrong, and tries again with the next slot.
                drop(tokio::task::spawn_blocking(move || writing.flush()).await);
                continue;
            }
        }
        if room.is_closed() {
            return;
        }
        let is_last = *down.borrow();
        let ticking = Arc::clone(&room);
        match tokio::task::spawn_blocking(move || ticking.tick(due)).await {
            Ok(period) => due = next_due(due, period, Instant::now()),
            Err(error) => {
                tracing::error!(%error, room = room.code(), "a slot failed; the next one is tried in a second");
                due = Instant::now() + Duration::from_secs(1);
            }
        }
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_keep_their_beat_and_never_come_in_a_burst() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let second = Duration::from_secs(1);
        assert_eq!(next_due(start, second, ms(30)), ms(1000), "lateness does not add up");
        assert_eq!(next_due(start, second, ms(1000)), ms(1000));
        assert_eq!(next_due(start, second, ms(4200)), ms(4200));
    }
}
