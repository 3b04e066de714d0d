//! A small linear programme with bounded variables, solved by the primal simplex method on a dense table.
//!
//! Made for [`super::alpha`]: a feasible start is always known there, rows are few, and it is solved thousands of times a
//! slot: nothing is allocated but its rows, once. A variable at its upper bound is written as its distance from there ("flipped"), so that
//! everything outside the basis is 0. Steps are bounded: what comes out is feasible, and the optimum but for rounding.

use super::params::MAX_USERS;

/// Most rows: one a user, and the three limits.
pub(super) const ROWS: usize = MAX_USERS + 3;
/// Most variables outside the basis.
pub(super) const COLUMNS: usize = 2 * MAX_USERS + 3;
/// Most variables.
pub(super) const VARIABLES: usize = 3 * MAX_USERS + 6;

/// Coefficients this small are rounding.
const TINY: f64 = 1e-12;
/// Reduced costs below this share of the whole cost gain nothing that counts.
const NO_GAIN: f64 = 1e-11;

/// Minimises `Σ cost·x` under `basic_i + Σ_j entry_ij·x_j = right_i` and `0 ≤ x ≤ upper`.
#[derive(Clone, Debug)]
pub(super) struct Simplex {
    rows: usize,
    columns: usize,
    /// As many rows as a programme has had so far: few have one a user.
    entry: Vec<[f64; COLUMNS]>,
    right: [f64; ROWS],
    /// What a unit of a variable outside the basis adds to the cost.
    reduced: [f64; COLUMNS],
    basic: [usize; ROWS],
    outside: [usize; COLUMNS],
    upper: [f64; VARIABLES],
    flipped: [bool; VARIABLES],
    cost: f64,
}

impl Simplex {
    pub(super) fn new() -> Self {
        Self {
            rows: 0,
            columns: 0,
            entry: Vec::new(),
            right: [0.0; ROWS],
            reduced: [0.0; COLUMNS],
            basic: [0; ROWS],
            outside: [0; COLUMNS],
            upper: [f64::INFINITY; VARIABLES],
            flipped: [false; VARIABLES],
            cost: 0.0,
        }
    }

    /// An empty programme whose cost begins at a constant.
    pub(super) fn clear(&mut self, cost: f64) {
        (self.rows, self.columns, self.cost) = (0, 0, cost);
    }

    /// A variable outside the basis; its entries in the rows that follow are set by [`Simplex::set`].
    pub(super) fn column(&mut self, variable: usize, cost: f64, upper: f64) -> usize {
        let column = self.columns;
        self.columns += 1;
        self.outside[column] = variable;
        self.reduced[column] = cost;
        self.upper[variable] = upper;
        self.flipped[variable] = false;
        column
    }

    /// A row with its basic variable, which is not negative: `right ≥ 0`. All columns have to be there already.
    pub(super) fn row(&mut self, variable: usize, right: f64) -> usize {
        let row = self.rows;
        self.rows += 1;
        self.basic[row] = variable;
        self.right[row] = right;
        self.upper[variable] = f64::INFINITY;
        self.flipped[variable] = false;
        if row == self.entry.len() {
            self.entry.push([0.0; COLUMNS]);
        }
        self.entry[row][..self.columns].fill(0.0);
        row
    }

    pub(super) fn set(&mut self, row: usize, column: usize, entry: f64) {
        self.entry[row][column] = entry;
    }

    /// Gives a row's basic variable a cost, once the row is complete.
    pub(super) fn charge(&mut self, row: usize, cost: f64) {
        self.cost += cost * self.right[row];
        for (reduced, entry) in self.reduced[..self.columns].iter_mut().zip(&self.entry[row]) {
            *reduced -= cost * entry;
        }
    }

    /// Puts a variable at its upper bound, before there are rows.
    pub(super) fn start_at_upper(&mut self, column: usize) {
        let variable = self.outside[column];
        self.cost += self.reduced[column] * self.upper[variable];
        self.reduced[column] = -self.reduced[column];
        self.flipped[variable] = !self.flipped[variable];
    }

