//! The eight ways a picture can lie in its file.

use super::DecodedImage;

/// How a stored picture must be turned to stand upright: the EXIF orientation, 1 to 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Orientation(u8);

impl Orientation {
    /// Stored as it is seen.
    pub(super) const UPRIGHT: Self = Self(1);

    /// The orientation of an EXIF value; values other than 1 to 8 mean nothing and turn nothing.
    pub(super) fn from_exif(value: u32) -> Self {
        if (1..=8).contains(&value) { Self(value as u8) } else { Self::UPRIGHT }
    }

    /// Whether rows of the stored picture are columns of the upright one.
    pub(super) fn swaps_axes(self) -> bool {
        self.0 >= 5
    }

    /// Whether stored columns run against the upright direction they belong to.
    pub(super) fn mirrors_columns(self) -> bool {
        matches!(self.0, 2 | 3 | 7 | 8)
    }

    /// Whether stored rows run against the upright direction they belong to.
    pub(super) fn mirrors_rows(self) -> bool {
        matches!(self.0, 3 | 4 | 6 | 7)
    }

    /// Width and height of the upright picture.
    pub(super) fn upright_size(self, width: u32, height: u32) -> (u32, u32) {
        if self.swaps_axes() { (height, width) } else { (width, height) }
    }

    /// The picture, upright.
    pub(super) fn apply(self, stored: DecodedImage) -> DecodedImage {
        if self == Self::UPRIGHT {
            return stored;
        }
        let (width, height) = self.upright_size(stored.width, stored.height);
        let (stored_width, stored_height) = (stored.width as usize, stored.height as usize);
        let mut rgb = Vec::with_capacity(stored.rgb.len());
        for y in 0..height as usize {
            for x in 0..width as usize {
                let (mut column, mut row) = if self.swaps_axes() { (y, x) } else { (x, y) };
                if self.mirrors_columns() {
                    column = stored_width - 1 - column;
                }
                if self.mirrors_rows() {
                    row = stored_height - 1 - row;
                }
                let at = (row * stored_width + column) * 3;
                rgb.extend_from_slice(&stored.rgb[at..at + 3]);
            }
        }
        DecodedImage { width, height, rgb }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stored picture of 2 x 3 pixels, told apart by their red.
    fn stored() -> DecodedImage {
        let rgb = [1, 2, 3, 4, 5, 6].into_iter().flat_map(|red| [red, 0, 0]).collect();
        DecodedImage { width: 2, height: 3, rgb }
    }

    fn reds(image: &DecodedImage) -> Vec<Vec<u8>> {
        let row = image.width as usize * 3;
        image.rgb.chunks(row).map(|row| row.iter().copied().step_by(3).collect()).collect()
    }

    #[test]
    fn each_orientation_turns_as_exif_says() {
        let expected: [&[&[u8]]; 8] = [
            &[&[1, 2], &[3, 4], &[5, 6]],
            &[&[2, 1], &[4, 3], &[6, 5]],
            &[&[6, 5], &[4, 3], &[2, 1]],
            &[&[5, 6], &[3, 4], &[1, 2]],
            &[&[1, 3, 5], &[2, 4, 6]],
            &[&[5, 3, 1], &[6, 4, 2]],
            &[&[6, 4, 2], &[5, 3, 1]],
            &[&[2, 4, 6], &[1, 3, 5]],
        ];
        for (exif, expected) in (1..).zip(expected) {
            let upright = Orientation::from_exif(exif).apply(stored());
            assert_eq!(reds(&upright), expected, "orientation {exif}");
        }
    }

    #[test]
    fn values_that_mean_nothing_turn_nothing() {
        for exif in [0, 9, 255, u32::MAX] {
            assert_eq!(Orientation::from_exif(exif), Orientation::UPRIGHT);
        }
    }
}
