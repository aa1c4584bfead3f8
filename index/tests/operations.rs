//! Lists of random operations against a model of the truth.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they may")]

mod common;

use common::model::{Model, Operation};
use common::spec;
use proptest::prelude::*;
use tinyfind_index::{IndexReader, IndexWriter};

fn operation() -> impl Strategy<Value = Operation> {
    let path = || 0..8_u8;
    prop_oneof![
        6 => (path(), 0..5_u8).prop_map(|(path, content)| Operation::Add { path, content }),
        3 => (path(), path()).prop_map(|(path, of)| Operation::AddCopy { path, of }),
        3 => (path(), path()).prop_map(|(from, to)| Operation::Rename { from, to }),
        1 => path().prop_map(|path| Operation::Touch { path }),
        3 => path().prop_map(|path| Operation::Remove { path }),
        2 => path().prop_map(|path| Operation::Fail { path }),
        4 => path().prop_map(|path| Operation::Caption { path }),
        3 => Just(Operation::Commit),
        1 => Just(Operation::Reopen),
    ]
}

proptest! {
    // Each case opens, commits and checks an index several times.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20) })]

    #[test]
    fn an_index_holds_what_the_operations_say(
        operations in prop::collection::vec(operation(), 1..40)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = IndexWriter::open(dir.path(), &spec()).unwrap();
        let (mut model, mut committed) = (Model::default(), Model::default());
        for operation in &operations {
            model.apply(operation, Some(&mut writer));
            match operation {
                Operation::Commit => {
                    writer.commit().unwrap();
                    committed = model.clone();
                    committed.assert_read(&IndexReader::open(dir.path()).unwrap());
                }
                Operation::Reopen => {
                    drop(writer);
                    writer = IndexWriter::open(dir.path(), &spec()).unwrap();
                    model = committed.clone();
                }
                _ => {}
            }
            model.assert_written(&writer);
        }
        writer.commit().unwrap();
        drop(writer);
        model.assert_read(&IndexReader::open(dir.path()).unwrap());
        model.assert_written(&IndexWriter::open(dir.path(), &spec()).unwrap());
        let rebuilt = IndexWriter::rebuild(dir.path(), &spec()).unwrap();
        model.assert_written(&rebuilt);
        model.assert_read(&IndexReader::open(dir.path()).unwrap());
    }
}
