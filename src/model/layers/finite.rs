//! Finding the layer in which a computation leaves the finite numbers.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

thread_local! {
    /// While somebody asks: the first layer that gave what is not finite, once there is one.
    static ASKED: RefCell<Option<Option<Arc<str>>>> = const { RefCell::new(None) };
}

/// The name of the first layer, in the order in which they are computed, that gives NaN or
/// infinity while `compute` runs on this thread; `None` where all stay finite. Whatever
/// `compute` returns is dropped. It reads every output once, and is meant for a computation that
/// has failed already.
pub fn first_not_finite<T>(compute: impl FnOnce() -> T) -> Option<String> {
    ASKED.set(Some(None));
    drop(compute());
    ASKED.take().flatten().map(|name| name.to_string())
}

/// Hands `output` of the layer `name` on, and looks at it if somebody asks.
pub(super) fn seen(name: &Arc<str>, output: Result<Tensor>) -> Result<Tensor> {
    let output = output?;
    ASKED.with_borrow_mut(|asked| {
        if let Some(first @ None) = asked
            && !is_finite(&output)?
        {
            *first = Some(name.clone());
        }
        Ok(output)
    })
}

fn is_finite(tensor: &Tensor) -> Result<bool> {
    let values = tensor.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().all(|value| value.is_finite()))
}
