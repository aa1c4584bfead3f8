//! Learning rates over a run.

use serde::{Deserialize, Serialize};

/// Linear warm-up, then half a cosine from `peak` to `end`: LAVIS'
/// `linear_warmup_cosine_lr`, by step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Rate at step 0.
    pub start: f64,
    /// Rate after the warm-up.
    pub peak: f64,
    /// Rate at the last step; it may lie above `peak`, as in the published stage 4.
    pub end: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps of the whole run.
    pub total: u64,
}

impl Schedule {
    /// Learning rate of step `step`, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.start + (self.peak - self.start) * step as f64 / self.warmup as f64;
        }
        let done = (step as f64 / self.total.max(1) as f64).min(1.0);
        self.end + (self.peak - self.end) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_in_a_line_and_falls_in_a_cosine() {
        let s = Schedule { start: 0.0, peak: 1.0, end: 0.2, warmup: 10, total: 100 };
        assert_eq!(s.rate(0), 0.0);
        assert!((s.rate(5) - 0.5).abs() < 1e-12);
        assert!((s.rate(50) - 0.6).abs() < 1e-12);
        assert!((s.rate(100) - 0.2).abs() < 1e-12);
        assert!((s.rate(1000) - 0.2).abs() < 1e-12);
        assert!((10..100).all(|i| s.rate(i) >= s.rate(i + 1)));
    }

    #[test]
    fn the_cosine_of_the_published_stage_4_goes_up() {
        let s = Schedule { start: 1e-6, peak: 1e-5, end: 8e-5, warmup: 1000, total: 50_000 };
        assert!(s.rate(40_000) > s.rate(2000));
    }
}
