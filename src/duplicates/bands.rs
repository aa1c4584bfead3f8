//! Hashes near to a hash, without comparing it with all.
//!
//! The 64 bits are cut into [`BANDS`] bands of 16. Where two hashes differ in at most
//! [`FARTHEST`] bits, they differ in at most one bit of at least one band: two or more in every
//! band would make [`FARTHEST`] + 1. So it is enough to look, for each band, at the hashes with
//! the same 16 bits and with each of the 16 values that are one bit away: 68 short lists, of
//! `n / 65536` hashes each where bits are spread evenly.
//!
//! Source: Norouzi, Punjani and Fleet, *Fast Exact Search in Hamming Space with Multi-Index
//! Hashing*, IEEE TPAMI 2014.

use tinyfind_index::PictureHash;

/// Number of bands.
const BANDS: u32 = 4;

/// Bits of a band.
const BITS: u32 = u64::BITS / BANDS;

/// The greatest distance within which every hash is found: two bits a band, less one.
pub const FARTHEST: u32 = 2 * BANDS - 1;

/// Hashes, sorted by each of their bands.
#[derive(Debug)]
pub struct Bands {
    hashes: Vec<PictureHash>,
    bands: [Band; BANDS as usize],
}

/// Places of hashes by the 16 bits of one band.
#[derive(Debug)]
struct Band {
    /// Where in `places` those of each value begin; one more at the end.
    starts: Vec<u32>,
    places: Vec<u32>,
}

/// The bits of band `band`.
fn bits(hash: PictureHash, band: u32) -> u16 {
    (hash.0 >> (band * BITS)) as u16
}

impl Bands {
    /// Sorts hashes, of which there may be up to `u32::MAX`. They are named by their places in
    /// the list from now on.
    pub fn new(hashes: Vec<PictureHash>) -> Self {
        let bands = [0, 1, 2, 3].map(|band| Band::new(&hashes, band));
        Self { hashes, bands }
    }

    /// The places of all hashes that differ from `hash` in at most `distance` bits, itself
    /// included where it is among them, with that number; in ascending order. A `distance` above
    /// [`FARTHEST`] counts as that.
    pub fn within(&self, hash: PictureHash, distance: u32) -> Vec<(usize, u32)> {
        let distance = distance.min(FARTHEST);
        let differing = self.candidates(hash).map(|place| {
            let place = place as usize;
            (place, hash.distance(self.hashes[place]))
        });
        let mut found: Vec<(usize, u32)> =
            differing.filter(|(_, differs)| *differs <= distance).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The places of the hashes that are compared with `hash`, some of them more than once.
    fn candidates(&self, hash: PictureHash) -> impl Iterator<Item = u32> {
        self.bands.iter().zip(0..).flat_map(move |(band, number)| {
            let own = bits(hash, number);
            let near = (0..BITS).map(move |bit| own ^ (1 << bit));
            std::iter::once(own).chain(near).flat_map(|value| band.of(value).iter().copied())
        })
    }
}

impl Band {
    /// Sorts by counting.
    fn new(hashes: &[PictureHash], band: u32) -> Self {
        let mut starts = vec![0_u32; (1 << BITS) + 1];
        for hash in hashes {
            starts[usize::from(bits(*hash, band)) + 1] += 1;
        }
        for value in 1..starts.len() {
            starts[value] += starts[value - 1];
        }
        let mut next = starts.clone();
        let mut places = vec![0; hashes.len()];
        for (place, hash) in (0..).zip(hashes) {
            let at = &mut next[usize::from(bits(*hash, band))];
            places[*at as usize] = place;
            *at += 1;
        }
        Self { starts, places }
    }

    fn of(&self, value: u16) -> &[u32] {
        let value = usize::from(value);
        &self.places[self.starts[value] as usize..self.starts[value + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Splitmix64 of Steele, Lea and Flood, 2014.
    fn noise(seed: u64) -> u64 {
        let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn by_comparing_with_all(
        hashes: &[PictureHash],
        hash: PictureHash,
        distance: u32,
    ) -> Vec<(usize, u32)> {
        let all = hashes.iter().enumerate().map(|(place, other)| (place, hash.distance(*other)));
        all.filter(|(_, differs)| *differs <= distance).collect()
    }

    proptest! {
        #[test]
        fn bands_find_every_hash_within_the_distance(
            hash in any::<u64>(),
            flips in prop::collection::vec(prop::collection::vec(0_u32..64, 0..10), 0..60),
            others in prop::collection::vec(any::<u64>(), 0..40),
            distance in 0_u32..=FARTHEST,
        ) {
            let flipped = flips.iter().map(|bits| bits.iter().fold(hash, |it, bit| it ^ (1 << bit)));
            let hashes: Vec<PictureHash> = flipped.chain(others).map(PictureHash).collect();
            let hash = PictureHash(hash);
            let bands = Bands::new(hashes.clone());
            let expected = by_comparing_with_all(&hashes, hash, distance);
            prop_assert_eq!(bands.within(hash, distance), expected);
        }
    }

    #[test]
    fn seven_bits_in_any_places_are_found_and_no_distance_above_that_is() {
        let hash = PictureHash(noise(1));
        for seed in 0..2_000 {
            let mut flipped = 0_u64;
            let mut random = seed * 1_000;
            while flipped.count_ones() < FARTHEST {
                random += 1;
                flipped |= 1 << (noise(random) % 64);
            }
            let bands = Bands::new(vec![PictureHash(hash.0 ^ flipped)]);
            assert_eq!(bands.within(hash, FARTHEST), [(0, FARTHEST)], "{flipped:b}");
            assert!(bands.within(hash, FARTHEST - 1).is_empty());
        }
        assert!(Bands::new(vec![PictureHash(!hash.0)]).within(hash, 64).is_empty());
    }

    #[test]
    fn a_hundred_thousand_hashes_are_compared_with_few_of_each_other() {
        // Every tenth is a near copy of the one before.
        let hash = |seed: u64| match seed % 10 {
            9 => noise(seed - 1) ^ (1 << (seed % 64)) ^ (1 << (seed / 64 % 64)),
            _ => noise(seed),
        };
        let hashes: Vec<PictureHash> = (0..100_000).map(hash).map(PictureHash).collect();
        let bands = Bands::new(hashes.clone());
        let near: usize = hashes.iter().map(|hash| bands.within(*hash, FARTHEST).len() - 1).sum();
        assert!(near >= 20_000, "{near}");
        // 68 lists of 100,000 / 65,536 hashes are 104 for each; all would be 100,000.
        let compared: usize = hashes.iter().map(|hash| bands.candidates(*hash).count()).sum();
        assert!(compared < 150 * hashes.len(), "{compared}");
    }
}
