//! The model inside the program: `tinyfind train --recipe nano` made it.

use super::BUILT_IN;
use crate::model::bundle::{Bundle, BundleError};

/// Bytes that begin where a page could begin: weights are used where they lie.
#[repr(align(64))]
struct Aligned<T: ?Sized>(T);

static NANO: &Aligned<[u8]> = &Aligned(*include_bytes!("nano.gguf"));

/// Opens it.
///
/// # Errors
///
/// Never, for a program that passed its tests.
pub(super) fn bundle() -> Result<Bundle, BundleError> {
    Bundle::built_in(BUILT_IN, &NANO.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sound_whole_and_small() {
        let bundle = bundle().unwrap();
        assert_eq!(bundle.name(), BUILT_IN);
        assert!(bundle.verify().unwrap().bad.is_empty());
        let config = bundle.config();
        assert!(config.vision.is_some() && config.retrieval.is_some());
        assert!(config.captioner.is_some() && config.language.is_some());
        assert!(bundle.size_in_bytes() <= 12_000_000, "{}", bundle.size_in_bytes());
    }
}
