//! Where the XMP packet and the IPTC block of a photo lie in its file.
//!
//! Sources: XMP specification, part 3; Adobe Photoshop file formats, image resource blocks.

use super::format::Format;

/// The longest block that is looked into, in bytes: a segment of JPEG holds 64 KB.
const MAX_BLOCK: usize = 1 << 20;

/// What begins an APP1 segment of JPEG with an XMP packet in it.
const XMP_IN_JPEG: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
/// What begins an APP13 segment of JPEG with resources of Photoshop in it.
const PHOTOSHOP_IN_JPEG: &[u8] = b"Photoshop 3.0\0";
/// What begins an iTXt chunk of PNG with an XMP packet in it: the keyword, not compressed, no
/// language, no translated keyword.
const XMP_IN_PNG: &[u8] = b"XML:com.adobe.xmp\0\0\0\0\0";
/// Number of the resource of Photoshop that is an IPTC block.
const IPTC_RESOURCE: [u8; 2] = [0x04, 0x04];

/// Blocks of a file as they stand there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Packets {
    pub(super) xmp: Option<Vec<u8>>,
    pub(super) iptc: Option<Vec<u8>>,
}

impl Packets {
    fn set_xmp(&mut self, packet: &[u8]) {
        set(&mut self.xmp, packet);
    }
}

fn set(block: &mut Option<Vec<u8>>, bytes: &[u8]) {
    if block.is_none() && bytes.len() <= MAX_BLOCK {
        *block = Some(bytes.to_vec());
    }
}

/// The first XMP packet and IPTC block in `bytes`; those of TIFF are fields, which the reader of
/// EXIF finds.
pub(super) fn find(bytes: &[u8], format: Format) -> Packets {
    let mut packets = Packets::default();
    match format {
        Format::Jpeg => find_in_jpeg(bytes, &mut packets),
        Format::Png => find_in_png(bytes, &mut packets),
        Format::WebP => find_in_webp(bytes, &mut packets),
        Format::Gif | Format::Tiff | Format::Bmp => {}
    }
    packets
}

/// Segments up to the first scan: a marker, a length that counts itself, and the rest.
fn find_in_jpeg(bytes: &[u8], packets: &mut Packets) {
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let [0xFF, marker, after @ ..] = rest {
        rest = match marker {
            // A fill byte.
            0xFF => &rest[1..],
            // Markers that stand alone.
            0x01 | 0xD0..=0xD8 => after,
            0xD9 | 0xDA => return,
            _ => {
                let Some((length, _)) = after.split_first_chunk::<2>() else { return };
                let length = usize::from(u16::from_be_bytes(*length));
                let Some((segment, behind)) = after.split_at_checked(length) else { return };
                let inside = segment.get(2..).unwrap_or_default();
                match marker {
                    0xE1 => {
                        if let Some(packet) = inside.strip_prefix(XMP_IN_JPEG) {
                            packets.set_xmp(packet);
                        }
                    }
                    0xED => {
                        if let Some(resources) = inside.strip_prefix(PHOTOSHOP_IN_JPEG) {
                            find_in_photoshop(resources, packets);
                        }
                    }
                    _ => {}
                }
                if length < 2 {
                    return;
                }
                behind
            }
        };
    }
}

/// Resources: `8BIM`, number, a name of even length with its own, the length, and the data,
/// padded to an even length.
fn find_in_photoshop(resources: &[u8], packets: &mut Packets) {
    let mut rest = resources;
    while let Some([a, b, name_length, after @ ..]) = rest.strip_prefix(b"8BIM") {
        let name_length = usize::from(*name_length);
        // With its length in front, the name takes an even number of bytes.
        let Some(after) = after.get(name_length + (name_length + 1) % 2..) else { return };
        let Some((length, after)) = after.split_first_chunk::<4>() else { return };
        let length = u32::from_be_bytes(*length) as usize;
        let Some((data, after)) = after.split_at_checked(length) else { return };
        if [*a, *b] == IPTC_RESOURCE {
            set(&mut packets.iptc, data);
        }
        rest = after.get(length % 2..).unwrap_or_default();
    }
}

