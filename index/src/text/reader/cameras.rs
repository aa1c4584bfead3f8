//! Which cameras there are.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::TextReader;
use crate::error::StoreResult;
use crate::text::guard;
use crate::text::schema::CAMERA_NAME;

impl TextReader {
    /// Every camera with the number of its photos, most first, equals by name.
    pub(crate) fn cameras(&self) -> StoreResult<Vec<(String, u64)>> {
        let mut cameras: BTreeMap<String, u64> = BTreeMap::new();
        let everything = self.everything()?;
        guard(&self.folder, || {
            for (segment, photos) in self.searcher.segment_readers().iter().zip(everything) {
                let Some(names) = segment.fast_fields().str(CAMERA_NAME)? else { continue };
                let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
                for number in photos.iter().flat_map(|id| names.term_ords(id)) {
                    *counts.entry(number).or_default() += 1;
                }
                for (number, count) in counts {
                    let mut name = String::new();
                    names.ord_to_str(number, &mut name)?;
                    *cameras.entry(name).or_default() += count;
                }
            }
            Ok(())
        })?;
        let mut cameras: Vec<(String, u64)> = cameras.into_iter().collect();
        // The sort is stable, and they come by name.
        cameras.sort_by_key(|(_, count)| Reverse(*count));
        Ok(cameras)
    }
}
