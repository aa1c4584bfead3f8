//! Lists of random operations against a model of the truth.

mod common;

use common::model::{assert_kept, operation};
use proptest::prelude::*;

proptest! {
    // Each case opens, commits and checks an index several times.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20) })]

    #[test]
    fn an_index_holds_what_the_operations_say(
        operations in prop::collection::vec(operation(), 1..40)
    ) {
        let dir = tempfile::tempdir().unwrap();
        assert_kept(dir.path(), &operations);
    }
}
