//! Errors of training.

use std::path::PathBuf;

use crate::model::bundle::BundleError;

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The loss of a step is no finite number.
    #[error(
        "the loss `{loss}` became {value} at step {step}, {}: lower the learning rate",
        layer.as_ref().map_or("every layer being finite".to_owned(), |l| format!("first in `{l}`"))
    )]
    Loss {
        /// Which of the losses.
        loss: String,
        /// Its value.
        value: f32,
        /// Full name of the first layer that gave NaN or infinity; `None` where no layer did.
        layer: Option<String>,
        /// Step, from 0.
        step: u64,
    },
    /// A gradient holds NaN or infinity.
    #[error("the gradient of `{tensor}` is not finite at step {step}: lower the learning rate")]
    Gradient {
        /// Full name of the first such tensor.
        tensor: String,
        /// Step, from 0.
        step: u64,
    },
    /// A checkpoint belongs to something else or is damaged.
    #[error("`{}` cannot be continued from: {what}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Another run works in the folder.
    #[error("another run trains in `{}`; wait for it or name another folder", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("`{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A bundle cannot be read or written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A tensor does not fit or the device failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Result of training.
pub type Result<T> = std::result::Result<T, TrainError>;
