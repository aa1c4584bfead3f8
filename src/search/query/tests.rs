//! The query language by example.

use proptest::prelude::*;

use tinyfind_index::{Circle, Pixels};

use super::*;

fn parse(text: &str) -> Query {
    text.parse().unwrap()
}

/// The only alternative of a query.
fn only(text: &str) -> Alternative {
    match parse(text).alternatives() {
        [alternative] => alternative.clone(),
        other => panic!("{other:?}"),
    }
}

fn refused(text: &str) -> String {
    let error = text.parse::<Query>().unwrap_err();
    format!("{error}\n{}", error.pointer())
}

/// 2019-01-01 00:00:00, counted by `date -u`.
const NEW_YEAR_2019: i64 = 1_546_300_800;

fn taken(text: &str) -> (Option<i64>, Option<i64>) {
    match only(text).filter().require.as_slice() {
        [Clause::Taken { from, until }] => (*from, *until),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_kind_of_part_is_read() {
    let query = only(r#"red umbrella "Times Square" -night camera:fuji after:2019 -path:"a b""#);
    assert_eq!(query.text().as_deref(), Some("red umbrella Times Square"));
    let word = |text: &str| Term::Word(text.to_owned());
    let phrase = Term::Phrase("Times Square".to_owned());
    assert_eq!(query.terms(), [word("red"), word("umbrella"), phrase.clone()]);
    let filter = query.filter();
    assert_eq!(
        filter.require,
        [
            Clause::Term(phrase),
            Clause::Camera("fuji".to_owned()),
            Clause::Taken { from: Some(NEW_YEAR_2019), until: None },
        ]
    );
    assert_eq!(filter.exclude, [Clause::Term(word("night")), Clause::Path("a b".to_owned())]);
}

#[test]
fn fields_alone_have_no_text() {
    let query = only("camera:fuji -night");
    assert_eq!(query.text(), None);
    assert!(query.terms().is_empty());
}

#[test]
fn after_and_before_part_the_time_between_them() {
    assert_eq!(taken("after:2019"), (Some(NEW_YEAR_2019), None));
    assert_eq!(taken("before:2019"), (None, Some(NEW_YEAR_2019)));
    assert_eq!(taken("after:2019-01-01").0, taken("before:2019-01").1);
}

#[test]
fn field_names_come_in_any_case() {
    assert_eq!(parse("Camera:X-T3 DATE:2019"), parse("camera:X-T3 on:2019"));
}

#[test]
fn a_colon_alone_makes_no_field() {
    for word in ["10:30", "https://example.org/a?b", "a:b", "std::fs", "so:", ":-)", "16:9"] {
        let parts = only(word).parts().to_vec();
        let what = What::Word(word.to_owned());
        assert_eq!(parts, [Part { exclude: false, what, at: 0..word.len() }]);
    }
}

#[test]
fn a_dash_within_a_word_or_alone_excludes_nothing() {
    let filter = only("x-ray - t-shirt").filter();
    assert!(filter.exclude.is_empty(), "{filter:?}");
}

#[test]
fn typographic_quotes_are_quotes() {
    assert_eq!(parse("\u{201c}Times Square\u{201d}"), parse("\"Times Square\""));
    assert_eq!(parse("\u{201d}Times Square\u{201d}"), parse("\"Times Square\""));
}

#[test]
fn errors_point_at_their_place() {
    insta::assert_snapshot!(refused(r#"red "Times Square"#), @r#"
    this quote is never closed
    red "Times Square
        ^
    "#);
    insta::assert_snapshot!(refused("tree after:2019-13-01"), @r"
    `2019-13-01` is no date: write 2019, 2019-07 or 2019-07-14
    tree after:2019-13-01
               ^^^^^^^^^^
    ");
    insta::assert_snapshot!(refused("bäume camra:fuji"), @r"
    there is no field `camra`; fields are path, name, caption, camera, lens, type, width, height, orientation, near, after, before, on and image (to look for the words themselves, put them in quotes)
    bäume camra:fuji
          ^^^^^
    ");
    insta::assert_snapshot!(refused("tree path: holiday"), @r"
    `path:` needs a value right behind the colon
    tree path: holiday
              ^
    ");
    insta::assert_snapshot!(refused("-night -path:x "), @r"
    the query only excludes: add a word or a field to look for
    -night -path:x
    ^^^^^^^^^^^^^^
    ");
}

#[test]
fn every_problem_is_found() {
    let problem = |text: &str| text.parse::<Query>().unwrap_err().problem;
    assert_eq!(problem(" \t"), Problem::Empty);
    assert_eq!(problem("a \"\""), Problem::EmptyQuotes);
    assert_eq!(problem("a path:\" \""), Problem::EmptyQuotes);
    assert_eq!(problem("5\" nail"), Problem::QuoteInWord);
    assert_eq!(problem("\"a\"b"), Problem::NoSpaceAfterQuote);
    assert_eq!(problem("camera:\"a"), Problem::UnclosedQuote);
    assert_eq!(problem("-on:"), Problem::NoValue("on"));
    for date in ["19", "2019-7", "2019-02-29", "2019-00", "2019-01-01-01", "+019", "2019-"] {
        let found = problem(&format!("on:{date}"));
        assert_eq!(found, Problem::BadDate(date.to_owned()));
    }
}

fn required(text: &str) -> Clause {
    match only(text).filter().require.as_slice() {
        [clause] => clause.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn fields_mean_what_they_say() {
    let pixels = |least, most| Pixels { least, most };
    assert_eq!(required("width:>4000"), Clause::Width(pixels(4001, u32::MAX)));
    assert_eq!(required("width:>=4000"), Clause::Width(pixels(4000, u32::MAX)));
    assert_eq!(required("height:<1000"), Clause::Height(pixels(0, 999)));
    assert_eq!(required("height:<=1000"), Clause::Height(pixels(0, 1000)));
    assert_eq!(required("height:1000"), Clause::Height(pixels(1000, 1000)));
    assert_eq!(required("height:=1000"), Clause::Height(pixels(1000, 1000)));
    assert_eq!(required("width:<0"), Clause::Width(pixels(1, 0)));
    assert_eq!(required("type:JPG"), Clause::Format("jpeg".to_owned()));
    assert_eq!(required("type:tif"), Clause::Format("tiff".to_owned()));
    assert_eq!(required("name:IMG_1"), Clause::Name("IMG_1".to_owned()));
    assert_eq!(required("lens:35mm"), Clause::Lens("35mm".to_owned()));
    assert_eq!(required("orientation:Portrait"), Clause::Orientation(Orientation::Portrait));
    assert_eq!(required("caption:dogs"), Clause::Caption(Term::Word("dogs".to_owned())));
    let phrase = Term::Phrase("two dogs".to_owned());
    assert_eq!(required("caption:\"two dogs\""), Clause::Caption(phrase));
    let circle = |radius_in_metres| {
        Clause::Near(Circle { latitude: 51.5, longitude: -0.12, radius_in_metres })
    };
    assert_eq!(required("near:51.5,-0.12,5km"), circle(5000.0));
    assert_eq!(required("near:51.5,-0.12,2.5MI"), circle(2.5 * 1609.344));
    assert_eq!(required("near:+51.50,-0.12,70m"), circle(70.0));
}

#[test]
fn or_binds_looser_than_what_stands_side_by_side() {
    let query = parse("dog beach OR cat -night OR camera:fuji");
    let texts: Vec<Option<String>> = query.alternatives().iter().map(Alternative::text).collect();
    assert_eq!(texts, [Some("dog beach".to_owned()), Some("cat".to_owned()), None]);
    assert_eq!(query.alternatives()[1].filter().exclude.len(), 1);
    assert!(query.has_words() && !query.is_filter());
    assert_eq!(parse("red or blue ORANGE \"OR\"").alternatives().len(), 1);
}

#[test]
fn photos_are_told_from_words_by_sign_and_extension() {
    let images = |text: &str| -> Vec<(String, bool)> {
        parse(text).images().map(|(name, part)| (name.to_owned(), part.exclude)).collect()
    };
    assert_eq!(images("+IMG_1.jpg red"), [("IMG_1.jpg".to_owned(), false)]);
    assert_eq!(images("red -a/IMG_2.HEIC"), [("a/IMG_2.HEIC".to_owned(), true)]);
    assert_eq!(images("+\"my photo\""), [("my photo".to_owned(), false)]);
    assert_eq!(images("red -image:x.gif"), [("x.gif".to_owned(), true)]);
    for text in ["IMG_1.jpg", "red -night", "red -\"IMG_2.jpg\"", "red + blue", "red -a.mp4"] {
        assert!(images(text).is_empty(), "{text}");
    }
    let alone = only("+IMG_1.jpg");
    assert!(!alone.is_filter() && alone.filter().is_empty() && alone.text().is_none());
}

#[test]
fn errors_of_or_photos_and_values_point_at_their_place() {
    insta::assert_snapshot!(refused("dog OR -cat"), @r"
    the query only excludes: add a word or a field to look for
    dog OR -cat
           ^^^^
    ");
    insta::assert_snapshot!(refused("dog OR"), @r"
    `OR` needs something to look for on both sides (to look for the word itself, put it in quotes)
    dog OR
        ^^
    ");
    insta::assert_snapshot!(refused("dog +cat"), @r"
    `+` adds a photo, and `cat` has no photo's extension (to look for the word itself, put it in quotes, without the plus)
    dog +cat
        ^^^^
    ");
    insta::assert_snapshot!(refused("near:51.5,-0.12 dog"), @r"
    `51.5,-0.12` is no place: write latitude, longitude and distance without spaces, such as 51.5,-0.12,5km (degrees, south and west negative; m, km or mi)
    near:51.5,-0.12 dog
         ^^^^^^^^^^
    ");
    let problem = |text: &str| text.parse::<Query>().unwrap_err().problem;
    for size in ["big", ">", "4k", "-1", "1234567890", "> 5"] {
        let found = problem(&format!("width:\"{size}\""));
        assert_eq!(found, Problem::BadSize(size.to_owned()));
    }
    for place in ["1,2,3", "91,0,1km", "0,181,1km", "0,0,0km", "0,0,-1km", "0,0,1e3m", "nan,0,1m"] {
        assert_eq!(problem(&format!("near:{place}")), Problem::BadPlace(place.to_owned()));
    }
    for format in ["heic", "mp4", "a/b.png", "photo"] {
        assert_eq!(problem(&format!("type:{format}")), Problem::BadType(format.to_owned()));
    }
    assert_eq!(problem("orientation:up"), Problem::BadOrientation("up".to_owned()));
    assert_eq!(problem("OR dog"), Problem::NothingBesideOr);
    assert_eq!(problem("dog OR OR cat"), Problem::NothingBesideOr);
    assert_eq!(problem("-IMG_1.jpg"), Problem::OnlyExclusions);
}

proptest! {
    #[test]
    fn a_query_printed_reads_as_itself(
        text in r#"([-+:" a\u{201c}\u{201d}]|path|name|image|x\.jpg|on|2019|-0| OR |ü){0,12}"#,
    ) {
        if let Ok(query) = text.parse::<Query>() {
            prop_assert_eq!(query.to_string().parse::<Query>(), Ok(query));
        }
    }

    #[test]
    fn a_query_of_fields_printed_reads_as_itself(
        fields in proptest::collection::vec((
            "-?(width:[<>]?=?[0-9]{1,9}|type:(jpe?g|tiff?|bmp)|orientation:(square|Portrait)\
             |near:-?[0-8]?[0-9](\\.[0-9]{0,9})?,\\+?[0-9]{1,2}(\\.[0-9]{1,15})?,[1-9][0-9]{0,6}(\\.[0-9]{1,9})?(m|km|mi)\
             |caption:(a|\"a b\")|lens:\"5 mm\"|(on|after|before):20[0-9]{2}(-0[1-9])?)",
            proptest::bool::ANY,
        ), 1..6),
    ) {
        let parts: Vec<String> = fields
            .iter()
            .map(|(field, or)| format!("{field} {}", if *or { "OR " } else { "" }))
            .collect();
        let text = parts.concat() + "a";
        match text.parse::<Query>() {
            Ok(query) => prop_assert_eq!(query.to_string().parse::<Query>(), Ok(query)),
            Err(error) => prop_assert_eq!(error.problem, Problem::OnlyExclusions, "{}", text),
        }
    }

    #[test]
    fn any_text_is_read_or_refused_at_a_place_in_it(text in any::<String>()) {
        if let Err(error) = text.parse::<Query>() {
            prop_assert!(text.get(error.at.clone()).is_some());
            prop_assert_eq!(error.pointer().lines().count(), 2);
        }
    }
}
