//! Samples of one measurement, and what is quoted of them.

use std::time::Duration;

/// Durations of one kind of operation.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The quantile `q` in milliseconds by nearest rank; `None` without samples.
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (q * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).map(|sample| sample.as_secs_f64() * 1e3)
    }
}

/// The middle value; of an even number the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

/// Operations per second.
pub fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_rank() {
        let mut samples = Samples::default();
        assert_eq!(samples.quantile_ms(0.5), None);
        (1..=100).for_each(|ms| samples.push(Duration::from_millis(ms)));
        assert_eq!(samples.quantile_ms(0.5), Some(50.0));
        assert_eq!(samples.quantile_ms(0.99), Some(99.0));
        assert_eq!(samples.quantile_ms(1.0), Some(100.0));
        assert_eq!(samples.quantile_ms(0.0), Some(1.0));
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
