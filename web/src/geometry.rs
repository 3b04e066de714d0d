//! Geometry of the drawings that are no charts: bars with round ends, the map of the cell.

/// The least of 1, 2, 5 × 10ⁿ that is not below a value: the end of an axis.
#[must_use]
pub fn axis_end(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let base = 10f64.powf(value.log10().floor());
    // A hair of tolerance, so that 0.2 does not become 0.5 by rounding.
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * base).find(|end| *end >= value * (1.0 - 1e-9)).unwrap_or(value)
}

/// A value's place on an axis, in percent, kept on it.
#[must_use]
pub fn along(value: f64, end: f64) -> f64 {
    if end > 0.0 && value.is_finite() { (100.0 * value / end).clamp(0.0, 100.0) } else { 0.0 }
}

/// The map of a disc of some radius in a square of 200 × 200 drawing units around (0, 0), with a margin for labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CellMap {
    radius_m: f64,
}

/// Radius of the disc in drawing units.
pub const DISC: f64 = 88.0;

impl CellMap {
    /// Map of a disc.
    #[must_use]
    pub fn new(radius_m: f64) -> Self {
        Self { radius_m: if radius_m > 0.0 { radius_m } else { 1.0 } }
    }

    /// Drawing units of a position; y points up in metres and down on the screen.
    #[must_use]
    pub fn to_drawing(self, [x_m, y_m]: [f64; 2]) -> (f64, f64) {
        let scale = DISC / self.radius_m;
        (x_m * scale, -y_m * scale)
    }

    /// Position in metres of a place in the drawing, brought back into the disc and rounded to centimetres.
    #[must_use]
    pub fn to_metres(self, x: f64, y: f64) -> [f64; 2] {
        let scale = self.radius_m / DISC;
        self.keep_inside([x * scale, -y * scale])
    }

    /// The nearest position in the disc, rounded to centimetres.
    #[must_use]
    pub fn keep_inside(self, [x_m, y_m]: [f64; 2]) -> [f64; 2] {
        let distance = x_m.hypot(y_m);
        // A hair inside, so that rounding does not lead out again.
        let shrink = if distance > self.radius_m { self.radius_m * 0.9999 / distance } else { 1.0 };
        [x_m, y_m].map(|v| {
            let rounded = (v * shrink * 100.0).trunc() / 100.0;
            if rounded.is_finite() { rounded } else { 0.0 }
        })
    }

    /// Distances of the rings: thirds or quarters of the disc at round numbers, the rim last.
    #[must_use]
    pub fn rings(self) -> Vec<f64> {
        let step = axis_end(self.radius_m / 4.0);
        let mut rings = Vec::new();
        let mut at = step;
        while at < self.radius_m * 0.99 {
            rings.push(at);
            at += step;
        }
        rings.push(self.radius_m);
        rings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, end) in
            [(0.13, 0.2), (0.2, 0.2), (0.21, 0.5), (0.6, 1.0), (1.0, 1.0), (37.0, 50.0), (0.0, 1.0), (f64::NAN, 1.0)]
        {
            assert!((axis_end(value) - end).abs() < 1e-12, "{value}: {}", axis_end(value));
        }
    }

    #[test]
    fn places_stay_on_the_axis() {
        assert_eq!(along(0.5, 2.0), 25.0);
        assert_eq!(along(3.0, 2.0), 100.0);
        assert_eq!(along(-1.0, 2.0), 0.0);
        assert_eq!(along(1.0, 0.0), 0.0);
    }

    #[test]
    fn map_there_and_back() {
        let map = CellMap::new(20.0);
        let (x, y) = map.to_drawing([5.0, -12.5]);
        assert!(y > 0.0, "south is down");
        let [x_m, y_m] = map.to_metres(x, y);
        assert!((x_m - 5.0).abs() < 0.011 && (y_m + 12.5).abs() < 0.011);
    }

    #[test]
    fn devices_stay_in_the_disc() {
        let map = CellMap::new(20.0);
        for angle in 0..360 {
            let (sin, cos) = f64::from(angle).to_radians().sin_cos();
            let [x, y] = map.keep_inside([500.0 * cos, 500.0 * sin]);
            let distance = x.hypot(y);
            assert!(distance <= 20.0 && distance > 19.9, "{angle}: {distance}");
        }
        assert_eq!(map.keep_inside([f64::NAN, f64::INFINITY]), [0.0, 0.0]);
    }

    #[test]
    fn rings_end_at_the_rim() {
        assert_eq!(CellMap::new(20.0).rings(), [5.0, 10.0, 15.0, 20.0]);
        assert_eq!(CellMap::new(500.0).rings(), [200.0, 400.0, 500.0]);
        assert!(CellMap::new(f64::NAN).rings().len() < 6);
    }
}
