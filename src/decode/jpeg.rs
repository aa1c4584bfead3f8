//! A walk over the markers of a JPEG file, without decoding it.
//!
//! The decoder fills what a cut file lacks with grey and says nothing, so the end of the
//! picture is looked for here. Source: ITU-T T.81, annex B.

/// What the markers of a JPEG file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct JpegMarkers {
    /// Whether the picture is coded in several scans, which the decoder keeps in memory.
    pub(super) progressive: bool,
    /// Whether blocks are coded by Huffman codes, as nearly always.
    pub(super) huffman: bool,
    /// Whether the end of the picture was found.
    pub(super) complete: bool,
}

/// Walks over `bytes` up to the end of the first picture. What follows it (a second
/// picture, a film, padding) is of no interest.
pub(super) fn scan(bytes: &[u8]) -> JpegMarkers {
    let mut markers = JpegMarkers::default();
    let mut at = 2;
    let mut scans = 0;
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            0xD9 => {
                markers.complete = true;
                break;
            }
            // Starts of a frame, of which the third kind is progressive.
            0xC0..=0xC2 => {
                markers.huffman = true;
                markers.progressive |= marker == 0xC2;
            }
            0xDA => scans += 1,
            _ => {}
        }
        // Markers that stand alone; all others are followed by the length of what they hold.
        // The coded pixels behind a start of scan are skipped as anything that is no marker.
        if !matches!(marker, 0x01 | 0xD0..=0xD8) {
            let Some(length) = bytes.get(at..at + 2) else { break };
            at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
        }
    }
    // Channels one after the other are kept in memory like progressive ones.
    markers.progressive |= scans > 1;
    markers
}

/// The next marker at or after `at`, which is moved behind it.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let rest = bytes.get(*at..)?;
        let skip = rest.iter().position(|&byte| byte == 0xFF)?;
        let marker = *rest.get(skip + 1)?;
        match marker {
            // A stuffed byte of coded pixels.
            0x00 => *at += skip + 2,
            // A fill byte.
            0xFF => *at += skip + 1,
            _ => {
                *at += skip + 2;
                return Some(marker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCAN: &[u8] = b"\xFF\xDA\0\x03\0ab\xFF\0c\xFF\xD0d";

    fn file(parts: &[&[u8]]) -> Vec<u8> {
        [b"\xFF\xD8".as_slice(), &parts.concat()].concat()
    }

    #[test]
    fn an_end_inside_a_thumbnail_is_not_the_end_of_the_picture() {
        let thumbnail = b"\xFF\xE1\0\x06\xFF\xD8\xFF\xD9";
        assert!(!scan(&file(&[thumbnail, SCAN])).complete);
        assert!(scan(&file(&[thumbnail, SCAN, b"\xFF\xD9"])).complete);
    }

    #[test]
    fn what_follows_the_picture_does_not_matter() {
        assert!(scan(&file(&[SCAN, b"\xFF\xD9", b"film\xFF"])).complete);
    }

    #[test]
    fn a_file_cut_anywhere_is_incomplete() {
        let whole = file(&[b"\xFF\xC2\0\x04ab", SCAN, SCAN, b"\xFF\xFF\xD9"]);
        assert_eq!(scan(&whole), JpegMarkers { progressive: true, huffman: true, complete: true });
        for length in 0..whole.len() {
            assert!(!scan(&whole[..length]).complete, "cut at {length}");
        }
    }
}
