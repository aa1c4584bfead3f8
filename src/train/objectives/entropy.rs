//! Cross-entropy with label smoothing, and accuracy.

use candle_core::{D, DType, Result, Tensor};

/// A target that counts for nothing.
pub const IGNORED: u32 = u32::MAX;

/// Mean cross-entropy in nats of logits `(rows, classes)` against a class for each row, rows
/// whose target is [`IGNORED`] left out; computed in f32.
///
/// With `smoothing`, 0 to 1, that part of the target's weight is spread evenly over all classes,
/// as in torch's `cross_entropy` (Szegedy et al., 2016).
///
/// # Errors
///
/// When there are not as many targets as rows, one is no class, or all are ignored.
pub fn cross_entropy(logits: &Tensor, targets: &[u32], smoothing: f64) -> Result<Tensor> {
    let (logits, targets) = counted(logits, targets)?;
    let logits = logits.to_dtype(DType::F32)?;
    // Any number may be taken off a row; the greatest keeps the exponentials finite.
    let top = logits.detach().max_keepdim(D::Minus1)?;
    let shifted = logits.broadcast_sub(&top)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let own = Tensor::new(targets.as_slice(), logits.device())?.unsqueeze(1)?;
    let loss = (&log_sum - shifted.gather(&own, 1)?)?.mean_all()?;
    if smoothing == 0.0 {
        return Ok(loss);
    }
    let even = (log_sum - shifted.mean_keepdim(D::Minus1)?)?.mean_all()?;
    (loss * (1.0 - smoothing))? + (even * smoothing)?
}

/// Part of the rows of logits `(rows, classes)` whose greatest is that of the target, 0 to 1;
/// rows whose target is [`IGNORED`] are left out.
///
/// # Errors
///
/// As [`cross_entropy`].
pub fn accuracy(logits: &Tensor, targets: &[u32]) -> Result<f32> {
    let (logits, targets) = counted(&logits.detach(), targets)?;
    let best = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
    let right = best.iter().zip(&targets).filter(|(best, target)| best == target).count();
    Ok(right as f32 / targets.len() as f32)
}

/// The rows that count, with their targets.
fn counted(logits: &Tensor, targets: &[u32]) -> Result<(Tensor, Vec<u32>)> {
    let (rows, classes) = logits.dims2()?;
    if targets.len() != rows {
        candle_core::bail!("{} targets for {rows} rows of logits", targets.len());
    }
    let kept: Vec<u32> =
        (0..).zip(targets).filter(|(_, target)| **target != IGNORED).map(|(row, _)| row).collect();
    if kept.is_empty() {
        candle_core::bail!("a loss without a target");
    }
    let targets: Vec<u32> = targets.iter().copied().filter(|&target| target != IGNORED).collect();
    if let Some(beyond) = targets.iter().find(|&&target| target as usize >= classes) {
        candle_core::bail!("target {beyond} of {classes} classes");
    }
    if kept.len() == rows {
        return Ok((logits.clone(), targets));
    }
    let kept = Tensor::new(kept, logits.device())?;
    Ok((logits.contiguous()?.index_select(&kept, 0)?, targets))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    const LOGITS: [[f32; 3]; 3] = [[0.5, -1.0, 2.0], [1.0, 1.0, 1.0], [-3.0, 0.0, 4.0]];

    /// The same in f64, term by term.
    fn reference(rows: &[usize], targets: &[usize], smoothing: f64) -> f64 {
        let loss = |(&row, &target): (&usize, &usize)| {
            let logits = LOGITS[row].map(f64::from);
            let log_sum = logits.map(f64::exp).iter().sum::<f64>().ln();
            let even = logits.iter().map(|x| log_sum - x).sum::<f64>() / 3.0;
            (1.0 - smoothing) * (log_sum - logits[target]) + smoothing * even
        };
        rows.iter().zip(targets).map(loss).sum::<f64>() / rows.len() as f64
    }

    fn loss(targets: &[u32], smoothing: f64) -> f64 {
        let logits = Tensor::new(&LOGITS, &Device::Cpu).unwrap();
        let loss = cross_entropy(&logits, targets, smoothing).unwrap();
        f64::from(loss.to_scalar::<f32>().unwrap())
    }

    #[test]
    fn the_loss_is_the_mean_over_rows_that_count() {
        for smoothing in [0.0, 0.1, 1.0] {
            let all = reference(&[0, 1, 2], &[2, 0, 1], smoothing);
            assert!((loss(&[2, 0, 1], smoothing) - all).abs() < 1e-6);
            let two = reference(&[0, 2], &[1, 2], smoothing);
            assert!((loss(&[1, IGNORED, 2], smoothing) - two).abs() < 1e-6);
        }
    }

    #[test]
    fn gradients_are_probabilities_less_targets() {
        let logits = Var::new(&LOGITS, &Device::Cpu).unwrap();
        let loss = cross_entropy(logits.as_tensor(), &[2, 0, IGNORED], 0.0).unwrap();
        let gradient = loss.backward().unwrap().get(&logits).unwrap().to_vec2::<f32>().unwrap();
        let softmax = candle_nn::ops::softmax(&logits, 1).unwrap().to_vec2::<f32>().unwrap();
        for (row, target) in [(0, 2), (1, 0)] {
            for class in 0..3 {
                let expected = softmax[row][class] - f32::from(u8::from(class == target));
                assert!((gradient[row][class] - expected / 2.0).abs() < 1e-6);
            }
        }
        assert_eq!(gradient[2], [0.0; 3]);
    }

    #[test]
    fn great_logits_stay_finite() {
        let logits = Tensor::new(&[[1e30_f32, -1e30], [3e4, 2e4]], &Device::Cpu).unwrap();
        let loss = cross_entropy(&logits, &[0, 0], 0.0).unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(loss, 0.0);
    }

    #[test]
    fn accuracy_counts_the_greatest_logits() {
        let logits = Tensor::new(&LOGITS, &Device::Cpu).unwrap();
        assert_eq!(accuracy(&logits, &[2, IGNORED, 0]).unwrap(), 0.5);
        assert_eq!(accuracy(&logits, &[2, IGNORED, 2]).unwrap(), 1.0);
    }

    #[test]
    fn targets_that_do_not_fit_are_refused() {
        let logits = Tensor::new(&LOGITS, &Device::Cpu).unwrap();
        for targets in [&[0, 1][..], &[0, 1, 3], &[IGNORED; 3]] {
            assert!(cross_entropy(&logits, targets, 0.0).is_err());
        }
    }
}