/// Chunks: the length of the data, the name, the data, a checksum.
fn find_in_png(bytes: &[u8], packets: &mut Packets) {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((name, after)) = after.split_first_chunk::<4>() else { return };
        let Some((data, after)) = after.split_at_checked(length) else { return };
        if name == b"iTXt"
            && let Some(packet) = data.strip_prefix(XMP_IN_PNG)
        {
            packets.set_xmp(packet);
        }
        rest = after.get(4..).unwrap_or_default();
    }
}

/// Chunks: the name, the length of the data, the data, padded to an even length.
fn find_in_webp(bytes: &[u8], packets: &mut Packets) {
    let mut rest = bytes.get(12..).unwrap_or_default();
    while let Some((name, after)) = rest.split_first_chunk::<4>() {
        let Some((length, after)) = after.split_first_chunk::<4>() else { return };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((data, after)) = after.split_at_checked(length) else { return };
        if name == b"XMP " {
            packets.set_xmp(data);
        }
        rest = after.get(length % 2..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(marker: u8, parts: &[&[u8]]) -> Vec<u8> {
        let inside = parts.concat();
        let length = u16::try_from(inside.len() + 2).unwrap().to_be_bytes();
        [&[0xFF, marker], length.as_slice(), &inside].concat()
    }

    fn found(xmp: &[u8], iptc: Option<&[u8]>) -> Packets {
        Packets { xmp: Some(xmp.to_vec()), iptc: iptc.map(<[u8]>::to_vec) }
    }

    #[test]
    fn blocks_are_found_between_the_segments_of_jpeg() {
        let resources: &[u8] =
            b"8BIM\x03\xED\0\0\0\0\0\x03abc\08BIM\x04\x04\x03own\0\0\0\x04iptc8BIM";
        let file = [
            b"\xFF\xD8".as_slice(),
            &segment(0xE0, &[b"JFIF\0"]),
            &segment(0xE1, &[b"Exif\0\0MM"]),
            b"\xFF",
            &segment(0xE1, &[XMP_IN_JPEG, b"<x/>"]),
            &segment(0xED, &[PHOTOSHOP_IN_JPEG, resources]),
            &segment(0xE1, &[XMP_IN_JPEG, b"<second/>"]),
            &segment(0xDA, &[b"scan"]),
        ];
        assert_eq!(find(&file.concat(), Format::Jpeg), found(b"<x/>", Some(b"iptc")));
    }

    #[test]
    fn packets_are_found_between_the_chunks_of_png_and_webp() {
        let chunk = |name: &[u8], data: &[u8]| {
            let length = u32::try_from(data.len()).unwrap().to_be_bytes();
            [length.as_slice(), name, data, b"-crc"].concat()
        };
        let text = [XMP_IN_PNG, b"<x/>"].concat();
        let png = [b"\x89PNG\r\n\x1A\n".to_vec(), chunk(b"IDAT", b"odd"), chunk(b"iTXt", &text)];
        assert_eq!(find(&png.concat(), Format::Png), found(b"<x/>", None));
        let webp = b"RIFF\0\0\0\0WEBPVP8 \x03\0\0\0odd\0XMP \x04\0\0\0<x/>";
        assert_eq!(find(webp, Format::WebP), found(b"<x/>", None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_over(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xFF), Just(0), Just(0xED)], 0..200),
        ) {
            let photoshop = [b"\xFF\xD8\xFF\xED\0\xF0Photoshop 3.0\08BIM".as_slice(), &bytes].concat();
            find(&photoshop, Format::Jpeg);
            for format in [Format::Jpeg, Format::Png, Format::WebP, Format::Gif] {
                find(&bytes, format);
            }
        }
    }
}
