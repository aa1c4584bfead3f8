//! Titles, keywords and places of an IPTC block.
//!
//! A block is a row of data sets: `0x1C`, the number of a record, the number in the record, the
//! length, and the data. Source: IPTC-NAA Information Interchange Model, version 4.2.

use std::borrow::Cow;

use super::notes::Notes;

/// What 1:90 says when all texts are UTF-8.
const UTF_8: &[u8] = b"\x1B%G";

/// What an IPTC block says; from the first data set on that makes no sense, nothing.
pub(super) fn read(block: &[u8]) -> Notes {
    let mut notes = Notes::default();
    let mut is_utf_8 = false;
    // Sublocation, city, state, country.
    let mut place: [Option<Cow<'_, str>>; 4] = [const { None }; 4];
    let mut rest = block;
    while let [0x1C, record, number, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        // A length of 32,768 or more is the length of a length, of a picture within: no text.
        let Some((data, behind)) = after.split_at_checked(length).filter(|_| length < 0x8000)
        else {
            break;
        };
        match (record, number) {
            (1, 90) => is_utf_8 = data == UTF_8,
            (2, 5) => notes.set_title(&text(data, is_utf_8)),
            (2, 25) => notes.add_keyword(&text(data, is_utf_8)),
            (2, 92) => place[0] = Some(text(data, is_utf_8)),
            (2, 90) => place[1] = Some(text(data, is_utf_8)),
            (2, 95) => place[2] = Some(text(data, is_utf_8)),
            (2, 101) => place[3] = Some(text(data, is_utf_8)),
            (2, 120) => notes.set_description(&text(data, is_utf_8)),
            _ => {}
        }
        rest = behind;
    }
    notes.set_place(place.iter().flatten().map(|name| &**name));
    notes
}

/// `data` as text. Without a word on it programs write UTF-8 or ISO 8859-1.
fn text(data: &[u8], is_utf_8: bool) -> Cow<'_, str> {
    match std::str::from_utf8(data) {
        Ok(text) => text.into(),
        Err(_) if is_utf_8 => String::from_utf8_lossy(data),
        Err(_) => data.iter().map(|byte| char::from(*byte)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(record: u8, number: u8, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        [&[0x1C, record, number], length.as_slice(), data].concat()
    }

    #[test]
    fn texts_of_the_second_record_are_read() {
        let block = [
            set(2, 0, &[0, 4]),
            set(2, 5, b"Regatta"),
            set(2, 25, b"boat"),
            set(2, 25, b"lac d'Annecy \xE9t\xE9"),
            set(2, 101, b"France"),
            set(2, 90, b"Annecy"),
            set(2, 120, "Zürich or not".as_bytes()),
            vec![0x1C, 2, 25, 0xFF, 0xFF, 1],
            set(2, 25, b"lost"),
        ];
        let mut expected = Notes::default();
        expected.set_title("Regatta");
        expected.add_keyword("boat");
        expected.add_keyword("lac d'Annecy été");
        expected.set_description("Zürich or not");
        expected.set_place(["Annecy", "France"]);
        assert_eq!(read(&block.concat()), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(
            sets in proptest::collection::vec((0_u8..3, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..8),
            tail in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut block: Vec<u8> =
                sets.iter().flat_map(|(record, number, data)| set(*record, *number, data)).collect();
            block.extend(tail);
            read(&block);
        }
    }
}
