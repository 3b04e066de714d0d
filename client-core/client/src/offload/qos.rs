//! Accuracy and hallucination of an answer, online: eq. 26–28.
//!
//! The full model's answer is the reference. Taken literally the server's own part is compared with itself, so that
//! A^MEC = 1 and H^MEC = 0; that is how [`Quality::of_server`] has it.

/// Eq. 26 and 27 of some text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Mean similarity, eq. 26.
    pub accuracy: f64,
    /// Share of tokens below the threshold, eq. 27, in 0..=1.
    pub hallucination: f64,
}

impl Quality {
    /// What the server writes, compared with itself.
    #[must_use]
    pub fn of_server() -> Self {
        Self { accuracy: 1.0, hallucination: 0.0 }
    }

    /// Eq. 26 and 27 over M aligned tokens with these cosines and threshold γ; `None` for no tokens.
    #[must_use]
    pub fn from_cosines(cosines: &[f64], threshold: f64) -> Option<Self> {
        if cosines.is_empty() {
            return None;
        }
        let count = cosines.len() as f64;
        let below = cosines.iter().filter(|&&cosine| cosine < threshold).count();
        Some(Self { accuracy: cosines.iter().sum::<f64>() / count, hallucination: below as f64 / count })
    }

    /// Eq. 28: α of the task as the server wrote it, the rest as this device wrote it.
    #[must_use]
    pub fn effective(alpha: f64, server: Self, local: Self) -> Self {
        let mix = |server: f64, local: f64| alpha * server + (1.0 - alpha) * local;
        Self {
            accuracy: mix(server.accuracy, local.accuracy),
            hallucination: mix(server.hallucination, local.hallucination),
        }
    }
}

/// ψ of eq. 26: the cosine of two embeddings of the same length, in −1..=1; 0 where one of them is zero or the lengths
/// differ, since nothing is alike then.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return 0.0;
    }
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    let norms = dot(a, a) * dot(b, b);
    if norms > 0.0 { (dot(a, b) / norms.sqrt()).clamp(-1.0, 1.0) } else { 0.0 }
}

/// Cosines of tokens aligned by position, `[M, width]` each: M of eq. 26 is the longer of the two lengths, and a token
/// without a partner has similarity 0.
#[must_use]
pub fn aligned_cosines<E: AsRef<[f32]>>(reference: &[E], candidate: &[E]) -> Vec<f64> {
    (0..reference.len().max(candidate.len()))
        .map(|position| match (reference.get(position), candidate.get(position)) {
            (Some(a), Some(b)) => cosine(a.as_ref(), b.as_ref()),
            _ => 0.0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_of_known_vectors() {
        let cases: [(&[f32], &[f32], f64); 6] = [
            (&[1.0, 0.0], &[2.0, 0.0], 1.0),
            (&[1.0, 0.0], &[0.0, 3.0], 0.0),
            (&[1.0, 0.0], &[-1.0, 0.0], -1.0),
            (&[3.0, 4.0], &[4.0, 3.0], 0.96),
            (&[0.0, 0.0], &[1.0, 0.0], 0.0),
            (&[1.0], &[1.0, 0.0], 0.0),
        ];
        for (a, b, expect) in cases {
            assert!((cosine(a, b) - expect).abs() < 1e-12, "{a:?} {b:?}");
        }
    }

    #[test]
    fn tokens_without_a_partner_count_as_unlike() {
        let reference = [vec![1.0_f32, 0.0], vec![0.0, 1.0]];
        let candidate = [vec![1.0_f32, 0.0]];
        assert_eq!(aligned_cosines(&reference, &candidate), [1.0, 0.0]);
        assert_eq!(aligned_cosines(&candidate, &reference), [1.0, 0.0]);
        assert_eq!(aligned_cosines::<Vec<f32>>(&[], &[]), Vec::<f64>::new());
    }

    #[test]
    fn eq_26_to_28() {
        let local = Quality::from_cosines(&[1.0, 0.5, 0.6, 0.1], 0.6).expect("four tokens");
        assert!((local.accuracy - 0.55).abs() < 1e-12);
        assert_eq!(local.hallucination, 0.5, "a cosine at the threshold is not below it");
        let mixed = Quality::effective(0.75, Quality::of_server(), local);
        assert!((mixed.accuracy - 0.8875).abs() < 1e-12);
        assert!((mixed.hallucination - 0.125).abs() < 1e-12);
        assert_eq!(Quality::from_cosines(&[], 0.6), None);
    }
}
