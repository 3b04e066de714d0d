//! The curve of a run as it is drawn: a bounded number of points, however many updates the run has.

use chart::Point;

/// Most points that are kept; a picture shows fewer.
const MOST: usize = 2048;

/// Points one after the other. Where there are too many, neighbours become their mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    points: Vec<(f64, f64)>,
    /// How many values a point is the mean of.
    each: u64,
    /// Sums and number of the values that are no point yet.
    rest: (f64, f64, u64),
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), each: 1, rest: (0.0, 0.0, 0) }
    }
}

impl Curve {
    /// Adds a value.
    pub fn add(&mut self, x: f64, y: f64) {
        let (sum_x, sum_y, count) = self.rest;
        self.rest = (sum_x + x, sum_y + y, count + 1);
        if count + 1 < self.each {
            return;
        }
        if self.points.len() == MOST {
            self.points = self.points.chunks(2).map(mean).collect();
            self.each *= 2;
            // What has come is half a point now.
            return;
        }
        self.points.extend(self.last());
        self.rest = (0.0, 0.0, 0);
    }

    fn last(&self) -> Option<(f64, f64)> {
        let (x, y, count) = self.rest;
        (count > 0).then(|| (x / count as f64, y / count as f64))
    }

    /// The points, the last one of fewer values than the others.
    pub fn points(&self) -> Vec<Point> {
        let all = self.points.iter().copied().chain(self.last());
        all.map(|(x, y)| Point { x, y, half_width: 0.0 }).collect()
    }
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len().max(1) as f64;
    let sum = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    (sum.0 / count, sum.1 / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_stay_as_they_are_and_many_become_means() {
        let mut curve = Curve::default();
        for n in 0..MOST {
            curve.add(n as f64, (n * n) as f64);
        }
        let points = curve.points();
        assert!(points.iter().enumerate().all(|(n, point)| (point.x, point.y) == (n as f64, (n * n) as f64)));
        for n in MOST..1_000_000 {
            curve.add(n as f64, 3.0 * n as f64);
            assert!(curve.points.len() <= MOST);
        }
        let points = curve.points();
        assert!(points.len() > MOST / 2, "{}", points.len());
        assert!(points.windows(2).all(|pair| pair[0].x < pair[1].x));
        // A straight line stays one.
        assert!(points.iter().skip(10).all(|point| (point.y - 3.0 * point.x).abs() < 1e-3));
        let each = points[1].x - points[0].x;
        let steps: Vec<f64> = points.windows(2).map(|pair| pair[1].x - pair[0].x).collect();
        assert!(steps[..steps.len() - 1].iter().all(|step| *step == each), "all but the last of as many values");
        assert!(points[points.len() - 1].x > 1_000_000.0 - each);
    }
}