    /// Whether a column is written as its variable's distance from the upper bound.
    pub(super) fn is_flipped(&self, column: usize) -> bool {
        self.flipped[self.outside[column]]
    }

    /// Writes the value of each variable below `values.len()`; those that are no part of the programme stay.
    pub(super) fn values(&self, values: &mut [f64]) {
        let mut write = |variable: usize, value: f64| {
            if let Some(out) = values.get_mut(variable) {
                *out = if self.flipped[variable] { self.upper[variable] - value } else { value };
            }
        };
        self.outside[..self.columns].iter().for_each(|variable| write(*variable, 0.0));
        for (variable, value) in self.basic[..self.rows].iter().zip(&self.right) {
            write(*variable, value.max(0.0));
        }
    }

    pub(super) fn minimise(&mut self) {
        let patient = 3 * (self.rows + self.columns);
        for step in 0..3 * patient {
            // The steepest column; after many steps the first, which cannot go round in circles.
            let least = -NO_GAIN * self.cost.abs();
            let mut entering = None;
            let mut steepest = least;
            for (column, reduced) in self.reduced[..self.columns].iter().enumerate() {
                if *reduced < steepest && self.upper[self.outside[column]] > 0.0 {
                    entering = Some(column);
                    steepest = if step < patient { *reduced } else { f64::NEG_INFINITY };
                }
            }
            let Some(column) = entering else { return };
            let mut reach = self.upper[self.outside[column]];
            let mut leaving = None;
            for row in 0..self.rows {
                let entry = self.entry[row][column];
                let limit = if entry > TINY {
                    self.right[row].max(0.0) / entry
                } else if entry < -TINY {
                    (self.upper[self.basic[row]] - self.right[row]).max(0.0) / -entry
                } else {
                    continue;
                };
                if limit < reach {
                    (reach, leaving) = (limit, Some((row, entry < 0.0)));
                }
            }
            match leaving {
                None if reach.is_finite() => self.flip_outside(column),
                // Costs are bounded below, so this is rounding.
                None => return,
                Some((row, at_upper)) => {
                    if at_upper {
                        self.flip_basic(row);
                    }
                    self.pivot(row, column);
                }
            }
        }
    }

    fn flip_outside(&mut self, column: usize) {
        let variable = self.outside[column];
        let upper = self.upper[variable];
        for (row, right) in self.entry[..self.rows].iter_mut().zip(&mut self.right) {
            *right -= row[column] * upper;
            row[column] = -row[column];
        }
        self.cost += self.reduced[column] * upper;
        self.reduced[column] = -self.reduced[column];
        self.flipped[variable] = !self.flipped[variable];
    }

    fn flip_basic(&mut self, row: usize) {
        let variable = self.basic[row];
        self.right[row] = self.upper[variable] - self.right[row];
        self.entry[row][..self.columns].iter_mut().for_each(|entry| *entry = -*entry);
        self.flipped[variable] = !self.flipped[variable];
    }

    fn pivot(&mut self, row: usize, column: usize) {
        let columns = self.columns;
        let by = 1.0 / self.entry[row][column];
        let mut pivot = self.entry[row];
        pivot[..columns].iter_mut().for_each(|entry| *entry *= by);
        pivot[column] = by;
        let right = self.right[row].max(0.0) * by;
        for other in 0..self.rows {
            let factor = self.entry[other][column];
            if other == row || factor == 0.0 {
                continue;
            }
            self.entry[other][column] = 0.0;
            for (entry, pivot) in self.entry[other][..columns].iter_mut().zip(&pivot) {
                *entry -= factor * pivot;
            }
            self.right[other] -= factor * right;
        }
        let factor = self.reduced[column];
        self.reduced[column] = 0.0;
        for (reduced, pivot) in self.reduced[..columns].iter_mut().zip(&pivot) {
            *reduced -= factor * pivot;
        }
        self.cost += factor * right;
        self.entry[row] = pivot;
        self.right[row] = right;
        std::mem::swap(&mut self.basic[row], &mut self.outside[column]);
    }
}
