//! Finding the layer in which a computation leaves the finite numbers.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

/// What a thread is asked about the layers that it computes.
#[derive(Default)]
enum Asked {
    /// Nobody asks.
    #[default]
    Nothing,
    /// Which is the first that gives what is not finite: none so far.
    First,
    /// It was this one.
    Found(Arc<str>),
}

thread_local! {
    static ASKED: RefCell<Asked> = const { RefCell::new(Asked::Nothing) };
}

/// The name of the first layer, in the order in which they are computed, that gives NaN or
/// infinity while `compute` runs on this thread; `None` where all stay finite. Whatever
/// `compute` returns is dropped. It reads every output once, and is meant for a computation that
/// has failed already.
pub fn first_not_finite<T>(compute: impl FnOnce() -> T) -> Option<String> {
    ASKED.set(Asked::First);
    drop(compute());
    match ASKED.take() {
        Asked::Found(name) => Some(name.to_string()),
        Asked::Nothing | Asked::First => None,
    }
}

/// Hands `output` of the layer `name` on, and looks at it if somebody asks.
pub(super) fn seen(name: &Arc<str>, output: Result<Tensor>) -> Result<Tensor> {
    let output = output?;
    ASKED.with_borrow_mut(|asked| {
        if matches!(asked, Asked::First) && !is_finite(&output)? {
            *asked = Asked::Found(name.clone());
        }
        Ok(output)
    })
}

fn is_finite(tensor: &Tensor) -> Result<bool> {
    let values = tensor.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().all(|value| value.is_finite()))
}
