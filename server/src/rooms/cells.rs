//! Who sits in which cell. Cells are numbered from 1 on, each has its own frequency, and none holds more members than a room's
//! settings say.

use std::collections::BTreeMap;

/// Seats that are taken, by cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cells(BTreeMap<u32, usize>);

impl Cells {
    /// Counts the seats of members.
    #[must_use]
    pub fn count(seats: impl Iterator<Item = u32>) -> Self {
        let mut taken = BTreeMap::new();
        for cell in seats {
            *taken.entry(cell).or_default() += 1;
        }
        Self(taken)
    }

    /// The highest number of a cell in which somebody sits; 0 where nobody does.
    #[must_use]
    pub fn last(&self) -> u32 {
        self.0.last_key_value().map_or(0, |(cell, _)| *cell)
    }

    /// Seats taken in a cell.
    #[must_use]
    pub fn taken(&self, cell: u32) -> usize {
        self.0.get(&cell).copied().unwrap_or(0)
    }

    /// Where a newcomer sits: in the emptiest cell that has a free seat (the lowest of several), else in a new one.
    #[must_use]
    pub fn seat(&self, most: usize) -> u32 {
        let free = (1..=self.last()).map(|cell| (self.taken(cell), cell)).filter(|(taken, _)| *taken < most);
        free.min().map_or(self.last() + 1, |(_, cell)| cell)
    }

    /// Takes a seat.
    pub fn take(&mut self, cell: u32) {
        *self.0.entry(cell).or_default() += 1;
    }
}

/// New seats for those who no longer fit, last come first moved: (member, cell), of members with their cells in the order in
/// which they came.
#[must_use]
pub fn overflow(seats: &[(u32, u32)], most: usize) -> Vec<(u32, u32)> {
    let mut kept = Cells::default();
    let mut moved = Vec::new();
    for &(member, cell) in seats {
        if kept.taken(cell) < most {
            kept.take(cell);
        } else {
            moved.push(member);
        }
    }
    let seat = |member| {
        let cell = kept.seat(most);
        kept.take(cell);
        (member, cell)
    };
    moved.into_iter().map(seat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_spread_evenly_and_open_cells_when_all_are_full() {
        let mut cells = Cells::default();
        let mut seats = Vec::new();
        for _ in 0..7 {
            let cell = cells.seat(3);
            cells.take(cell);
            seats.push(cell);
        }
        assert_eq!(seats, [1, 1, 1, 2, 2, 2, 3]);
        // Whoever leaves makes room where it is emptiest.
        assert_eq!(Cells::count([1, 1, 2, 3, 3].into_iter()).seat(3), 2);
        assert_eq!(Cells::count([1, 1, 3].into_iter()).seat(3), 2, "nobody is left in it");
        assert_eq!(Cells::default().seat(3), 1);
    }

    #[test]
    fn smaller_cells_move_those_who_came_last() {
        let seats: Vec<(u32, u32)> = (1..=5).map(|member| (member, 1)).chain([(6, 2)]).collect();
        assert_eq!(overflow(&seats, 2), [(3, 2), (4, 3), (5, 3)]);
        assert_eq!(overflow(&seats, 5), []);
        assert_eq!(overflow(&seats, 1).len(), 4);
    }
}
