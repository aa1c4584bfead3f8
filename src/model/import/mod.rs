//! From the published files to one bundle.

mod encode;
pub mod random;
